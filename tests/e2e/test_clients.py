"""Real clients on a real `mm35 serve` with the trained miniature: the same turns, read by the client's own types.

Those of OpenAI and Anthropic run with every test; `make clients` installs and runs the others.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import turns
from tests.e2e.serving import Server, serving

ROOT = Path(__file__).parents[2]
OTHERS = str(ROOT / ".venv" / "clients" / "bin" / "python")
NODE = Path(__file__).parent / "clients" / "node" / "openai_node.mjs"


@pytest.fixture(scope="module")
def server(seeing_gguf: Path) -> Iterator[Server]:
    with serving("--model", str(seeing_gguf), "--ctx", "8192", log=seeing_gguf.with_name("server.log")) as server:
        yield server


def check(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110)
    well = tuple(line.removeprefix("ok ") for line in done.stdout.splitlines() if line.startswith("ok "))
    assert (well, done.returncode) == (turns.TURNS, 0), done.stderr[-3000:]


@pytest.mark.parametrize(
    ("interpreter", "client"),
    [
        (sys.executable, "openai_python"),
        (sys.executable, "anthropic_python"),
        pytest.param(OTHERS, "openai_python", marks=pytest.mark.clients),
        pytest.param(OTHERS, "anthropic_python", marks=pytest.mark.clients),
        pytest.param(OTHERS, "litellm_python", marks=pytest.mark.clients),
    ],
)
def test_a_python_client(server: Server, interpreter: str, client: str) -> None:
    check(interpreter, "-m", f"tests.e2e.clients.{client}", server.url)


@pytest.mark.clients
def test_mistral_s_client(seeing_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM35_THINKING_FIELD", "content")
    with serving("--model", str(seeing_gguf), "--ctx", "8192", log=seeing_gguf.with_name("mistral.log")) as server:
        check(OTHERS, "-m", "tests.e2e.clients.mistralai_python", server.url)


@pytest.mark.clients
def test_node(server: Server, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps(turns.FACTS))
    check("node", str(NODE), server.url, str(facts))

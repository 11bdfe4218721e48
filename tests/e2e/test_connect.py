"""`mm35 connect`: every client's text is valid in its language, and says what the running server is."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from mm35local.cli.app import run
from mm35local.cli.connect import Client, clients, places, told
from mm35local.errors import ServerError
from tests.e2e.serving import free_port
from tests.server.conftest import fake_engine, listening

URL = "http://127.0.0.1:8123"
MODEL = {"id": "test-model", "context_length": 100_000, "capabilities": {"vision": True}}
NAMED = (
    "zed",
    "cline",
    "roo",
    "continue",
    "opencode",
    "codex",
    "claude-code",
    "vibe",
    "aider",
    "vscode",
    "jetbrains",
    "crush",
    "goose",
)


def text_of(client: Client) -> str:
    return told(client, places(URL, MODEL))[1]


def test_the_clients_of_the_issue_are_known() -> None:
    assert tuple(clients()) == NAMED


@pytest.mark.parametrize("name", NAMED)
def test_a_text_is_complete_and_valid(name: str) -> None:
    client = clients()[name]
    text = text_of(client)
    assert "${" not in text
    assert URL in text
    assert "test-model" in text
    parsed: Any = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load, "shell": _shell}[client.language](
        text
    )
    assert parsed


def _shell(text: str) -> bool:
    return subprocess.run(["bash", "-n"], input=text, text=True, check=False).returncode == 0


def test_limits_leave_room_for_the_answer() -> None:
    values = places(URL, MODEL)
    assert int(values["INPUT"]) + int(values["OUTPUT"]) == int(values["CONTEXT"]) == 100_000
    assert (values["PORT"], values["IMAGES"]) == ("8123", "true")
    with pytest.raises(ServerError, match="loading"):
        places(URL, {"id": "x", "context_length": None})


def test_a_key_is_asked_for_and_never_printed() -> None:
    values = places(URL, MODEL, has_key=True)
    for name, client in clients().items():
        page = "".join(told(client, values))
        assert "none" not in _values(page), name
    assert 'env_key = "MM35_API_KEY"' in told(clients()["codex"], values)[1]
    assert 'api_key_env_var = "MM35_API_KEY"' in told(clients()["vibe"], values)[1]
    assert "AUTH_TOKEN=YOUR_API_KEY" in told(clients()["claude-code"], values)[1]
    assert "env_key" not in text_of(clients()["codex"])


def _values(page: str) -> set[str]:
    return set(re.findall(r"[\w-]+", page))


async def test_the_settings_say_where_the_server_is_and_its_key(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(fake_engine(), api_keys=["geheim"]) as here:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # would swallow what is for this machine
        monkeypatch.setenv("MM35_PORT", here.url.rpartition(":")[2])
        monkeypatch.setenv("MM35_HOST", "0.0.0.0")
        assert await asyncio.to_thread(run, ["connect", "opencode"]) == 1
        assert "asks for its API key" in capsys.readouterr().err
        assert await asyncio.to_thread(run, ["connect", "opencode", "--api-key", "wrong"]) == 1
        assert "does not know this API key" in capsys.readouterr().err
        monkeypatch.setenv("MM35_API_KEY", "geheim")
        assert await asyncio.to_thread(run, ["connect", "opencode"]) == 0
    page = capsys.readouterr().out
    assert here.url in page
    assert "geheim" not in page
    assert "YOUR_API_KEY" in page


async def test_the_running_server_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    async with listening(fake_engine()) as here:
        code = await asyncio.to_thread(run, ["connect", "opencode", "--url", f"{here.url}/v1/"])
        page = capsys.readouterr()
    assert code == 0
    assert page.err.startswith("# opencode: opencode.json")
    model = json.loads(page.out)["provider"]["mm35local"]["models"]["test-model"]
    assert model["limit"] == {"context": 1024, "output": 256}


def test_mistakes_are_two_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["connect", "emacs"]) == 2
    assert "one of: zed" in capsys.readouterr().err
    assert run(["connect", "zed", "--url", f"http://127.0.0.1:{free_port()}"]) == 1
    assert "start one with: mm35 serve" in capsys.readouterr().err
    assert run(["connect"]) == 0
    assert "Claude Code" in capsys.readouterr().out

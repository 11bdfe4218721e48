"""`mm35 chat -p` as a script uses it: with no server running, and with one."""

from __future__ import annotations

import json
import time
from pathlib import Path

import psutil
import pytest

from tests.e2e.serving import free_port, mm35, serving


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An own port, and folders of its own for everything but the models."""
    return {"MM35_PORT": str(free_port()), "XDG_DATA_HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}


def test_one_answer_on_stdout_and_nothing_left_running(env: dict[str, str], smollm2_path: Path) -> None:
    done = mm35("chat", "-p", "Name three colours.", "--model", str(smollm2_path), "--max-tokens", "24", env=env)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.strip()) > 5
    assert done.stdout.endswith("\n")
    time.sleep(0.2)
    assert [p for p in psutil.process_iter(["cmdline"]) if env["MM35_PORT"] in (p.info["cmdline"] or [])] == []


def test_the_question_from_a_pipe(env: dict[str, str], smollm2_path: Path) -> None:
    options = ("--model", str(smollm2_path), "--max-tokens", "8")
    for arguments in (("chat", "-p", "-"), ("chat",)):
        done = mm35(*arguments, *options, env=env, stdin="Say hi\n")
        assert (done.returncode, bool(done.stdout.strip())) == (0, True), done.stderr


def test_events_for_scripts(env: dict[str, str], smollm2_path: Path) -> None:
    done = mm35("chat", "-p", "Say hi", "--json", "--model", str(smollm2_path), "--max-tokens", "8", env=env)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert len(events) > 2


def test_a_running_server_is_used_and_left_running(env: dict[str, str], smollm2_path: Path, tmp_path: Path) -> None:
    with serving("--model", str(smollm2_path), log=tmp_path / "log") as server:
        done = mm35("chat", "-p", "Say hi", "--max-tokens", "8", "--url", server.url, env=env)
        assert done.returncode == 0, done.stderr
        assert server.health()[0] == 200


def test_no_server_at_the_url_given(env: dict[str, str]) -> None:
    done = mm35("chat", "-p", "Say hi", "--url", f"http://127.0.0.1:{free_port()}", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith("error: no server answers at")
    assert done.stderr.splitlines()[1].startswith("hint: ")


def test_without_a_model_the_reason_is_said(env: dict[str, str], smollm2_path: Path) -> None:
    done = mm35("chat", "-p", "Say hi", "--max-tokens", "4", env=env)
    assert done.returncode == 0, done.stderr
    assert "Mistral Medium 3.5 needs" in done.stderr

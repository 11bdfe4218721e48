from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from PIL import Image

from mm35local.errors import ServerError, ServerUnreachable, UsageError
from mm35local.tui.attach import Launch
from mm35local.tui.options import ChatOptions
from mm35local.tui.print_mode import run_print
from tests.fakes.chat_server import ChatScript, ChatServer, Fail, Refuse, Say, Think, trickle

ROOT = Path(__file__).parents[2]


def test_the_answer_is_all_of_stdout(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.script.scripts = [(Think("hm"), Say("Red,\n"), Say("[/green]"))]
    assert run_print("Name colours.", ChatOptions(server.url, system="Be brief.", max_tokens=9)) == 0
    assert capsys.readouterr() == ("Red,\n[/green]\n", "")
    [request] = server.script.requests
    assert [message["role"] for message in request["messages"]] == ["system", "user"]
    assert request["max_tokens"] == 9


def test_a_last_line_that_ends_is_not_ended_twice(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.script.scripts = [(Say("Red\n"),)]
    assert run_print("?", ChatOptions(server.url)) == 0
    assert capsys.readouterr().out == "Red\n"


def test_events_as_json(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.script.scripts = [(Think("hm"), Say("é\n"))]
    assert run_print("?", ChatOptions(server.url), json_events=True) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": "thinking", "text": "hm"},
        {"event": "text", "text": "é\n"},
        {
            "event": "end",
            "finish_reason": "stop",
            "usage": {"num_prompt_tokens": 7, "num_completion_tokens": 2, "num_cached_tokens": 3},
        },
    ]


def test_errors_are_raised_after_the_line_is_ended(server: ChatServer, capsys: pytest.CaptureFixture[str]) -> None:
    server.script.scripts = [(Refuse(400, "too long"),), (Say("half"), Fail("broken"))]
    with pytest.raises(ServerError, match="too long"):
        run_print("?", ChatOptions(server.url), json_events=True)
    assert json.loads(capsys.readouterr().out)["message"] == "too long"
    with pytest.raises(ServerError, match="broken"):
        run_print("?", ChatOptions(server.url))
    assert capsys.readouterr().out == "half\n"


def test_a_server_that_may_be_started_is_looked_for_at_its_own_address(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = ChatScript(scripts=[(Say("The other model."),)])
    with ChatServer(other) as wished:
        launch = Launch(("/no/such/program",), wished.url, tmp_path / "log")
        assert run_print("?", ChatOptions(server.url, launch=launch)) == 0
    assert capsys.readouterr().out == "The other model.\n"


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ServerUnreachable):
        run_print("?", ChatOptions("http://127.0.0.1:9"))
    assert capsys.readouterr() == ("", "")


def _process(server: ChatServer) -> subprocess.Popen[bytes]:
    program = (
        "import sys\n"
        "from mm35local.tui.options import ChatOptions\n"
        "from mm35local.tui.print_mode import run_print\n"
        f"code = run_print('?', ChatOptions({server.url!r}))\n"
        "assert not {'textual', 'llama_cpp', 'torch'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)


def _wait_until_gone(server: ChatServer) -> None:
    deadline = time.monotonic() + 5
    while server.script.num_gone == 0:
        assert time.monotonic() < deadline, "the server still answers"
        time.sleep(0.01)


@pytest.mark.parametrize("how", ["ctrl-c", "broken pipe"])
def test_leaving_ends_quietly_and_stops_the_server(server: ChatServer, how: str) -> None:
    server.script.scripts = [(Say("first"), *trickle(" more", 1000))]
    with _process(server) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(5) == b"first"
        if how == "ctrl-c":
            os.kill(process.pid, signal.SIGINT)
            # Somebody must read on, or a full pipe would hold it.
            threading.Thread(target=process.stdout.read, daemon=True).start()
        else:
            process.stdout.close()
        assert process.wait(10) == 130
        assert process.stderr.read() == b""
    _wait_until_gone(server)


def test_a_whole_run_as_a_process(server: ChatServer) -> None:
    with _process(server) as process:
        out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, b"Hello.\n", b"")


def test_the_last_conversation_goes_on_with_an_image(
    server: ChatServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "dot.png"
    Image.new("RGB", (1, 1)).save(picture)
    options = ChatOptions(server.url, history_path=tmp_path / "history.sqlite3", continue_last=True)
    assert run_print("one", options, images=[picture]) == 0
    assert run_print("two", options) == 0
    assert capsys.readouterr().out == "Hello.\nHello.\n"
    first, second = (request["messages"] for request in server.script.requests)
    assert [part["type"] for part in first[0]["content"]] == ["image_url", "text"]
    assert [message["role"] for message in second] == ["user", "assistant", "user"]
    assert run_print("alone", ChatOptions(server.url, history_path=options.history_path)) == 0
    assert len(server.script.requests[2]["messages"]) == 1
    with pytest.raises(UsageError, match="no such file"):
        run_print("?", options, images=[tmp_path / "none.png"])

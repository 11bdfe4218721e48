"""The worker's ear: it never goes deaf while the process lives on."""

from __future__ import annotations

import subprocess
import sys

import pytest

WORKER = """
import socket, time
from mm35local.engine.inbox import Inbox
from mm35local.engine.pipe import Pipe, packed

class Renamed:
    pass

ours, theirs = socket.socketpair()
message = packed(Renamed())
del Renamed
Inbox(Pipe(theirs))
ours.sendall({})
time.sleep(30)
"""


@pytest.mark.parametrize(("said", "exit_code"), [("message", 1), ("message[:5]); (ours.close()", 0)])
def test_what_nobody_understands_ends_the_process_and_so_does_an_end_that_is_gone(said: str, exit_code: int) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WORKER.replace("{}", said)], capture_output=True, text=True, timeout=20, check=False
    )
    assert ended.returncode == exit_code
    assert ("Renamed" in ended.stderr) == bool(exit_code), "the log tells what it was"

"""A server that the chat started: its own session (Ctrl-C in the terminal is not for it), its output in a log.

The owner must `close` it. Its standard input is a pipe that we hold: a server that watches it learns of our death,
however sudden, by the end of that pipe.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mm35local.errors import Mm35Error, ServerError

_TERM_SECONDS = 10.0
_TAIL_BYTES = 8192
_TAIL_LINES = 6


_KEEPER = """
import os, sys, time
while True:
    time.sleep(2)
    try:
        os.kill(int(sys.argv[1]), 0)
    except OSError:
        break
"""


class ServerProcess:
    def __init__(self, argv: Sequence[str], log_path: Path) -> None:
        """Starts it. Raises ServerError if there is no such program or the log cannot be written."""
        self.log_path = log_path
        self._is_ours = True
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with log_path.open("ab") as log:
                self._log_start = os.fstat(log.fileno()).st_size
                self._process = subprocess.Popen(
                    argv, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
                )
        except OSError as problem:
            raise ServerError(
                f"the server cannot be started: {problem}", "start one yourself with: mm35 serve"
            ) from problem

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative is the signal that ended it."""
        return self._process.poll()

    def failure(self) -> Mm35Error:
        """Why it ended, in its own words where it left two lines `error:` and `hint:` in its log."""
        lines = self._last_lines()
        error = next((line.removeprefix("error:").strip() for line in reversed(lines) if line.startswith("error:")), "")
        hint = next((line.removeprefix("hint:").strip() for line in reversed(lines) if line.startswith("hint:")), "")
        if error:
            return ServerError(error, hint or f"its log: {self.log_path}")
        tail = "\n".join(lines[-_TAIL_LINES:])
        return ServerError(
            f"the server {self._how_it_ended()}" + (f":\n{tail}" if tail else ""), f"its log: {self.log_path}"
        )

    def _how_it_ended(self) -> str:
        code = self.exit_code
        if code is None:
            return "still runs"
        return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"

    def _last_lines(self) -> list[str]:
        with self.log_path.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            text = log.read().decode("utf-8", "replace")
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def let_run(self) -> None:
        """Let it outlive us: a keeper holds its standard input open for as long as it runs."""
        keeper = subprocess.Popen(
            [sys.executable, "-c", _KEEPER, str(self._process.pid)],
            stdin=subprocess.DEVNULL,
            stdout=self._process.stdin,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._is_ours = False
        if self._process.stdin:
            self._process.stdin.close()
        # Neither is ours to wait for any more, and that is no leak to warn of.
        keeper.returncode = self._process.returncode = 0

    async def close(self) -> None:
        """Ask it to end, then make it; safe to call twice."""
        if not self._is_ours:
            return
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        if self.exit_code is None:
            self._process.terminate()
            await asyncio.to_thread(self._wait)

    def _wait(self) -> None:
        try:
            self._process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

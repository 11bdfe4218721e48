"""The worker's ear: a thread reads the pipe, so that commands are seen, and a dead parent noticed, during a step."""

from __future__ import annotations

import os
import queue
import threading
import traceback

from mm35local.engine.api import Cancel, Command, Shutdown, Tokenized
from mm35local.engine.pipe import Pipe


class Inbox:
    """Commands in the order they were sent. The process ends at once when the other end of the pipe is gone, or
    says what nobody understands."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._commands: queue.SimpleQueue[Command | Tokenized] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self.is_closing = False
        """Shutdown has been received; it may not have been handed out yet."""
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def put(self, answer: Tokenized) -> None:
        """From a thread of this process: the loop wakes up and sends it."""
        self._commands.put(answer)

    @property
    def is_empty(self) -> bool:
        """Has nothing come that was not drained?"""
        return self._commands.empty()

    def drain(self, *, block: bool) -> list[Command | Tokenized]:
        """Everything that has come; with `block`, sleep until there is something."""
        commands = [self._commands.get()] if block else []
        while not self.is_empty:
            commands.append(self._commands.get())
        for command in commands:
            if isinstance(command, Cancel):
                self._cancelled.discard(command.request_id)
        return commands

    def is_cancelled(self, request_id: int) -> bool:
        """Is a Cancel for it, or a Shutdown, waiting to be drained?"""
        return self.is_closing or request_id in self._cancelled

    def _read(self) -> None:
        try:
            while True:
                self._take(self._pipe.recv())
        except (EOFError, OSError):
            os._exit(0)
        finally:  # no worker is deaf and looks well
            traceback.print_exc()
            os._exit(1)

    def _take(self, command: Command) -> None:
        if isinstance(command, Cancel):
            self._cancelled.add(command.request_id)
        elif isinstance(command, Shutdown):
            self.is_closing = True
        self._commands.put(command)

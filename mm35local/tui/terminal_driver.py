"""The chat on a terminal: it ends when the terminal goes.

One that has a controlling terminal is ended by SIGHUP; where there is none, Textual's own would read its end for ever.
"""

from __future__ import annotations

import select
from threading import Thread

from textual.drivers.linux_driver import LinuxDriver
from textual.messages import ExitApp

_LOOK_SECONDS = 1.0
"""How often the watch looks whether it is still needed; of the end itself it hears at once."""


class TerminalDriver(LinuxDriver):
    def run_input_thread(self) -> None:
        Thread(target=self._watch, name="terminal-watch", daemon=True).start()
        super().run_input_thread()

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self.fileno, 0)  # no input: a hang-up and errors are told unasked
        while not self.exit_event.is_set():
            if poll.poll(1000 * _LOOK_SECONDS):
                self.exit_event.set()
                self.send_message(ExitApp())

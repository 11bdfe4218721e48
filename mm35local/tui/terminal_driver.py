"""The chat on a terminal: it ends when the terminal goes, and one that was stopped goes on.

One that has a controlling terminal is ended by SIGHUP; where there is none, Textual's own would read its end for ever.
"""

from __future__ import annotations

import select
from threading import Event, Thread

from textual.drivers.linux_driver import LinuxDriver
from textual.messages import ExitApp

_LOOK_SECONDS = 1.0
"""How often the watch looks whether it is still needed; of the end itself it hears at once."""


class TerminalDriver(LinuxDriver):
    def run_input_thread(self) -> None:
        is_done = Event()
        Thread(target=self._watch, args=(is_done,), name="terminal-watch", daemon=True).start()
        try:
            super().run_input_thread()
        finally:
            is_done.set()

    def _watch(self, is_done: Event) -> None:
        poll = select.poll()
        poll.register(self.fileno, 0)  # no input: a hang-up and errors are told unasked
        while not is_done.is_set():
            if poll.poll(1000 * _LOOK_SECONDS):
                self.exit_event.set()
                self.send_message(ExitApp())
                return

    def _sigcont_application(self, *_: object) -> None:
        """Only what was suspended resumes: after a plain SIGSTOP a second thread would read the keys beside the first,
        each would get some of them, and the end would wait for a key for ever."""
        if self._key_thread is None or not self._key_thread.is_alive():
            super()._sigcont_application()

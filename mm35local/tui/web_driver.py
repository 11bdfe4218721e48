"""The chat as one tab of the page: textual-serve reads and writes it through pipes, not through a terminal."""

from __future__ import annotations

from textual.drivers.web_driver import WebDriver
from textual.messages import ExitApp


class TabDriver(WebDriver):
    """Ends the chat when its page is gone, however suddenly; Textual's own would stay for ever."""

    def run_input_thread(self) -> None:
        super().run_input_thread()
        if not self.exit_event.is_set():
            self.send_message(ExitApp())

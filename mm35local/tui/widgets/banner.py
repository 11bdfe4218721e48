"""A strip above the prompt while the server cannot be reached: why, and what happens next."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from mm35local.tui.connection import Link, LinkState
from mm35local.tui.plain_text import visible
from mm35local.tui.widgets.notice import error_content


class Banner(Static):
    def __init__(self) -> None:
        super().__init__(markup=False)
        self.display = False

    def tell_link(self, link: Link) -> None:
        """Shown while the link is lost or failed, and while it is made again."""
        if link.error is None or link.state is LinkState.READY:
            self.display = False
            return
        match link.state:
            case LinkState.LOST:
                then = f"trying again in {link.retry_seconds:.0f} s · F5 tries now"
            case LinkState.FAILED:
                then = "F5 tries again"
            case _:
                then = "starting it again"
        content = error_content(link.error.message, link.error.hint)
        self.update(Content("\n").join([content, Content.styled(f"  {visible(then)}", "bold")]))
        self.display = True

"""`mm35 chat --web`: the same chat in a browser, through textual-serve. Each tab is a chat process of its own; the
server that they talk to belongs to this process, so that closing one tab takes it from no other.
"""

from __future__ import annotations

from collections.abc import Sequence

from mm35local.errors import UsageError
from mm35local.tui.options import ChatOptions


def serve_web(command: Sequence[str], options: ChatOptions) -> int:
    """Until Ctrl-C; `command` is that of a tab. Raises UsageError where textual-serve is not installed."""
    try:
        from mm35local.tui.web_page import ChatPage
    except ModuleNotFoundError as problem:
        raise UsageError("--web needs the package textual-serve", "pip install 'mm35local[web]'") from problem
    ChatPage(command, options).serve()
    return 0

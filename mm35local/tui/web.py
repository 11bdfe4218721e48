"""`mm35 chat --web`: the same chat in a browser, through textual-serve. Each tab starts a chat process of its own.

Only loopback is served: whoever reaches the page has the person's conversations.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from mm35local.errors import UsageError

HOST = "127.0.0.1"


def serve_web(command: Sequence[str], port: int) -> int:
    """Until Ctrl-C. Raises UsageError where textual-serve is not installed."""
    try:
        from textual_serve.server import Server
    except ImportError as problem:
        raise UsageError("--web needs the package textual-serve", "pip install 'mm35local[web]'") from problem
    Server(shlex.join(command), host=HOST, port=port, title="mm35").serve()
    return 0

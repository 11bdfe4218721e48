"""The page that a browser opens, and who may open it: it holds a person's conversations and reads their files.

Loopback keeps other machines out, the key in the printed address other users of this one, the Host and Origin headers
other web pages in the same browser. Everything on the page comes from here.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from importlib.resources import files
from string import Template
from typing import Any

from aiohttp import web
from textual_serve.server import Server

from mm35local.tui.client import ServerClient
from mm35local.tui.connection import Connection, Link, LinkState
from mm35local.tui.options import ChatOptions
from mm35local.tui.web_tab import Tab

HOST = "127.0.0.1"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_DEFAULT_FONT_PIXELS = 16
_HEARTBEAT_SECONDS = 15
_POLICY = (
    "default-src 'self'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self' ws://{host}; frame-ancestors 'none'"
)


class ChatPage(Server):
    def __init__(self, command: Sequence[str], options: ChatOptions) -> None:
        """`command` starts the chat of one tab. Raises UsageError if the options name no proper address."""
        super().__init__(shlex.join(command), host=HOST, port=0, title="mm35")
        self._key = secrets.token_urlsafe(32)
        self._nonce = secrets.token_urlsafe(16)
        self._client = ServerClient(options.address, options.api_key)
        self._connection = Connection(self._client, options.api_key, options.launch)
        self._tabs: set[asyncio.Task[web.WebSocketResponse]] = set()

    def serve(self, debug: bool = False) -> None:
        """Until Ctrl-C or SIGTERM, on a port that is free."""
        # Warnings only: a line per request would have the key in it.
        logging.basicConfig(level="WARNING", format="%(message)s")
        self.debug = debug
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        ended = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, ended.set)
        runner = web.AppRunner(await self._make_app(), access_log=None)
        watching = asyncio.create_task(self._connection.run(_tell))
        try:
            await runner.setup()
            await web.TCPSite(runner, self.host, self.port).start()
            self.port = runner.addresses[0][1]
            print(f"the chat: http://{self.host}:{self.port}/?key={self._key}\nCtrl-C ends it", flush=True)
            await ended.wait()
        finally:
            await _cancel(self._tabs)  # first: each keeps what came of its answer
            await _cancel([watching])
            await runner.cleanup()
            await self._connection.close()
            await self._client.aclose()

    async def on_startup(self, app: web.Application) -> None:
        """Textual-serve would print its logo, and an address without the key."""

    async def _make_app(self) -> web.Application:
        app = await super()._make_app()
        app.middlewares.append(self._admit)
        app.on_response_prepare.append(self._harden)
        return app

    @property
    def _cookie(self) -> str:
        """Cookies know no ports: two of these pages must not take each other's."""
        return f"mm35-{self.port}"

    async def handle_index(self, request: web.Request) -> web.Response:
        given = request.query.get("fontsize", "")
        pixels = int(given) if given.isascii() and given.isdigit() else _DEFAULT_FONT_PIXELS
        page = Template(files(__package__).joinpath("web_page.html").read_text("utf-8"))
        text = page.substitute(host=request.host, nonce=self._nonce, font_pixels=min(max(pixels, 6), 72))
        return web.Response(text=text, content_type="text/html")

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        serving = asyncio.create_task(self._serve_tab(request))
        self._tabs.add(serving)
        try:
            return await serving
        finally:
            self._tabs.discard(serving)

    async def _serve_tab(self, request: web.Request) -> web.WebSocketResponse:
        """Until the browser closes it, or the page ends. Textual-serve's own tells nobody why a tab did not begin."""
        socket = web.WebSocketResponse(heartbeat=_HEARTBEAT_SECONDS)
        await socket.prepare(request)

        async def close() -> None:
            await socket.close()

        tab = Tab(
            self.command,
            write_bytes=socket.send_bytes,
            write_str=socket.send_str,
            close=close,
            download_manager=self.download_manager,
            debug=self.debug,
        )
        try:
            await tab.start(_cells(request, "width", 80), _cells(request, "height", 24))
            await self._process_messages(socket, tab)
        except asyncio.CancelledError:
            pass  # the page ends
        finally:
            await tab.stop()
            await socket.close()
        return socket

    @web.middleware
    async def _admit(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.url.host not in _LOOPBACK or request.headers.get("Origin", _origin(request)) != _origin(request):
            raise web.HTTPForbidden(text="This page answers under its own address only.")
        if self._is_key(request.query.get("key", "")):
            # Out of the address bar and the browser's history of addresses.
            opened = web.HTTPSeeOther("/")
            opened.set_cookie(self._cookie, self._key, httponly=True, samesite="Strict")
            raise opened
        if not self._is_key(request.cookies.get(self._cookie, "")):
            raise web.HTTPForbidden(text="Open the address that mm35 chat --web has printed.")
        return await handler(request)

    def _is_key(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._key.encode())

    async def _harden(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers["Content-Security-Policy"] = _POLICY.format(host=request.host, nonce=self._nonce)
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"


def _cells(request: web.Request, name: str, otherwise: int) -> int:
    given = request.query.get(name, "")
    return int(given) if given.isascii() and given.isdigit() else otherwise


def _origin(request: web.Request) -> str:
    return f"http://{request.host}"


def _tell(link: Link) -> None:
    """The tabs see for themselves whether the server answers, but not why it could not be started."""
    if link.state is LinkState.FAILED and link.error is not None:
        print(f"error: {link.error.message}\nhint: {link.error.hint}", file=sys.stderr)


async def _cancel(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

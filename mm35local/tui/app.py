"""The terminal chat as an application: it joins the session, the link to the server and the chat screen.

Importing this loads Textual and HTTP, never a model library.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from functools import partial
from typing import ClassVar

from textual import constants
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import Screen

from mm35local.errors import UsageError
from mm35local.tui.client import ServerClient
from mm35local.tui.commands import COMMANDS
from mm35local.tui.connection import Connection
from mm35local.tui.options import ChatOptions
from mm35local.tui.screens.chat import ChatScreen
from mm35local.tui.screens.leave import LeaveScreen
from mm35local.tui.session import ChatSession
from mm35local.tui.theme import DARK, LIGHT


class ChatApp(App[None]):
    TITLE = "mm35"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "ctrl+q",
            "quit",
            "Quit",
            tooltip="Leave; its own server ends, unless others use it",
            priority=True,
        ),
        Binding("f2", "light", "Light or dark", show=False),
        Binding("ctrl+p", "command_palette", "All commands", show=False, priority=True),
    ]

    def __init__(self, options: ChatOptions, driver: type[Driver] | None = None) -> None:
        """`driver` None is the terminal's. Raises UsageError if the options name no proper address."""
        super().__init__(driver_class=driver)
        # Over ssh every frame of an animation is traffic, and none of ours tells anything.
        self.animation_level = "none"
        self.register_theme(DARK)
        self.register_theme(LIGHT)
        self.theme = options.theme if options.theme in self.available_themes else DARK.name
        self._client = ServerClient(options.address, options.api_key)
        self.session = ChatSession(self._client, options)
        self.connection = Connection(self._client, options.api_key, options.launch)
        self._reason = options.reason or ""

    def get_default_screen(self) -> ChatScreen:
        return ChatScreen(self.session, self.connection, self._reason)

    def refresh_css(self, animate: bool = True) -> None:
        """Before there is a screen only the colours change: the rules are read with them once it comes, not twice."""
        if self.screen_stack:
            super().refresh_css(animate)
        else:
            self.stylesheet.set_variables(self.get_css_variables())

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: every command; one that needs an argument begins in the prompt."""
        if isinstance(screen, ChatScreen):
            for command in COMMANDS:
                needs_more = command.argument and not command.argument.startswith("[")
                begin = partial(screen.prompt.write, f"/{command.name} ")
                run = begin if needs_more else partial(screen.run_command, command.name, "")
                yield SystemCommand(f"/{command.name}", command.help, run)
        yield SystemCommand("Theme", "Choose among all themes", self.action_change_theme)
        yield SystemCommand("Screenshot", "Keep the screen as an SVG", self.deliver_screenshot)

    async def action_quit(self) -> None:
        """A server of ours that others use is not taken from them unasked."""
        self.run_worker(self._leave(), group="leave", exclusive=True)

    async def _leave(self) -> None:
        chat = self.screen_stack[0]
        num_own = int(isinstance(chat, ChatScreen) and chat.answering is not None)
        num_others = await self.connection.num_others(num_own)
        choice = await self.push_screen_wait(LeaveScreen(num_others)) if num_others else "stop"
        if choice == "leave":
            self.connection.let_run()
        if choice is not None:
            self.exit()

    def action_light(self) -> None:
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name

    async def aclose(self) -> None:
        """After the screen is gone: keep what is not kept yet, stop the server if it is ours."""
        try:
            await self.session.close()
        finally:
            await self.connection.close()
            await self._client.aclose()


def run_chat(options: ChatOptions) -> int:
    """Open the chat and stay until the person leaves; answers the exit code.

    Raises UsageError where there is no terminal, or the options name no proper address.
    """
    # Textual draws on stderr.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise UsageError("the terminal chat needs a terminal", 'to answer on stdout: mm35 chat -p "question"')
    return asyncio.run(_run(ChatApp(options, _terminal_driver())))


def _terminal_driver() -> type[Driver] | None:
    if sys.platform == "win32" or constants.DRIVER:
        return None
    from mm35local.tui.terminal_driver import TerminalDriver

    return TerminalDriver


def run_tab(options: ChatOptions) -> int:
    """The chat of one browser tab, with textual-serve at its standard input and output."""
    from mm35local.tui.web_driver import TabDriver

    return asyncio.run(_run(ChatApp(options, TabDriver)))


async def _run(app: ChatApp) -> int:
    try:
        await app.run_async()
    finally:
        await app.aclose()
    return app.return_code or 0

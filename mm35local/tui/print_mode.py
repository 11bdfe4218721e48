"""`mm35 chat -p`: one question, the answer on stdout as it comes, and exit codes that scripts can trust.

stdout carries only the answer (or, as JSON, one event a line); waiting is shown on stderr, and only to a person.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol, TextIO

from mm35local.errors import Mm35Error
from mm35local.tui.attach import attach
from mm35local.tui.attachments import read_attachment
from mm35local.tui.client import ServerClient
from mm35local.tui.events import CallDelta, ChatEvent, Delta, Ended, Health, Prefill
from mm35local.tui.figures import bar, load_rate
from mm35local.tui.options import ChatOptions
from mm35local.tui.plain_text import encodable, visible
from mm35local.tui.records import Message, Role
from mm35local.tui.session import ChatSession
from mm35local.types import Usage

INTERRUPTED = 130
_BAR_CELLS = 24
_USAGE = ("num_prompt_tokens", "num_completion_tokens", "num_cached_tokens")


class Printer(Protocol):
    """Where the events of one run go."""

    def loading(self, health: Health) -> None: ...

    def event(self, event: ChatEvent) -> None: ...

    def failed(self, error: Mm35Error) -> None: ...

    def end(self) -> None: ...


def run_print(question: str, options: ChatOptions, json_events: bool = False, images: Sequence[Path] = ()) -> int:
    """Answer `question` on stdout; 0 once it is there, 130 if the reader left or Ctrl-C was pressed.

    With `continue_last` the last conversation goes on and is kept; otherwise nothing is.
    Raises Mm35Error (told as an event first, with `json_events`).
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal of another century must not end an answer at its first accent.
        sys.stdout.reconfigure(errors="replace")
    printer = JsonPrinter(sys.stdout) if json_events else TextPrinter(sys.stdout, sys.stderr)
    try:
        attachments = tuple(read_attachment(path) for path in images)
        asyncio.run(_run(Message(Role.USER, encodable(question), attachments=attachments), options, printer))
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            printer.end()
        return INTERRUPTED
    except BrokenPipeError:
        _discard(sys.stdout)
        return INTERRUPTED
    except Mm35Error as error:
        with contextlib.suppress(OSError):
            printer.failed(error)
        raise
    return 0


async def _run(question: Message, options: ChatOptions, printer: Printer) -> None:
    handle = await attach(options.address, options.api_key, options.launch, printer.loading)
    client = ServerClient(handle.url, options.api_key)
    kept = options if options.continue_last else replace(options, history_path=None)
    session = ChatSession(client, kept)
    model = handle.health.model.id if handle.health.model else ""
    try:
        await session.open()
        if error := session.take_history_error():
            raise error
        reply = await session.ask(question.content, model, question.attachments)
        ready = asyncio.Event()
        ready.set()
        await session.answer(reply, ready, printer.event)
        if reply.error is not None:
            raise reply.error
        printer.end()
    finally:
        await session.close()
        await client.aclose()
        await handle.close()


class TextPrinter:
    """The answer as text: as it came into a pipe, without control characters onto a terminal."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._is_terminal = out.isatty()
        self._has_bar = False
        self._is_line_open = False

    def loading(self, health: Health) -> None:
        if self._err.isatty():
            self._has_bar = True
            rate = load_rate(health.bytes_per_second, health.eta_seconds)
            self._err.write(
                f"\rloading the model {bar(health.progress, _BAR_CELLS)} {health.progress:4.0%}{rate}\x1b[K"
            )
            self._err.flush()

    def event(self, event: ChatEvent) -> None:
        self._clear_bar()
        if isinstance(event, Delta) and event.content:
            text = visible(event.content) if self._is_terminal else event.content
            self._out.write(text)
            self._out.flush()
            self._is_line_open = not text.endswith("\n")

    def failed(self, error: Mm35Error) -> None:
        del error
        self.end()

    def end(self) -> None:
        """The answer is over, one way or another: leave the cursor at the start of a line."""
        self._clear_bar()
        if self._is_line_open:
            self._is_line_open = False
            self._out.write("\n")
            self._out.flush()

    def _clear_bar(self) -> None:
        if self._has_bar:
            self._has_bar = False
            self._err.write("\r\x1b[K")
            self._err.flush()


class JsonPrinter:
    """One JSON object a line, each with its kind in `event`."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._end: dict[str, Any] = {}

    def loading(self, health: Health) -> None:
        self._write("loading", progress=health.progress, model=health.model.id if health.model else None)

    def event(self, event: ChatEvent) -> None:
        match event:
            case Delta(content, reasoning):
                if reasoning:
                    self._write("thinking", text=reasoning)
                if content:
                    self._write("text", text=content)
            case Prefill():
                self._write("prefill", **asdict(event))
            case CallDelta():
                self._write("tool_call", **asdict(event))
            case Ended(finish_reason):
                self._end["finish_reason"] = finish_reason
            case Usage():
                self._end["usage"] = {name: getattr(event, name) for name in _USAGE}

    def failed(self, error: Mm35Error) -> None:
        self._write("error", message=error.message, hint=error.hint)

    def end(self) -> None:
        self._write("end", **self._end)

    def _write(self, event: str, **facts: Any) -> None:
        self._out.write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")
        self._out.flush()


def _discard(out: TextIO) -> None:
    """Send what is still buffered nowhere, or the interpreter would complain about the broken pipe at its end."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, out.fileno())
        os.close(null)

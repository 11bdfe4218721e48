"""Takes the README's pictures of the chat from the real app, answered by the small model on a real `mm35 serve`.

`make screenshots` writes docs/chat.svg and docs/search.svg.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from mm35local.paths import models_dir
from mm35local.tui.options import ChatOptions
from mm35local.tui.screens.conversations import ConversationsScreen
from tests.e2e.serving import serving
from tests.tui.chat_pilot import Chat, open_chat
from tests.tui.conftest import until

DOCS = Path(__file__).parents[2] / "docs"
MODEL = models_dir() / "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = (100, 36)
EARLIER = (
    (1, "What is attention in a transformer?"),
    (26, "Why is the sky blue?"),
    (30, "How do I get a cat's attention?"),
    (75, "Write one line about autumn."),
    (140, "Which foods help with attention and focus?"),
)
"""How many hours ago, and what was asked."""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with serving("--model", str(MODEL), "--ctx", "8192", log=log) as server:
            options = ChatOptions(
                server.url, history_path=Path(folder) / "history.sqlite3", temperature=0, max_tokens=200
            )
            asyncio.run(_take(options))


async def _take(options: ChatOptions) -> None:
    async with open_chat(options, SIZE) as chat:
        await _ask_earlier(chat)
        await chat.ask(
            "Write a Python function that returns the largest number in a list, and explain it in two points."
        )
        await _answered(chat)
        await chat.ask(f"/attach {DOCS / 'decisions.md'}")
        await until(lambda: chat.screen.pending.attachments)
        await chat.ask("What does this page say?")
        await until(lambda: re.search(r"reading [12],\d{3} / .* left", chat.status), 30)
        _keep(chat, "chat")
        await chat.pilot.press("escape")
        await _answered(chat)
        await chat.pilot.press("ctrl+o")
        await until(lambda: isinstance(chat.app.screen, ConversationsScreen))
        await chat.pilot.press(*"attention")
        await chat.pilot.pause(1.0)
        _keep(chat, "search")


async def _ask_earlier(chat: Chat) -> None:
    """Real answers, put back to the time when they might have been asked."""
    session = chat.app.session
    for hours, question in EARLIER:
        at = time.time() - 3600 * hours
        await chat.ask(question)
        await _answered(chat)
        said = [replace(message, created_at=at) for message in session.messages]
        assert session.conversation_id is not None
        await session.history.delete(session.conversation_id)
        await session.add_conversation(session.title, said, at)
        await chat.pilot.press("ctrl+n")


async def _answered(chat: Chat) -> None:
    await until(lambda: chat.app.session.messages and chat.screen.answering is None, 60)
    await chat.pilot.pause(0.5)


def _keep(chat: Chat, name: str) -> None:
    """Without the fonts from elsewhere: the reader's own monospace stands in."""
    svg = chat.app.export_screenshot(title="mm35 chat")
    (DOCS / f"{name}.svg").write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))


if __name__ == "__main__":
    main()

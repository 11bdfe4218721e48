"""One chat without a screen: the conversation, what is sent of it, and every word of the answers kept as it comes.

Invariant: whatever ends an answer (its end, an error, a stop, the program's end), what had come of it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from mm35local.errors import HistoryError, Mm35Error
from mm35local.tui.client import ChatMessage, ChatRequest, ServerClient
from mm35local.tui.history import History
from mm35local.tui.options import ChatOptions
from mm35local.tui.plain_text import encodable
from mm35local.tui.records import Conversation, Message, MessageState, Outcome, Role
from mm35local.tui.reply import Reply

_SAVE_SECONDS = 0.5
_TITLE_CHARS = 60


class ChatSession:
    """Owns the history; `open` before use, `close` after."""

    def __init__(self, client: ServerClient, options: ChatOptions) -> None:
        self.messages: list[Message] = []
        self.title = ""
        """Of the conversation; empty before the first question."""
        self._history_error: HistoryError | None = None
        self._client = client
        self._options = options
        self._history = History(options.history_path)
        self._conversation_id: int | None = None
        self._reply: Reply | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Where the history cannot be used, the chat goes on in memory and `take_history_error` says why."""
        try:
            await self._history.open()
        except HistoryError as error:
            await self._forget_on_disk(error)
        if self._options.continue_last and (latest := await self._history.conversations(limit=1)):
            await self.resume(latest[0].id)

    def take_history_error(self) -> HistoryError | None:
        """Why the conversation is not kept, if that is so; told once."""
        error, self._history_error = self._history_error, None
        return error

    async def close(self) -> None:
        """An answer that still comes counts as stopped here; safe to call twice."""
        if self._reply is not None:
            self._reply.end(MessageState.STOPPED)
            await self._keep(self._reply)
        self._is_closed = True
        await self._history.close()

    async def _forget_on_disk(self, error: HistoryError) -> None:
        await self._history.close()
        self._history_error = error
        self._history = History(None)
        await self._history.open()

    # --- the conversation ---

    async def conversations(self) -> list[Conversation]:
        return await self._history.conversations()

    async def questions(self) -> list[str]:
        return await self._history.questions()

    async def resume(self, conversation_id: int) -> None:
        self.messages = await self._history.messages(conversation_id)
        self._conversation_id = conversation_id
        self.title = _title(self.messages[0].content) if self.messages else ""

    def start_over(self) -> None:
        """The next question begins a new conversation."""
        self.messages = []
        self._conversation_id = None
        self.title = ""

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the conversation takes up, as far as the server has said."""
        for message in reversed(self.messages):
            if usage := message.outcome.usage:
                return usage.num_prompt_tokens + usage.num_completion_tokens
        return 0

    @property
    def last_answer(self) -> str:
        answers = (m.content for m in reversed(self.messages) if m.role is Role.ASSISTANT and m.content)
        return next(answers, "")

    # --- one turn ---

    async def ask(self, question: str, model: str) -> Reply:
        """Store the question and an empty answer to it; `answer` fills that."""
        asked = Message(Role.USER, encodable(question))
        try:
            self._reply = await self._store(asked, model)
        except HistoryError as error:
            await self._forget_on_disk(error)
            self._conversation_id = None
            self._reply = await self._store(asked, model)
        self.messages.append(asked)
        return self._reply

    async def _store(self, asked: Message, model: str) -> Reply:
        if self._conversation_id is None:
            self.title = _title(asked.content)
            self._conversation_id = await self._history.start_conversation(self.title, model)
        await self._history.add(self._conversation_id, asked)
        empty = Message(Role.ASSISTANT, "", model=model, outcome=Outcome(MessageState.STREAMING))
        return Reply(await self._history.add(self._conversation_id, empty), model)

    async def answer(self, reply: Reply, ready: asyncio.Event) -> None:
        """Once the server is `ready`, stream its answer into `reply`.

        Errors end up in `reply.error`; cancelling stops the answer and keeps what came.
        """
        request = self._request()
        saver = asyncio.create_task(self._keep_on_saving(reply))
        try:
            await ready.wait()
            async with contextlib.aclosing(self._client.chat(request)) as events:
                async for event in events:
                    reply.feed(event)
            reply.end(MessageState.COMPLETE)
        except Mm35Error as error:
            reply.end(MessageState.FAILED, error)
        except asyncio.CancelledError:
            reply.end(MessageState.STOPPED)
            raise
        finally:
            saver.cancel()
            await self._finish(reply)

    async def _finish(self, reply: Reply) -> None:
        content, reasoning = reply.content.text, reply.reasoning.text
        answer = Message(Role.ASSISTANT, content, reasoning, reply.model, reply.outcome(), reply.message_id)
        self.messages.append(answer)
        self._reply = None
        await self._keep(reply)

    async def _keep_on_saving(self, reply: Reply) -> None:
        num_kept = 0
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            num_parts = len(reply.content.parts) + len(reply.reasoning.parts)
            if num_parts > num_kept:
                num_kept = num_parts
                await self._keep(reply)

    async def _keep(self, reply: Reply) -> None:
        if self._is_closed:
            return
        try:
            await self._history.save(reply.message_id, reply.content.text, reply.reasoning.text, reply.outcome())
        except HistoryError as error:
            self._history_error = error

    def _request(self) -> ChatRequest:
        options = self._options
        system = [ChatMessage("system", encodable(options.system))] if options.system else []
        return ChatRequest(
            messages=(*system, *_alternating(self.messages)),
            effort=options.effort,
            temperature=options.temperature,
            max_tokens=options.max_tokens,
        )


def _alternating(messages: Iterable[Message]) -> list[ChatMessage]:
    """Chat templates want roles in turns: questions that got no answer are joined with the next one."""
    turns: list[ChatMessage] = []
    for message in messages:
        if not message.content:
            continue
        if turns and turns[-1].role == message.role:
            turns[-1] = ChatMessage(message.role, f"{turns[-1].content}\n\n{message.content}")
        else:
            turns.append(ChatMessage(message.role, message.content))
    return turns


def _title(question: str) -> str:
    line = next((line.strip() for line in question.splitlines() if line.strip()), "(empty)")
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1] + "…"

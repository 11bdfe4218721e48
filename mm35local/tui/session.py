"""One chat without a screen: the conversation, what is sent of it, and every word of the answers kept as it comes.

Invariant: whatever ends an answer (its end, an error, a stop, the program's end), what had come of it is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from mm35local.errors import HistoryError, Mm35Error
from mm35local.tui.attachments import as_sent
from mm35local.tui.branches import Branches
from mm35local.tui.client import ServerClient
from mm35local.tui.events import ChatEvent
from mm35local.tui.history import History
from mm35local.tui.options import ChatOptions
from mm35local.tui.plain_text import encodable
from mm35local.tui.records import Attachment, Conversation, Message, MessageState, Outcome, Role
from mm35local.tui.reply import Phase, Reply
from mm35local.tui.request import ChatMessage, ChatRequest

_SAVE_SECONDS = 0.4
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
        self._branches = Branches()
        self._reply: Reply | None = None
        self._is_closed = False

    async def open(self) -> None:
        """Where the history cannot be used, the chat goes on in memory and `take_history_error` says why."""
        try:
            await self._history.open()
        except HistoryError as error:
            await self._forget_on_disk(error)
        if self._options.continue_last and (latest := await self._history.latest()):
            await self.resume(latest)

    def take_history_error(self) -> HistoryError | None:
        """Why the conversation is not kept, if that is so; told once."""
        error, self._history_error = self._history_error, None
        return error

    async def close(self) -> None:
        """An answer that still comes counts as stopped here; safe to call twice."""
        if self._reply is not None:
            if self._reply.phase is not Phase.DONE:
                self._reply.end(MessageState.STOPPED)
            await self._keep(self._reply)
        self._is_closed = True
        await self._history.close()

    async def _forget_on_disk(self, error: HistoryError) -> None:
        await self._history.close()
        self._history_error = error
        self._history = History(None)
        await self._history.open()

    # --- how it is answered ---

    @property
    def options(self) -> ChatOptions:
        return self._options

    def change(self, **fields: str | float | Mapping[str, str] | None) -> int:
        """Answer differently from now on; the tokens of the conversation whose prompt must be computed again for it."""
        old, self._options = self._options, replace(self._options, **fields)  # type: ignore[arg-type]
        is_same = (old.system, old.effort) == (self._options.system, self._options.effort)
        return 0 if is_same else self.num_context_tokens

    # --- the conversation ---

    @property
    def history(self) -> History:
        """Where the conversations are; another one once the file on disk failed."""
        return self._history

    @property
    def conversation_id(self) -> int | None:
        """None until the first question is stored."""
        return self._conversation_id

    async def resume(self, conversation: Conversation, message_id: int = 0) -> None:
        """Open it at the branch that was shown last, or at the newest one that holds a message."""
        self._branches = Branches(await self._history.messages(conversation.id))
        self.messages = self._branches.path(conversation.leaf_id)
        if message_id and message_id not in (message.id for message in self.messages):
            self.messages = self._branches.path(self._branches.newest_leaf(message_id))
        self._conversation_id = conversation.id
        self.title = conversation.title

    def start_over(self) -> None:
        """The next question begins a new conversation."""
        self.messages = []
        self._branches = Branches()
        self._conversation_id = None
        self.title = ""

    # --- branches ---

    def place(self, message_id: int) -> tuple[int, int]:
        """Which of how many versions a message is, counted from 1."""
        siblings = self._branches.siblings(message_id)
        return (siblings.index(message_id) + 1, len(siblings)) if message_id in siblings else (1, 1)

    async def walk(self, message_id: int, step: int) -> bool:
        """Show the version beside a message, and the newest branch below it; False where there is none."""
        beside = self._branches.beside(message_id, step)
        if beside is None or self._conversation_id is None:
            return False
        leaf_id = self._branches.newest_leaf(beside)
        self.messages = self._branches.path(leaf_id)
        await self._history.show_branch(self._conversation_id, leaf_id)
        return True

    def rewind(self, message_id: int) -> Message | None:
        """Go back to before a message, so that what is asked next is a branch beside it; answers the message."""
        ids = [message.id for message in self.messages]
        if message_id not in ids:
            return None
        place = ids.index(message_id)
        rewound = self.messages[place]
        del self.messages[place:]
        return rewound

    async def fork(self, message_id: int) -> None:
        """Go on in a new conversation that holds this one up to and with a message."""
        ids = [message.id for message in self.messages]
        kept = self.messages[: ids.index(message_id) + 1]
        title = shortened(f"{self.title} (fork)")
        await self.resume(await self.add_conversation(title, kept))

    async def add_conversation(
        self, title: str, messages: Sequence[Message], at: float = 0.0, shown_id: int = 0
    ) -> Conversation:
        """Store a conversation whose messages have each other as parents; nothing on the screen changes.

        `at` is seconds since 1970, 0 is now; `shown_id` is the end of the branch to show, 0 the last message.
        """
        model = next((message.model for message in messages if message.model), "")
        number = await self._history.start_conversation(title, model, at)
        ids = await self._history.add_tree(number, messages)
        leaf_id = next((new for new, old in zip(ids, messages, strict=True) if old.id == shown_id), max(ids, default=0))
        if shown_id:
            await self._history.show_branch(number, leaf_id)
        return Conversation(number, title, model, len(ids), at, leaf_id=leaf_id)

    @property
    def all_messages(self) -> list[Message]:
        """Of every branch, each after its parent."""
        return self._branches.messages

    @property
    def num_context_tokens(self) -> int:
        """Tokens that the conversation takes up, as far as the server has said."""
        for message in reversed(self.messages):
            if usage := message.outcome.usage:
                return usage.num_prompt_tokens + usage.num_completion_tokens
        return 0

    @property
    def last_answer(self) -> str:
        """The text of the answer that comes, as far as it is there, or of the last one that has any."""
        if self._reply is not None and self._reply.content.parts:
            return self._reply.content.text
        answers = (m.content for m in reversed(self.messages) if m.role is Role.ASSISTANT and m.content)
        return next(answers, "")

    # --- one turn ---

    async def ask(self, question: str, model: str, attachments: tuple[Attachment, ...] = ()) -> Reply:
        """Store the question after the last message, and an empty answer to it; `answer` fills that."""
        asked = Message(Role.USER, encodable(question), attachments=attachments)
        try:
            self._reply = await self._store(asked, model)
        except HistoryError as error:
            await self._forget_on_disk(error)
            await self._store_path_again(model)
            self._reply = await self._store(asked, model)
        return self._reply

    async def ask_again(self, model: str) -> Reply | None:
        """Another answer to the last question, beside the one that is there; None where nothing was asked."""
        asked = next((message for message in reversed(self.messages) if message.role is Role.USER), None)
        if asked is None or self._conversation_id is None:
            return None
        while self.messages[-1] is not asked:
            self.messages.pop()
        self._reply = await self._begin(self._conversation_id, model)
        return self._reply

    async def _store(self, asked: Message, model: str) -> Reply:
        if self._conversation_id is None:
            self.title = _title(asked.content)
            self._conversation_id = await self._history.start_conversation(self.title, model)
        asked = replace(asked, parent_id=self._last_id, created_at=time.time())
        asked = replace(asked, id=await self._history.add(self._conversation_id, asked))
        self._append(asked)
        return await self._begin(self._conversation_id, model)

    async def _begin(self, conversation_id: int, model: str) -> Reply:
        outcome = Outcome(MessageState.STREAMING)
        empty = Message(Role.ASSISTANT, "", model=model, outcome=outcome, parent_id=self._last_id)
        return Reply(await self._history.add(conversation_id, empty), model)

    async def _store_path_again(self, model: str) -> None:
        """The history is another file now: give it the branch that is shown."""
        path = self.messages
        self._branches, self.messages = Branches(), []
        self._conversation_id = await self._history.start_conversation(self.title, model)
        for message, number in zip(path, await self._history.add_tree(self._conversation_id, path), strict=True):
            self._append(replace(message, id=number, parent_id=self._last_id))

    @property
    def _last_id(self) -> int:
        return self.messages[-1].id if self.messages else 0

    def _append(self, message: Message) -> None:
        self._branches.add(message)
        self.messages.append(message)

    async def answer(
        self, reply: Reply, ready: asyncio.Event, on_event: Callable[[ChatEvent], None] = lambda _event: None
    ) -> None:
        """Once the server is `ready`, stream its answer into `reply`; `on_event` sees every event after it.

        Errors end up in `reply.error`; cancelling stops the answer and keeps what came.
        """
        request = self._request()
        saver = asyncio.create_task(self._keep_on_saving(reply))
        try:
            await ready.wait()
            async with contextlib.aclosing(self._client.chat(request)) as events:
                async for event in events:
                    reply.feed(event)
                    on_event(event)
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
        answer = Message(
            Role.ASSISTANT,
            reply.content.text,
            reply.reasoning.text,
            reply.model,
            reply.outcome(),
            reply.message_id,
            self._last_id,
            tool_calls=reply.tool_calls,
            created_at=time.time(),
        )
        self._append(answer)
        await self._keep(reply)  # cancelled here, as when the chat ends, it is `close` that keeps it
        if self._reply is reply:
            self._reply = None

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
            said = (reply.content.text, reply.reasoning.text, reply.outcome(), reply.tool_calls)
            await self._history.save(reply.message_id, *said)
        except HistoryError as error:
            self._history_error = error

    def _request(self) -> ChatRequest:
        options = self._options
        system = [ChatMessage("system", encodable(options.system))] if options.system else []
        return ChatRequest(
            messages=(*system, *_alternating(self.messages)),
            effort=options.effort,
            temperature=options.temperature,
            top_p=options.top_p,
            max_tokens=options.max_tokens,
        )


def _alternating(messages: Iterable[Message]) -> list[ChatMessage]:
    """Chat templates want roles in turns: questions that got no answer are joined with the next one."""
    turns: list[ChatMessage] = []
    for message in messages:
        if not message.content and not message.attachments:
            continue
        turn = as_sent(message)
        if turns and turns[-1].role == turn.role:
            turn = ChatMessage(turn.role, f"{turns[-1].content}\n\n{turn.content}", turns[-1].images + turn.images)
            turns.pop()
        turns.append(turn)
    return turns


def _title(question: str) -> str:
    return shortened(next((line.strip() for line in question.splitlines() if line.strip()), "(empty)"))


def shortened(title: str) -> str:
    return title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…"

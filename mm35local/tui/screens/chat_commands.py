"""The `/` commands, completion, and what is attached: everything that the prompt starts besides a question."""

from __future__ import annotations

import asyncio
from pathlib import Path

from textual import on

from mm35local.errors import Mm35Error, UsageError
from mm35local.tui.attachments import read_attachment
from mm35local.tui.commands import COMMANDS, find, starting_with
from mm35local.tui.export import as_json, as_markdown, is_json, tree_as_json, write_new
from mm35local.tui.files import best_matches, list_files
from mm35local.tui.records import Attachment, Finding
from mm35local.tui.screens.chat_turns import ChatTurns
from mm35local.tui.screens.conversations import ConversationsScreen
from mm35local.tui.screens.help import HelpScreen
from mm35local.tui.session import shortened
from mm35local.tui.ui_events import Completed, Completing, Detached, Pasted
from mm35local.tui.widgets.completions import Word
from mm35local.tui.widgets.prompt import Prompt
from mm35local.tui.widgets.turn import Turn

_MOST_REVEALED = 400
"""Messages below one that was searched for; more are not built at once."""


class ChatCommands(ChatTurns):
    _files: list[str] | None = None
    """Listed when the first `@` is written, and again in a new conversation."""
    _num_pastes = 0

    async def run_command(self, name: str, argument: str) -> None:
        """Each command is a method `command_NAME(argument)`; one that fails says why."""
        command = find(name)
        if command is None:
            self.notify("/help lists the commands; a space before the / sends it as text.", title=f"no command /{name}")
            return
        if not argument and command.argument and not command.argument.startswith("["):
            self.notify(f"/{name} {command.argument}", title=command.help, markup=False)
            return
        try:
            done = getattr(self, f"command_{name}")(argument)
            if asyncio.iscoroutine(done):
                await done
        except Mm35Error as error:
            self.tell_error(error)

    # --- conversations ---

    async def command_new(self, _argument: str) -> None:
        if self.is_free():
            self.session.start_over()
            self._files = None
            await self.show_conversation()

    def command_past(self, line: str) -> None:
        if self.is_free():
            self.run_worker(self._choose_conversation(line), group="resume", exclusive=True)

    async def _choose_conversation(self, line: str) -> None:
        chosen = await self.app.push_screen_wait(ConversationsScreen(self.session.history, line))
        if chosen is not None:
            await self._open(chosen)

    async def _open(self, finding: Finding) -> None:
        try:
            await self.session.resume(finding.conversation, finding.message_id)
            await self.show_conversation()
            if finding.message_id:
                await self._reveal(finding.message_id)
        except Mm35Error as error:
            self.tell_error(error)

    async def _reveal(self, message_id: int) -> None:
        """Put the keyboard on a message, however far up, unless that would take long to build."""
        ids = [message.id for message in self.session.messages]
        num_after = len(ids) - ids.index(message_id) - 1
        if num_after > _MOST_REVEALED:
            self.notify("Ctrl+Up shows earlier ones.", title=f"It was said {num_after:,} messages before the end")
            return
        while self.transcript.turn(message_id) is None:
            await self.transcript.show_earlier()
        self.transcript.select(message_id)

    async def command_rename(self, title: str) -> None:
        number = self.session.conversation_id
        if number is not None:
            self.session.title = shortened(" ".join(title.split()))
            await self.session.history.rename(number, self.session.title)
            self.title_bar.tell_title(self.session.title)

    async def command_again(self, _argument: str) -> None:
        if self.session.messages:
            await self.ask_again(self.session.messages[-1])

    def command_edit(self, _argument: str) -> None:
        if self.session.messages:
            self.edit(self.session.messages[-1])

    async def command_fork(self, _argument: str) -> None:
        if self.session.messages:
            await self.fork(self.session.messages[-1])

    async def command_export(self, argument: str) -> None:
        if not self.session.messages:
            raise UsageError("there is nothing to export yet", "ask something first")
        option, _, rest = argument.partition(" ")
        is_whole = option == "--all"
        path = _new_file(rest if is_whole else argument)
        title, shown = self.session.title, list(self.session.messages)
        if is_whole:
            if not is_json(path):
                raise UsageError(f"{path}: Markdown holds one branch", "/export --all NAME.json")
            text = tree_as_json(title, self.session.all_messages, shown[-1].id)
        else:
            text = (as_json if is_json(path) else as_markdown)(title, shown)
        await asyncio.to_thread(write_new, path, text)
        self.notify(str(path), title="Exported to", markup=False)

    async def command_import(self, argument: str) -> None:
        from mm35local.tui.imports import read_export

        found = await asyncio.to_thread(read_export, Path(argument))
        for one in found:
            await self.session.add_conversation(shortened(one.title), one.messages, one.at, one.shown_id)
        num_found = f"{len(found)} conversation{'' if len(found) == 1 else 's'}"
        self.notify("Ctrl+O lists them.", title=f"{num_found} taken over")

    # --- how it is answered ---

    def command_effort(self, argument: str) -> None:
        if argument not in ("none", "high"):
            raise UsageError(f"/effort {argument}: the model knows none and high", "high thinks before it answers")
        self._changed(self.session.change(effort=argument), f"effort is {argument}")

    def command_system(self, argument: str) -> None:
        what = "the system prompt is changed" if argument else "there is no system prompt"
        self._changed(self.session.change(system=argument or None), what)

    def _changed(self, num_tokens: int, what: str) -> None:
        again = f"{num_tokens:,} tokens of this conversation will be read again." if num_tokens else ""
        self.notify(
            again or "It holds from the next question on.", title=what, severity="warning" if again else "information"
        )

    def command_settings(self, _argument: str) -> None:
        self.run_worker(self._settings(), group="settings", exclusive=True)

    async def _settings(self) -> None:
        from mm35local.tui.screens.settings import SettingsScreen

        options = await self.app.push_screen_wait(SettingsScreen(self.session.options))
        if options is None:
            return
        self.app.theme = options.theme
        fields = ("system", "effort", "temperature", "top_p", "max_tokens")
        num_tokens = self.session.change(**{name: getattr(options, name) for name in fields})
        self.session.change(theme=options.theme, presets=options.presets)
        self.status.tell_limit(options.max_tokens)
        self._changed(num_tokens, "settings are kept")

    # --- the rest ---

    def command_copy(self, _argument: str) -> None:
        if text := self.session.last_answer:
            self.copy(text, "The last answer")
        else:
            self.notify("No answer to copy yet.", timeout=2)

    def command_theme(self, _argument: str) -> None:
        self.run_worker(self.app.run_action("light"), group="theme")

    def command_quit(self, _argument: str) -> None:
        self.run_worker(self.app.run_action("quit"), group="quit")

    def command_help(self, _argument: str) -> None:
        groups = [
            ("Chat", self.BINDINGS),
            ("Prompt", Prompt.BINDINGS),
            ("On a message", Turn.BINDINGS),
            ("Past conversations", ConversationsScreen.BINDINGS),
            ("Program", self.app.BINDINGS),
        ]
        self.app.push_screen(HelpScreen(groups, COMMANDS))

    # --- attachments and completion ---

    async def command_attach(self, argument: str) -> None:
        attachment = await asyncio.to_thread(read_attachment, Path(argument).expanduser())
        model = self.connection.link.model
        if attachment.is_image and model is not None and model.sees_images is False:
            raise UsageError(f"{model.id} sees no images", "serve the model with its vision part: --mmproj FILE")
        self.pending.attach(attachment)

    @on(Pasted)
    def _pasted(self, event: Pasted) -> None:
        self._num_pastes += 1
        self.pending.attach(Attachment(f"pasted-{self._num_pastes}.txt", "text/plain", event.text))

    @on(Detached)
    def _detached(self) -> None:
        self.pending.tell_attachments(self.pending.attachments[:-1])

    @on(Completing)
    async def _completing(self, event: Completing) -> None:
        self.run_worker(self._offer(event.word), group="complete", exclusive=True)

    async def _offer(self, word: Word | None) -> None:
        choices: list[tuple[str, str]] = []
        if word is not None and word.kind == "command":
            choices = [(c.name, f"{c.argument}  {c.help}".strip()) for c in starting_with(word.text)]
        elif word is not None:
            if self._files is None:
                self._files = await asyncio.to_thread(list_files, Path.cwd())
            choices = [(path, "") for path in await asyncio.to_thread(best_matches, word.text, self._files)]
        self.prompt.completions.offer(word, choices)

    @on(Completed)
    async def _completed(self, event: Completed) -> None:
        if event.word.kind == "file":
            await self.run_command("attach", event.choice)


def _new_file(name: str) -> Path:
    """In full, so that whoever reads it knows where the file is."""
    if not name.strip():
        raise UsageError("a file needs a name", "/export --all NAME.json")
    return Path(name.strip()).expanduser().absolute()

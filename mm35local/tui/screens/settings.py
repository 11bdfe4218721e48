"""How the model answers and how the chat looks: chosen here, kept in the settings file, in force at once."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from pydantic import ValidationError
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Input, Label, Select, Static, TextArea

from mm35local.errors import UsageError
from mm35local.settings import ChatSettings
from mm35local.tui.options import ChatOptions
from mm35local.tui.plain_text import visible

_NUMBERS = (("temperature", "the model's own"), ("top_p", "the model's own"), ("max_tokens", "until it ends by itself"))


class SettingsScreen(ModalScreen[ChatOptions | None]):
    """Dismissed with the new options, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Back", tooltip="Leave everything as it was", priority=True),
        Binding("ctrl+s", "keep", "Keep", tooltip="Keep the settings", priority=True),
    ]

    def __init__(self, options: ChatOptions) -> None:
        super().__init__()
        self._options = options
        self._presets = dict(options.presets)
        efforts = [("thinks first (high)", "high"), ("answers at once (none)", "none")]
        self._effort = Select(
            efforts, prompt="the server's choice", value=options.effort or Select.NULL, id="effort", compact=True
        )
        self._numbers = {
            name: Input(_shown(getattr(options, name)), placeholder=hint, compact=True, id=name)
            for name, hint in _NUMBERS
        }
        self._system = TextArea(options.system or "", compact=True, id="system")
        self._preset = Select(self._names(), prompt="take a preset", id="preset", compact=True)
        self._preset_name = Input(placeholder="a name keeps this prompt as a preset", compact=True, id="preset-name")
        self._problem = Static(markup=False, classes="problem")

    def compose(self) -> ComposeResult:
        themes = [(name, name) for name in sorted(self.app.available_themes)]
        self._theme = Select(themes, value=self.app.theme, allow_blank=False, id="theme", compact=True)
        with VerticalScroll(classes="window") as window:
            window.border_title = "Settings"
            window.border_subtitle = "Ctrl+S keeps them · Esc goes back"
            yield _row("effort", self._effort)
            for name, field in self._numbers.items():
                yield _row(name.replace("_", " "), field)
            yield _row("system prompt", self._system)
            yield _row("presets", self._preset)
            yield _row("keep as", self._preset_name)
            yield _row("colours", self._theme)
            yield self._problem

    def _names(self) -> list[tuple[Content, str]]:
        return [(Content(visible(name)), name) for name in self._presets]

    @on(Select.Changed, "#preset")
    def _take_preset(self, event: Select.Changed) -> None:
        if isinstance(event.value, str):
            self._system.text = self._presets[event.value]
            self._preset_name.value = event.value

    def action_keep(self) -> None:
        name = self._preset_name.value.strip()
        if name:
            self._presets[name] = self._system.text
        given = {number: field.value.strip() or None for number, field in self._numbers.items()}
        effort = self._effort.value if isinstance(self._effort.value, str) else None
        try:
            chosen = ChatSettings.model_validate(
                {
                    **given,
                    "effort": effort,
                    "system": self._system.text.strip(),
                    "theme": self._theme.value,
                    "presets": self._presets,
                }
            )
            self._store(chosen)
        except ValidationError as problem:
            first = problem.errors()[0]
            self._problem.update(Content(f"{first['loc'][0]}: {first['msg']}"))
            return
        except UsageError as problem:
            self.notify(problem.hint, title=problem.message, severity="error", markup=False)
        self.dismiss(_with(self._options, chosen))

    def _store(self, chosen: ChatSettings) -> None:
        if self._options.settings_path is not None:
            from mm35local.tui.preferences import keep

            keep(self._options.settings_path, chosen)


def _row(label: str, field: Widget) -> Horizontal:
    return Horizontal(Label(label, classes="label"), field, classes="row")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _with(options: ChatOptions, chosen: ChatSettings) -> ChatOptions:
    return replace(
        options,
        effort=chosen.effort,
        temperature=chosen.temperature,
        top_p=chosen.top_p,
        max_tokens=chosen.max_tokens,
        system=chosen.system or None,
        theme=chosen.theme,
        presets=chosen.presets,
    )

"""The `mm35` command: its sub-commands, and the one place where an error becomes two lines and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from mm35local import __version__
from mm35local.errors import Mm35Error, UsageError

_HELP = "Mistral Medium 3.5 (128B) on your own GPUs: chat in the terminal, serve your editor, convert the weights."
# \b keeps the line breaks as they stand
_EPILOG = """\b
[bold]Examples[/]
  mm35 chat                             [dim]talk in the terminal[/]
  mm35 chat -p "Name three colours."    [dim]one answer on stdout[/]
  git diff | mm35 chat -p -             [dim]the question from a pipe[/]
  mm35 serve                            [dim]for editors: http://127.0.0.1:8080/v1[/]
  mm35 quantize FOLDER --to Q4_K_M      [dim]FP8 weights to GGUF[/]
"""

# click's classes, wherever this version of typer keeps them: BadParameter < UsageError < ClickException
_USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]

_FILES = {
    "chat": "chat",
    "serve": "serve",
    "quantize": "quantize",
    "models": "models",
    "pull": "models",
    "plan": "plan",
    "inspect": "inspect",
    "repair": "inspect",
    "connect": "connect",
    "doctor": "doctor",
    "rpc-worker": "rpc_worker",
    "bench": "bench",
}
"""Each command's file in this folder."""


def application(arguments: list[str]) -> typer.Typer:
    """All commands, in the order of the help page, or the one that `arguments` begins with: the other files take longer
    to load than most commands wait for."""
    app = typer.Typer(
        name="mm35",
        help=_HELP,
        epilog=_EPILOG,
        add_completion=False,
        rich_markup_mode="rich",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    asked = [_FILES[word] for word in arguments[:1] if word in _FILES]
    for file in asked or dict.fromkeys(_FILES.values()):
        import_module(f"mm35local.cli.{file}").register(app)
    return app


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"mm35local {__version__}")
        raise typer.Exit


def _root(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    context.obj = debug
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """Run the command line; never returns. Exit codes: 0, 1 (an error), 2 (usage), 130 (Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of `mm35 ARGUMENTS`; errors are printed to stderr as two lines, not raised."""
    if "--debug" in arguments[:1]:
        return _invoke(arguments)
    try:
        return _invoke(arguments)
    except Mm35Error as error:
        return _report(str(error), error.hint, 2 if isinstance(error, UsageError) else 1)
    except BrokenPipeError:
        # The reader of our stdout is gone; keep Python from failing again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return 130


def _invoke(arguments: list[str]) -> int:
    try:
        code = application(arguments)(args=arguments, prog_name="mm35", standalone_mode=False)
    except _USAGE_ERROR as error:
        message = getattr(error, "format_message", error.__str__)()
        return _report(message.rstrip("."), f"{_usage_command(arguments)} --help shows the usage", 2)
    return code if isinstance(code, int) else 0


def _usage_command(arguments: list[str]) -> str:
    return " ".join(["mm35", *[word for word in arguments if word in _FILES][:1]])


def _report(message: str, hint: str, exit_code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    if hint:
        print(f"hint: {' '.join(hint.split())}", file=sys.stderr)
    return exit_code

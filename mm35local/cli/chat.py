"""`mm35 chat`: the terminal chat, or one answer on stdout with -p."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.cli.keys import first_key
from mm35local.cli.options import ApiKey, Ctx, Json, Model, ModelArgument, Threads, UseGpu, one_model, settings_of
from mm35local.errors import ServerError, UsageError

if TYPE_CHECKING:
    from mm35local.settings import ChatSettings, Settings
    from mm35local.tui.attach import Launch
    from mm35local.tui.options import ChatOptions

_ANSWER = "Answer"


def register(app: typer.Typer) -> None:
    app.command("chat")(chat)


def chat(
    context: typer.Context,
    named: ModelArgument = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", metavar="QUESTION", help="Answer on stdout and exit; - reads stdin.")
    ] = None,
    model: Model = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="A server elsewhere; none is started.")] = None,
    api_key: ApiKey = None,
    continue_last: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last conversation.")] = False,
    image: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Send an image along with -p, repeatable.")
    ] = None,
    web: Annotated[bool, typer.Option("--web", help="The chat in a browser, on this machine only.")] = False,
    is_tab: Annotated[bool, typer.Option("--web-tab", hidden=True)] = False,
    as_json: Json = False,
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The system prompt.", rich_help_panel=_ANSWER)
    ] = None,
    effort: Annotated[
        str | None, typer.Option(metavar="none|high", help="Whether the model thinks first.", rich_help_panel=_ANSWER)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, metavar="T", help="0 is greedy.", rich_help_panel=_ANSWER)
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Longest answer.", rich_help_panel=_ANSWER)
    ] = None,
    ctx: Ctx = None,
    threads: Threads = None,
    gpu: UseGpu = None,
) -> int:
    """Chat in the terminal. Uses the server that runs, or starts one.

    With -p: exit code 0 once the answer is there, 1 for an error, 2 for wrong usage, 130 if it was interrupted.
    """
    is_piped = prompt is not None or not (web or is_tab or sys.stdin.isatty())
    _check(web, prompt, effort, is_piped, as_json, bool(image))
    from mm35local import paths
    from mm35local.tui.options import ChatOptions

    wish = settings_of(context, model=one_model(named, model))
    question = _question(prompt) if is_piped else None
    launch, reason = (None, None) if url else _launch(wish)
    options = ChatOptions(
        url=url or f"http://{wish.host}:{wish.port}",
        api_key=first_key(wish),
        launch=launch,
        history_path=paths.history_file(),
        settings_path=paths.settings_file(),
        continue_last=continue_last,
        reason=reason,
    )
    given = {"system": system, "effort": effort, "temperature": temperature, "max_tokens": max_tokens}
    options = preferred(options, wish.chat, given)
    if web:
        return _web(options)
    return _run(question, options, as_json, image or [], is_tab)


def _check(web: bool, prompt: str | None, effort: str | None, is_piped: bool, as_json: bool, has_images: bool) -> None:
    """Raises UsageError for options that do not go together."""
    if effort not in (None, "none", "high"):
        raise UsageError(f"--effort {effort}: the model knows none and high", "leave it out for none")
    if web and prompt is not None:
        raise UsageError("--web and -p exclude each other", "-p answers on stdout")
    if as_json and not is_piped:
        raise UsageError("--json prints one answer's events", 'add the question: mm35 chat --json -p "..."')
    if has_images and not is_piped:
        raise UsageError("--image goes with -p", "in the terminal chat, @ and /attach send images")


def preferred(options: ChatOptions, kept: ChatSettings, given: Mapping[str, Any]) -> ChatOptions:
    """What was given on the command line, else what the settings file keeps."""
    names = ("system", "effort", "temperature", "top_p", "max_tokens")
    chosen = {name: getattr(kept, name) if given.get(name) is None else given[name] for name in names}
    chosen["system"] = chosen["system"] or None
    return replace(options, **chosen, theme=kept.theme, presets=kept.presets)


def _web(options: ChatOptions) -> int:
    """The same command line without --web, once for each browser tab, with the server that this process minds."""
    from mm35local.tui.web import serve_web

    arguments = [argument for argument in sys.argv[1:] if argument != "--web"]
    command = [sys.executable, "-m", "mm35local", *arguments, "--web-tab", "--url", options.address]
    return serve_web(command, options)


def _run(question: str | None, options: ChatOptions, as_json: bool, images: list[Path], is_tab: bool) -> int:
    if question is None:
        from mm35local.tui.app import run_chat, run_tab

        return run_tab(options) if is_tab else run_chat(options)
    from mm35local.tui.print_mode import run_print

    if options.reason:
        print(options.reason, file=sys.stderr)
    return run_print(question, options, json_events=as_json, images=images)


def _question(prompt: str | None) -> str:
    """What to ask once. A pipe into `mm35 chat` is a question too."""
    question = prompt if prompt is not None and prompt != "-" else sys.stdin.read()
    if not question.strip():
        raise UsageError("the question is empty", 'mm35 chat -p "Name three colours."')
    return question


def _launch(wish: Settings) -> tuple[Launch | None, str | None]:
    """How to start a server where the running one will not do, and why that model. (None, None): use what runs."""
    import asyncio

    from mm35local import paths
    from mm35local.cli.prepare import choose, fetch
    from mm35local.tui.attach import Launch

    running = asyncio.run(_running_model(wish))
    choice = choose(wish.model) if wish.model or running is None else None
    if choice is None or choice.model_id == running:
        return None, None
    port = wish.port if _is_free(wish.host, wish.port) else _any_free_port(wish.host)
    argv = [sys.executable, "-m", "mm35local", "serve", "--exit-with-stdin", "--model", str(fetch(choice))]
    # What this command has flags for; the other settings it reads as we did.
    argv += ["--host", wish.host, "--port", str(port), "--threads", str(wish.threads)]
    argv += ["--ctx", str(wish.ctx)] if wish.ctx else []
    argv += [] if wish.gpu is None else ["--gpu" if wish.gpu else "--cpu"]
    if wish.api_key:
        os.environ["MM35_API_KEY"] = wish.api_key.get_secret_value()  # not in argv, where every user could read it
    return Launch(tuple(argv), f"http://{wish.host}:{port}", paths.log_dir() / "server.log"), choice.reason


async def _running_model(wish: Settings) -> str | None:
    """The id of the model that a server of ours already holds at that address, or None."""
    from mm35local.tui.client import ServerClient

    client = ServerClient(f"http://{wish.host}:{wish.port}", first_key(wish))
    try:
        model = (await client.health()).model
        return model.id if model else None
    except ServerError:
        return None  # nobody there, or another program
    finally:
        await client.aclose()


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _any_free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])

"""Options that several commands share: declared once, so that they read and behave the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.errors import UsageError

if TYPE_CHECKING:
    from mm35local.settings import Settings

_ENGINE = "Engine"

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="NAME", help="A model of `mm35 models`, NAME:QUANT, or a .gguf file."),
]
ModelArgument = Annotated[str | None, typer.Argument(metavar="MODEL", help="The same as --model.", show_default=False)]
Mmproj = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The model's vision part, for images; default: the one beside the model."),
]
AllowPrivateImages = Annotated[
    bool | None,
    typer.Option("--allow-private-images", help="Fetch images from this machine and its network too."),
]
Ctx = Annotated[
    int | None, typer.Option("--ctx", metavar="TOKENS", help="Context; default: what fits.", rich_help_panel=_ENGINE)
]
Parallel = Annotated[
    int | None, typer.Option(metavar="N", help="Requests answered at the same time.", rich_help_panel=_ENGINE)
]
Threads = Annotated[int | None, typer.Option(metavar="N", help="CPU threads.", rich_help_panel=_ENGINE)]
Kv = Annotated[
    str | None,
    typer.Option("--kv", metavar="f16|q8_0|q5_1|q4_0", help="Type of the KV cells.", rich_help_panel=_ENGINE),
]
KvStoreSize = Annotated[
    float | None,
    typer.Option(metavar="GIB", help="Disk for earlier conversations' KV; 0: none.", rich_help_panel=_ENGINE),
]
SplitMode = Annotated[
    str | None,
    typer.Option("--split", metavar="none|layer|row|tensor", help="How GPUs share it.", rich_help_panel=_ENGINE),
]
FlashAttention = Annotated[
    bool | None,
    typer.Option(
        "--flash-attention/--no-flash-attention",
        help="Off: faster for one conversation on a CPU (so with --parallel 1), slower else.",
        rich_help_panel=_ENGINE,
    ),
]
Speculate = Annotated[
    str | None,
    typer.Option(
        "--speculate", metavar="auto|ngram|off", help="Guess tokens ahead where it pays.", rich_help_panel=_ENGINE
    ),
]
Draft = Annotated[
    Path | None,
    typer.Option(
        "--draft",
        exists=True,
        dir_okay=False,
        metavar="FILE",
        help="A small GGUF with the same vocabulary that guesses ahead.",
        show_default=False,
        rich_help_panel=_ENGINE,
    ),
]
Rpc = Annotated[
    list[str] | None,
    typer.Option(
        "--rpc",
        metavar="HOST:PORT",
        help="An `mm35 rpc-worker` that lends its devices, repeatable.",
        show_default=False,
        rich_help_panel=_ENGINE,
    ),
]
UseGpu = Annotated[
    bool | None,
    typer.Option("--gpu/--cpu", help="Where the weights go; default: GPU if they fit.", rich_help_panel=_ENGINE),
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", metavar="KEY", help="The server's key; better: MM35_API_KEY.", show_default=False),
]
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        metavar="KEY",
        help="A key that opens the server, repeatable; better: MM35_API_KEY.",
        show_default=False,
    ),
]


def one_model(argument: str | None, option: str | None) -> str | None:
    """The model meant by an argument, an option or neither. Raises UsageError where they differ."""
    if argument and option and argument != option:
        raise UsageError(f"two models: {argument} and --model {option}", "leave one of them out")
    return option or argument


def settings_of(context: typer.Context, **others: Any) -> Settings:
    """The user's settings with the command's flags on top, those that are named as a setting, and `others` on these.

    Flags that may be repeated are one setting, with commas between. Raises UsageError.
    """
    from mm35local.settings import Settings

    flags = {name: value for name, value in context.params.items() if name in Settings.model_fields}
    joined = {name: ",".join(value) or None for name, value in flags.items() if isinstance(value, list | tuple)}
    return settings(**{**flags, **joined, **others})


def settings(**flags: Any) -> Settings:
    """The user's settings with these flags on top. Raises UsageError."""
    from mm35local import paths
    from mm35local.settings import load_settings

    return load_settings(Path(paths.settings_file()), **flags)

"""`mm35 connect`: what to write into an editor's or agent's settings so that it finds the running server.

The texts are data (clients.toml); the model's name and limits come from the server itself.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import Annotated, Any

import typer

from mm35local.cli.options import ApiKey
from mm35local.errors import ServerError, UsageError

_TIMEOUT_SECONDS = 5.0
_MOST_OUTPUT = 32_768
"""Tokens of one answer that a client is told to plan for, and at most a quarter of the context."""


@dataclass(frozen=True, slots=True)
class Client:
    """`text` has the places of a `string.Template`; `language` is json, toml, yaml or shell."""

    title: str
    where: str
    language: str
    text: str
    note: str = ""


def register(app: typer.Typer) -> None:
    app.command("connect")(connect)


def clients() -> dict[str, Client]:
    from importlib.resources import files

    found = tomllib.loads(files("mm35local.cli").joinpath("clients.toml").read_text("utf-8"))
    return {name: Client(**fields) for name, fields in found.items()}


def connect(
    client: Annotated[str | None, typer.Argument(metavar="CLIENT", help="None lists them.", show_default=False)] = None,
    url: Annotated[str, typer.Option(metavar="URL", help="Where the server is.")] = "http://127.0.0.1:8080",
    api_key: ApiKey = None,
) -> None:
    """Print the settings with which an editor or agent finds the running server."""
    known = clients()
    if client is None:
        for name, each in known.items():
            print(f"{name:12} {each.title}")
        return
    if client not in known:
        raise UsageError(f"no client {client!r} is known", f"one of: {', '.join(known)}")
    url = url.rstrip("/").removesuffix("/v1")
    print(told(known[client], places(url, _model(url, api_key))), end="")


def told(client: Client, values: Mapping[str, str]) -> str:
    """The page for one client; whatever is not a comment can be pasted."""
    note = f"# {client.note}\n" if client.note else ""
    # "$schema" and the like are the client's own and stay
    return f"# {client.title}: {client.where}\n{note}{Template(client.text.lstrip()).safe_substitute(values)}"


def places(url: str, model: Mapping[str, Any]) -> dict[str, str]:
    """What goes into a text; `model` is the server's entry of /v1/models. Raises ServerError while it loads."""
    import httpx

    n_ctx = model.get("context_length")
    if not isinstance(n_ctx, int):
        raise ServerError(f"the server at {url} is still loading its model", "try again in a moment")
    num_output = min(_MOST_OUTPUT, n_ctx // 4)
    capabilities = model.get("capabilities")
    has_vision = isinstance(capabilities, Mapping) and capabilities.get("vision") is True
    return {
        "MODEL": str(model["id"]),
        "URL": url,
        "PORT": str(httpx.URL(url).port or 80),
        "CONTEXT": str(n_ctx),
        "INPUT": str(n_ctx - num_output),
        "OUTPUT": str(num_output),
        "IMAGES": str(has_vision).lower(),
    }


def _model(url: str, api_key: str | None) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        reply = httpx.get(f"{url}/v1/models", headers=headers, timeout=_TIMEOUT_SECONDS).raise_for_status()
        model: dict[str, Any] = reply.json()["data"][0]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no server answers at {url}: {error}", "start one with: mm35 serve") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(f"what answers at {url} does not list models as a server does", "give its --url") from error
    return model

"""`mm35 connect`: what to write into an editor's or agent's settings so that it finds the running server.

The texts are data (clients.toml); the model's name and limits come from the server itself.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mm35local.cli.keys import first_key
from mm35local.cli.options import ApiKey, settings
from mm35local.errors import ServerError, UsageError
from mm35local.loopback import is_loopback

if TYPE_CHECKING:
    from mm35local.settings import Settings

_TIMEOUT_SECONDS = 5.0
_MOST_OUTPUT = 32_768
"""Tokens of one answer that a client is told to plan for, and at most a quarter of the context."""
_NO_KEY, _YOUR_KEY = "none", "YOUR_API_KEY"
"""Keys are never printed: the second stands where the user puts the server's."""
_KEY_VARIABLE = "MM35_API_KEY"
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses to listen on that none can be called by."""


@dataclass(frozen=True, slots=True)
class Client:
    """`text` has the places of a `string.Template`; `language` is json, toml, yaml or shell."""

    title: str
    where: str
    language: str
    text: str
    note: str = ""
    with_key: str = ""
    """Comes behind `text` where the server asks for a key."""


def register(app: typer.Typer) -> None:
    app.command("connect")(connect)


def clients() -> dict[str, Client]:
    from importlib.resources import files

    found = tomllib.loads(files("mm35local.cli").joinpath("clients.toml").read_text("utf-8"))
    return {name: Client(**fields) for name, fields in found.items()}


def connect(
    client: Annotated[str | None, typer.Argument(metavar="CLIENT", help="None lists them.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where the server is; default: where `mm35 serve` listens.")
    ] = None,
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
    wish = settings(api_key=api_key)
    key = first_key(wish)
    url = (url or own_url(wish)).rstrip("/").removesuffix("/v1")
    comments, text = told(known[client], places(url, _model(url, key), has_key=key is not None))
    print(comments, end="", file=sys.stderr)  # so that > writes the client's file
    print(text, end="")


def own_url(wish: Settings) -> str:
    """Where a server with these settings can be reached from this machine."""
    host = _EVERYWHERE.get(wish.host, wish.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{wish.port}"


def told(client: Client, values: Mapping[str, str]) -> tuple[str, str]:
    """For one client: what its user is to know, in lines that begin with #, and what can be pasted."""
    has_key = values["KEY"] != _NO_KEY
    comments = [f"{client.title}: {client.where}", client.note, _key_note(client) if has_key else ""]
    text = client.text.lstrip() + (client.with_key.lstrip() if has_key else "")
    # "$schema" and the like are the client's own and stay
    return "".join(f"# {comment}\n" for comment in comments if comment), Template(text).safe_substitute(values)


def _key_note(client: Client) -> str:
    if "${KEY}" in client.text:
        return f"Put the server's key where {_YOUR_KEY} stands."
    if "${KEY_VARIABLE}" in client.text + client.with_key:
        return f"The server's key is read from {_KEY_VARIABLE}: export it where the client starts."
    return ""


def places(url: str, model: Mapping[str, Any], *, has_key: bool = False) -> dict[str, str]:
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
        "KEY": _YOUR_KEY if has_key else _NO_KEY,
        "KEY_VARIABLE": _KEY_VARIABLE if has_key else "",
    }


def _model(url: str, api_key: str | None) -> dict[str, Any]:
    import httpx

    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # A proxy of the environment must not stand between us and this machine.
        is_near = is_loopback(httpx.URL(url).host)
        reply = httpx.get(f"{url}/v1/models", headers=headers, timeout=_TIMEOUT_SECONDS, trust_env=not is_near)
        if reply.status_code == httpx.codes.UNAUTHORIZED:
            raise _wrong_key(url, api_key)
        model: dict[str, Any] = reply.raise_for_status().json()["data"][0]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServerError(f"no server answers at {url}: {error}", "start one with: mm35 serve") from error
    except (ValueError, LookupError, TypeError) as error:
        raise ServerError(f"what answers at {url} does not list models as a server does", "give its --url") from error
    return model


def _wrong_key(url: str, api_key: str | None) -> ServerError:
    problem = "does not know this API key" if api_key else "asks for its API key"
    return ServerError(f"the server at {url} {problem}", f"give it with --api-key or in {_KEY_VARIABLE}")

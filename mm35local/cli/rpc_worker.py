"""`mm35 rpc-worker`: lend this machine's GPUs (or CPU) to an engine on another machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from mm35local.cli.options import Threads

_DEFAULT_PORT = 50052
"""What llama.cpp's own rpc-server takes."""


def register(app: typer.Typer) -> None:
    app.command("rpc-worker")(rpc_worker)


def rpc_worker(
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="An IPv4 address or a name.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, metavar="PORT")] = _DEFAULT_PORT,
    threads: Threads = None,
) -> None:
    """Lend this machine's devices: mm35 serve --rpc HOST:PORT elsewhere."""
    from mm35local.engine.rpc_worker import lend
    from mm35local.models.remote import parse_endpoint
    from mm35local.server.listen import open_socket

    parse_endpoint(f"{host}:{port}")
    open_socket(host, port).close()  # a taken port is said at once
    if not (host == "localhost" or host.startswith("127.")):
        print(
            f"WARNING: {host} can be reached by others, and this protocol knows NO authentication: whoever reaches "
            f"port {port} can use and crash this process, and read what passes. A trusted network only, or an SSH "
            "tunnel to 127.0.0.1.",
            file=sys.stderr,
        )
    print(f"lending the devices of this machine at {host}:{port}; Ctrl-C ends it", file=sys.stderr)
    lend(host, port, threads or 0)

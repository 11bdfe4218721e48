"""`mm35 doctor`: what could keep mm35 from working here, a line each, with the cure."""

from __future__ import annotations

import json
import resource
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mm35local import paths
from mm35local.cli.options import Json, settings
from mm35local.errors import GIB, Mm35Error, ModelFileError

_GOOD_FREE_BYTES, _LEAST_FREE_BYTES = 150 * 10**9, 10**9
_GOOD_NUM_FILES = 1024
_HUB_SECONDS = 3.0


class Status(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding; `cure` is empty where nothing needs one."""

    name: str
    status: Status
    found: str
    cure: str = ""


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    as_json: Json = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the hub.")] = False,
) -> int:
    """Look for what could keep mm35 from working here. Exit code 1 if something does."""
    checks = list(examine(is_offline=offline))
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        _print(checks)
    return int(any(check.status is Status.FAIL for check in checks))


def examine(*, is_offline: bool) -> Iterator[Check]:
    """Every check in turn."""
    steps: list[Callable[[], Iterator[Check]]] = [_build, _cpu, _rounding, _disk, _model_files, _port, _file_limit]
    for step in steps if is_offline else [*steps, _hub]:
        try:
            yield from step()
        except Mm35Error as error:
            yield Check(step.__name__.strip("_"), Status.FAIL, str(error), error.hint)


def _build() -> Iterator[Check]:
    from importlib.metadata import version

    from mm35local.models.gpus import detect_machine, has_backend_library

    machine = detect_machine()
    llama = f"llama-cpp-python {version('llama-cpp-python')}"
    if machine.num_unusable_gpus:
        cure = _reinstall(with_cuda=True)
        yield Check("build", Status.FAIL, f"{llama} without CUDA, {machine.num_unusable_gpus} GPU unused", cure)
    else:
        yield from _cuda()
        backends = [name for name in ("cuda", "rpc") if has_backend_library(f"ggml-{name}")]
        yield Check("build", Status.OK, f"{llama}, backends: {', '.join(['cpu', *backends])}")
    if machine.driver is not None:
        yield Check("driver", Status.OK, f"NVIDIA {machine.driver.version}, up to CUDA {machine.driver.cuda}")
    for gpu in machine.gpus:
        known = "" if gpu.bandwidth else "; no datasheet here, so no speed estimates"
        yield Check("gpu", Status.OK, f"{gpu.name}: {gpu.free_bytes / GIB:.1f} GiB free{known}")
    if not machine.gpus and not machine.num_unusable_gpus:
        yield Check("gpu", Status.WARN, "no NVIDIA GPU that a driver shows: models run on the CPU")
    yield Check("ram", Status.OK, f"{machine.ram_free_bytes / GIB:.1f} GiB free for models")


def _reinstall(*, with_cuda: bool, flags: str = "") -> str:
    """The line that builds this version of llama-cpp-python again, and nothing else."""
    from importlib.metadata import version

    cmake = "-DGGML_CUDA=ON -DGGML_RPC=ON" if with_cuda else "-DGGML_RPC=ON -DGGML_LLAMAFILE=OFF"
    compiler = f'CXXFLAGS="{flags}" ' if flags else ""
    pip = "pip install --force-reinstall --no-deps --no-cache-dir --no-binary llama-cpp-python"
    return f'{compiler}CMAKE_ARGS="{cmake}" {pip} llama-cpp-python=={version("llama-cpp-python")}'


def _cpu() -> Iterator[Check]:
    from mm35local.engine.cpu_kernels import COMPILER_FLAGS, extra_buffers_work
    from mm35local.models.gpus import has_backend_library

    if extra_buffers_work(paths.cpu_kernels_file()):
        yield Check("cpu", Status.OK, "the kernels for repacked weights compute rightly")
    else:
        cure = _reinstall(with_cuda=has_backend_library("ggml-cuda"), flags=COMPILER_FLAGS)
        found = "the kernels for repacked weights (AMX) fail in this build and stay unused: slower prompts on the CPU"
        yield Check("cpu", Status.WARN, found, cure)


def _rounding() -> Iterator[Check]:
    """Of a CPU's products; kernels of GPUs round by the rows of a step, whatever the build."""
    from mm35local.models.build import has_llamafile
    from mm35local.models.gpus import has_backend_library

    if has_backend_library("ggml-cuda"):
        return
    if has_llamafile():
        found = "built with llamafile's products: with drafts (--speculate) a near tie in a greedy answer may turn"
        yield Check("rounding", Status.WARN, found, _reinstall(with_cuda=False))
    else:
        yield Check("rounding", Status.OK, "by row: drafts change no greedy answer of one conversation on the CPU")


def _cuda() -> Iterator[Check]:
    """What a build with CUDA was made for; nothing where there is none."""
    from mm35local.models.build import cuda_build

    build = cuda_build()
    if build is None:
        return
    nccl = "with NCCL" if build.has_nccl else "without NCCL: tensor split copies between cards by itself"
    if build.architectures:
        yield Check("cuda", Status.OK, f"for compute capability {', '.join(build.architectures)}; {nccl}")
    else:
        yield Check(
            "cuda", Status.FAIL, "libggml-cuda cannot be loaded", "look at ldd of it: a CUDA runtime is missing"
        )


def _disk() -> Iterator[Check]:
    folder = paths.models_dir()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    status = Status.OK if free >= _GOOD_FREE_BYTES else Status.WARN if free >= _LEAST_FREE_BYTES else Status.FAIL
    cure = "" if status is Status.OK else "the 128B takes 68-133 GB, its checkpoint 134 GB: mm35 quantize -o ELSEWHERE"
    yield Check("disk", status, f"{free / 1e9:.0f} GB free for {folder}", cure)


def _model_files() -> Iterator[Check]:
    from mm35local.models.faults import find_faults
    from mm35local.models.geometry import from_header
    from mm35local.models.gguf_header import read_header

    files = sorted(paths.models_dir().glob("*.gguf"))
    if not files:
        yield Check("models", Status.WARN, f"no model in {paths.models_dir()}", "mm35 pull smollm2-135m")
    for path in files:
        try:
            header = read_header(path)
            from_header(header)
        except ModelFileError as error:
            yield Check("model", Status.FAIL, str(error), error.hint)
            continue
        faults = find_faults(header)
        yield Check("model", Status.OK, path.name) if not faults else _faulty(path, [str(fault) for fault in faults])


def _faulty(path: Path, faults: list[str]) -> Check:
    return Check("model", Status.WARN, f"{path.name}: {'; '.join(faults)}", "none needed, or a newer file")


def _port() -> Iterator[Check]:
    wish = settings()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wish.host, wish.port))
        except OSError as error:
            cure = "if that is not a server of yours: mm35 serve --port OTHER"
            yield Check("port", Status.WARN, f"{wish.host}:{wish.port}: {error.strerror}", cure)
        else:
            yield Check("port", Status.OK, f"{wish.host}:{wish.port} is free")


def _file_limit() -> Iterator[Check]:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _GOOD_NUM_FILES:
        yield Check("files", Status.OK, f"{soft} open files allowed")
    else:
        yield Check("files", Status.WARN, f"only {soft} open files allowed", f"ulimit -n {_GOOD_NUM_FILES}")


def _hub() -> Iterator[Check]:
    import httpx
    from huggingface_hub import constants, get_token

    token = "a token is set" if get_token() else "no token: only public models"
    try:
        httpx.head(constants.ENDPOINT, timeout=_HUB_SECONDS, follow_redirects=True)
    except httpx.HTTPError as error:
        cure = "files that are here work offline; check the network and proxy to fetch others"
        yield Check("hub", Status.WARN, f"cannot be reached ({type(error).__name__}); {token}", cure)
    else:
        yield Check("hub", Status.OK, f"can be reached; {token}")


def _print(checks: list[Check]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    colours = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
    for check in checks:
        mark = f"[{colours[check.status]}]{check.status:<4}[/]"
        console.print(f"{mark}  {check.name:<7} {escape(check.found)}", soft_wrap=True)
        if check.cure:
            console.print(f"              [dim]{escape(check.cure)}[/]", soft_wrap=True)

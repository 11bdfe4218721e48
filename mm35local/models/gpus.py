"""What this machine can hold: its NVIDIA GPUs and its RAM, as far as this process may use them."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import psutil

from mm35local.engine.threads import default_threads
from mm35local.errors import GpuLost
from mm35local.models.datasheets import SHEETS, find_sheet

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True, slots=True)
class Link:
    """The way to a device in another process or machine, as measured: seconds there and back, bytes/s."""

    round_trip_seconds: float
    bandwidth: float


@dataclass(frozen=True, slots=True)
class Gpu:
    """`bandwidth` in bytes/s and `flops` in 1/s are the datasheet's; 0 where the card is in no table of ours."""

    name: str
    total_bytes: int
    free_bytes: int
    bandwidth: float = 0.0
    flops: float = 0.0
    has_nvlink: bool = False
    link: Link | None = None
    """None: it sits in this machine."""


@dataclass(frozen=True, slots=True)
class Driver:
    """Versions as NVML tells them, such as 580.65 and 13.0 (the newest CUDA that this driver runs)."""

    version: str
    cuda: str


@dataclass(frozen=True, slots=True)
class Machine:
    """`ram_free_bytes` is what can be had without swapping, within the cgroup's limit."""

    gpus: tuple[Gpu, ...]
    ram_free_bytes: int
    num_decode_threads: int = 0
    num_batch_threads: int = 0
    """CPU threads that the engine takes for a row and for a batch; 0: not known."""
    num_unusable_gpus: int = 0
    """Cards that are here, but that this build of llama.cpp cannot use."""
    driver: Driver | None = None

    @property
    def gpu_free_bytes(self) -> int:
        return sum(gpu.free_bytes for gpu in self.gpus)

    @property
    def largest_free_bytes(self) -> int:
        """The larger of the two pools a model can live in: all GPUs together, or RAM."""
        return max(self.gpu_free_bytes, self.ram_free_bytes)

    @property
    def has_remote(self) -> bool:
        """Is any device reached over RPC?"""
        return any(gpu.link for gpu in self.gpus)

    @property
    def has_nvlink(self) -> bool:
        """Can every card talk to the others faster than over PCIe?"""
        return bool(self.gpus) and all(gpu.has_nvlink for gpu in self.gpus)


def detect_machine() -> Machine:
    gpus, driver = _nvidia()
    threads = default_threads()
    here = Machine(gpus, free_ram_bytes(), threads.num_decode, threads.num_batch, driver=driver)
    if gpus and not has_cuda_backend():
        return replace(here, gpus=(), num_unusable_gpus=len(gpus))
    return here


def has_cuda_backend() -> bool:
    """Is the installed llama.cpp built with CUDA? Its files tell it without loading it, which only the worker may."""
    return has_backend_library("ggml-cuda")


def has_backend_library(name: str) -> bool:
    return backend_library(name) is not None


def backend_library(name: str) -> Path | None:
    """The shared library of that name, where it is installed; the headers of backends that were not built are, too."""
    try:
        found = files("llama-cpp-python") or ()
    except PackageNotFoundError:
        return None
    return next((Path(str(f.locate())) for f in found if f.name.startswith((f"lib{name}.", f"{name}.dll"))), None)


def _nvidia() -> tuple[tuple[Gpu, ...], Driver | None]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), None  # no driver: no NVIDIA GPU that could be used
    try:
        cuda = int(pynvml.nvmlSystemGetCudaDriverVersion())
        driver = Driver(str(pynvml.nvmlSystemGetDriverVersion()), f"{cuda // 1000}.{cuda % 1000 // 10}")
        count = pynvml.nvmlDeviceGetCount()
        return tuple(_answering(index, count) for index in _visible(count)), driver
    except pynvml.NVMLError:
        return (), None  # a driver too old or too broken to tell of itself
    finally:
        pynvml.nvmlShutdown()


def _visible(count: int) -> list[int]:
    """The cards that CUDA shows this process, in its order: by number or by the beginning of an UUID.

    As CUDA reads CUDA_VISIBLE_DEVICES: the list ends before the first entry that names no card.
    """
    import pynvml

    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return list(range(count))
    uuids = [str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(index))) for index in range(count)]
    found: list[int] = []
    for word in map(str.strip, wanted.split(",")):
        named = (
            [int(word)] if word.isdecimal() else [i for i, uuid in enumerate(uuids) if word and uuid.startswith(word)]
        )
        if len(named) != 1 or named[0] >= count or named[0] in found:
            break
        found += named
    return found


def _answering(index: int, count: int) -> Gpu:
    """Raises GpuLost for a card that fell off its bus since the driver counted it."""
    import pynvml

    try:
        return _gpu(index)
    except pynvml.NVMLError as error:
        raise GpuLost(index, count, str(error)) from error


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    name, total = str(pynvml.nvmlDeviceGetName(handle)), int(memory.total)
    key = find_sheet(name, total)
    if key is None:
        return Gpu(name, total, int(memory.free), has_nvlink=_has_active_nvlink(handle))
    sheet = SHEETS[key]
    linked = _has_active_nvlink(handle)
    return Gpu(name, total, int(memory.free), sheet.bandwidth_gb * 1e9, sheet.tflops * 1e12, linked)


def _has_active_nvlink(handle: object) -> bool:
    import pynvml

    try:
        return bool(pynvml.nvmlDeviceGetNvLinkState(handle, 0))
    except pynvml.NVMLError:
        return False  # a card without NVLink answers "not supported"


def free_ram_bytes() -> int:
    """RAM that can be had without swapping, within the cgroup's limit."""
    free = psutil.virtual_memory().available
    try:
        limit, used = _CGROUP_LIMIT.read_text().strip(), int(_CGROUP_USED.read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))

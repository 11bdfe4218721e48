"""What this machine can hold: its NVIDIA GPUs and its RAM, as far as this process may use them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import psutil

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
_CGROUP_USED = Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    total_bytes: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Machine:
    """`ram_free_bytes` is what can be had without swapping, within the cgroup's limit."""

    gpus: tuple[Gpu, ...]
    ram_free_bytes: int
    num_unusable_gpus: int = 0
    """Cards that are here, but that this build of llama.cpp cannot use."""

    @property
    def gpu_free_bytes(self) -> int:
        return sum(gpu.free_bytes for gpu in self.gpus)

    @property
    def largest_free_bytes(self) -> int:
        """The larger of the two pools a model can live in: all GPUs together, or RAM."""
        return max(self.gpu_free_bytes, self.ram_free_bytes)


def detect_machine() -> Machine:
    gpus = _nvidia_gpus()
    if gpus and not _has_cuda_backend():
        return Machine((), _free_ram_bytes(), len(gpus))
    return Machine(gpus, _free_ram_bytes())


def _has_cuda_backend() -> bool:
    # The installed files tell it without loading the library, which only the worker may do.
    try:
        return any("ggml-cuda" in file.name for file in files("llama-cpp-python") or ())
    except PackageNotFoundError:
        return False


def _nvidia_gpus() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()  # no driver: no NVIDIA GPU that could be used
    try:
        return tuple(_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
    finally:
        pynvml.nvmlShutdown()


def _gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(str(pynvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free))


def _free_ram_bytes() -> int:
    free = psutil.virtual_memory().available
    try:
        limit, used = _CGROUP_LIMIT.read_text().strip(), int(_CGROUP_USED.read_text())
    except (OSError, ValueError):
        return free
    return free if limit == "max" else min(free, max(0, int(limit) - used))

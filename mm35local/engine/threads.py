"""How many threads llama.cpp gets on the CPU, and how they wait for each other.

After every operation ggml's threads meet at a barrier. Where another program takes a core from one of them, the
others spin through its whole absence: measured on 2 busy cores, 2 threads decode 3-45 tok/s where 1 makes 105-130.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

FEW_CORES = 3
_FEW_SPINS = "1000"
"""Some microseconds: a thread that is about to come is met awake, one that lost its core is waited for asleep."""


LONG_SLICE, SHORT_SLICE = 0.02, 0.0001
"""Seconds, for who computes and for who passes on what was computed."""
_SCHED_ATTR = struct.Struct("=IIQiIQQQ")
"""linux/sched/types.h, its first version: size, policy, flags, nice, priority, runtime, deadline, period."""
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}
"""The number of the system call; libc has a function for it only of late."""


@dataclass(frozen=True, slots=True)
class Threads:
    """For a step of one row, and for a larger one (prompts, several streams)."""

    num_decode: int
    num_batch: int


def default_threads() -> Threads:
    """One per physical core that the process may use, but one core stays free for the rest of the machine.

    Spare hyperthreads serve as well. Few cores are all used for batches, where they wait asleep (`sleep_at_barriers`).
    """
    cpus = _allowed_cpus()
    num_cores = len({_core(cpu) for cpu in cpus})
    quota = cgroup_cpus(Path("/sys/fs/cgroup/cpu.max"))
    if quota is not None:
        num_cores = min(num_cores, max(1, int(quota)))
    has_spare = len(cpus) > num_cores
    num_decode = num_cores if has_spare else max(1, num_cores - 1)
    return Threads(num_decode, num_cores if num_cores <= FEW_CORES else num_decode)


def sleep_at_barriers(num_asked: int) -> None:
    """Where cores are few, tell GNU OpenMP to spin a moment and then sleep. Call it before llama.cpp is imported.

    Not for threads that the user asked for (`num_asked`, 0 if none) and so has the cores for: awake from one step to
    the next they decode up to half as fast again. A user's own GOMP_SPINCOUNT wins. With many cores waking all of them
    would cost more than it saves.
    """
    if not num_asked and len(_allowed_cpus()) <= FEW_CORES:
        os.environ.setdefault("GOMP_SPINCOUNT", _FEW_SPINS)


def ask_for_slices(seconds: float) -> bool:
    """Tell Linux for how long this thread, and those that it starts, want a core at a time.

    Their share of the cores stays what it was. But since Linux 6.12 who wakes up and wants one for a shorter time gets
    it at once from who computes: the server, to pass on a token that is there, and not some 3 ms later. False where
    the system does not know of it.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _SCHED_ATTR.pack(_SCHED_ATTR.size, 0, 0, nice, 0, round(1e9 * seconds), 0, 0)
    return int(ctypes.CDLL(None).syscall(number, 0, ctypes.c_char_p(attributes), 0)) == 0


def make_way() -> None:
    """Let whoever waits for this core have it first."""
    if hasattr(os, "sched_yield"):
        os.sched_yield()


def _allowed_cpus() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _core(cpu: int) -> str:
    """A name that hyperthreads of one core share; where the kernel does not tell, each CPU is a core."""
    topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        return (topology / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def cgroup_cpus(cpu_max: Path) -> float | None:
    """CPUs' worth of time that cgroup v2 grants ("quota period" in one line); None without a limit."""
    try:
        quota, period = cpu_max.read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)

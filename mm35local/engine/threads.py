"""How many threads llama.cpp gets on the CPU: one per physical core that this process may use."""

from __future__ import annotations

import os
from pathlib import Path


def default_num_threads() -> int:
    """Physical cores within the affinity mask, no more than the cgroup's CPU quota, at least 1."""
    cores = {_core(cpu) for cpu in _allowed_cpus()}
    quota = cgroup_cpus(Path("/sys/fs/cgroup/cpu.max"))
    return max(1, len(cores) if quota is None else min(len(cores), int(quota)))


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

"""The number of threads follows what the process may really use."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from mm35local.engine import threads
from mm35local.engine.threads import (
    SHORT_SLICE,
    Threads,
    ask_for_slices,
    cgroup_cpus,
    default_threads,
    sleep_at_barriers,
)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_a_process_bound_to_one_cpu_gets_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from mm35local.engine.threads import default_threads; print(default_threads())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "Threads(num_decode=1, num_batch=1)\n"


@pytest.mark.parametrize(
    ("cores", "quota", "expected"),
    [
        ("0 1", "max 100000", Threads(1, 2)),
        ("0 0 1 1", "max 100000", Threads(2, 2)),
        ("0 1 2 3 4 5 6 7", "max 100000", Threads(7, 7)),
        ("0 1 2 3 0 1 2 3", "max 100000", Threads(4, 4)),
        ("0 1 2 3 4 5 6 7", "200000 100000", Threads(2, 2)),
        ("0 1", "50000 100000", Threads(1, 1)),
    ],
)
def test_one_core_stays_free_unless_hyperthreads_are_spare(
    monkeypatch: pytest.MonkeyPatch, cores: str, quota: str, expected: Threads
) -> None:
    core_of = dict(enumerate(cores.split()))
    limit = cgroup_cpus_of(quota)
    monkeypatch.setattr(threads, "_allowed_cpus", lambda: set(core_of))
    monkeypatch.setattr(threads, "_core", core_of.__getitem__)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda path: limit)
    assert default_threads() == expected


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's scheduler")
def test_asking_for_slices_leaves_policy_and_niceness_as_they_were() -> None:
    code = (
        "import os; os.nice(3); from mm35local.engine.threads import LONG_SLICE, ask_for_slices;"
        "is_known = ask_for_slices(LONG_SLICE); is_normal = os.sched_getscheduler(0) == os.SCHED_OTHER;"
        "print(is_known, is_normal, os.getpriority(os.PRIO_PROCESS, 0))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    is_known = platform.machine() in ("x86_64", "aarch64")
    assert run.stdout == f"{is_known} True 3\n"


def test_where_the_system_call_has_no_known_number_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not ask_for_slices(SHORT_SLICE)


def cgroup_cpus_of(line: str) -> float | None:
    quota, period = line.split()
    return None if quota == "max" else int(quota) / int(period)


@pytest.mark.parametrize(
    ("line", "cpus"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("nonsense\n", None)]
)
def test_the_quota_of_a_cgroup_is_read(tmp_path: Path, line: str, cpus: float | None) -> None:
    (tmp_path / "cpu.max").write_text(line)
    assert cgroup_cpus(tmp_path / "cpu.max") == cpus
    assert cgroup_cpus(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("num_cores", "num_asked", "own", "expected"),
    [(2, 0, None, "1000"), (2, 2, None, None), (8, 0, None, None), (8, 8, None, None), (2, 0, "7", "7")],
)
def test_few_cores_wait_asleep_unless_their_threads_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, num_cores: int, num_asked: int, own: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(threads, "_allowed_cpus", lambda: set(range(num_cores)))
    monkeypatch.setenv("GOMP_SPINCOUNT", own or "to be undone")
    if own is None:
        monkeypatch.delenv("GOMP_SPINCOUNT")
    sleep_at_barriers(num_asked)
    assert os.environ.get("GOMP_SPINCOUNT") == expected

"""The number of threads follows what the process may really use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mm35local.engine.threads import cgroup_cpus, default_num_threads


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks on this system")
def test_a_process_bound_to_one_cpu_gets_one_thread() -> None:
    assert 1 <= default_num_threads() <= len(os.sched_getaffinity(0))
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from mm35local.engine.threads import default_num_threads; print(default_num_threads())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "1\n"


@pytest.mark.parametrize(
    ("line", "cpus"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("", None), ("nonsense\n", None)]
)
def test_the_quota_of_a_cgroup_is_read(tmp_path: Path, line: str, cpus: float | None) -> None:
    (tmp_path / "cpu.max").write_text(line)
    assert cgroup_cpus(tmp_path / "cpu.max") == cpus
    assert cgroup_cpus(tmp_path / "absent") is None

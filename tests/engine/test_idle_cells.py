"""Idle cells are kept where they cost nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mm35local.engine.api import EngineConfig
from mm35local.engine.idle_cells import most_idle_cells

CONFIG = EngineConfig(Path("model.gguf"), Path("log"), 8192, num_slots=4)


def test_any_number_stays_on_a_card_and_few_on_a_cpu_whatever_computes_attention() -> None:
    assert most_idle_cells(replace(CONFIG, n_gpu_layers=99), 1000) is None
    assert most_idle_cells(CONFIG, 1000) == most_idle_cells(replace(CONFIG, flash_attention=False), 1000) == 250


@pytest.mark.parametrize(("num_running", "num_idle"), [(0, 64), (200, 64), (8000, 2000)])
def test_short_ones_stay_and_long_ones_may_be_a_share_of_what_runs(num_running: int, num_idle: int) -> None:
    assert most_idle_cells(CONFIG, num_running) == num_idle

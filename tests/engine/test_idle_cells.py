"""Idle cells are kept where they cost nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mm35local.engine.api import EngineConfig
from mm35local.engine.idle_cells import BY_FLASH_ON_CPU, BY_PRODUCTS, idle_limit

CONFIG = EngineConfig(Path("model.gguf"), Path("log"), 8192, num_slots=4)


def test_it_depends_on_the_kernel_that_computes_attention() -> None:
    assert idle_limit(CONFIG) is BY_FLASH_ON_CPU
    assert idle_limit(replace(CONFIG, flash_attention=False)) is BY_PRODUCTS
    assert idle_limit(replace(CONFIG, n_gpu_layers=99)) is None


@pytest.mark.parametrize(("num_running", "num_idle"), [(0, 256), (1000, 256), (8000, 2000)])
def test_short_ones_stay_and_long_ones_may_be_a_share_of_what_runs(num_running: int, num_idle: int) -> None:
    assert BY_FLASH_ON_CPU.at(num_running) == num_idle

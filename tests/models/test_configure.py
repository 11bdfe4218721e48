"""What the engine is told of a plan."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from mm35local.engine.api import EngineConfig
from mm35local.models.configure import configure
from mm35local.models.gpus import Gpu, Link, Machine
from mm35local.models.plan import Plan, Wish, make_plan, smaller_plans
from mm35local.models.split import Split
from tests.models.test_plan import TINY

ASKED = EngineConfig(Path("m.gguf"), Path("log"), 1, num_slots=3, speculate="off", rpc=("lender:1",))
CARDS = Machine((Gpu("small", 8 << 30, 8 << 30), Gpu("large", 80 << 30, 80 << 30)), 64 << 30)


def planned(machine: Machine, wish: Wish) -> tuple[EngineConfig, Plan]:
    plan = make_plan(TINY, machine, wish)
    return configure(ASKED, plan, machine), plan


def test_all_that_a_plan_decides_is_told_and_the_rest_stays() -> None:
    wish = Wish(split=Split.LAYER, kv_type="q8_0", n_ctx=4096, n_batch=128, vision_bytes=1)
    config, plan = planned(CARDS, wish)
    assert (config.n_ctx, config.n_batch, config.kv_type, config.split) == (4096, 128, "q8_0", "layer")
    assert (config.n_gpu_layers, config.tensor_split, config.planned) == (3, plan.tensor_split, plan.buffer_bytes)
    assert sum(config.tensor_split) == 3
    assert (config.main_gpu, config.beside_gpu) == (0, 1)
    same = ("model_path", "log_path", "num_slots", "speculate", "rpc", "num_threads", "overrides", "kv_store_bytes")
    assert [getattr(config, name) for name in same] == [getattr(ASKED, name) for name in same]
    shared = {field.name for field in fields(EngineConfig)} & {field.name for field in fields(Plan)}
    assert all(getattr(config, name) == getattr(plan, name) for name in shared)


def test_one_card_is_told_by_its_number_among_all() -> None:
    config, _ = planned(CARDS, Wish(split=Split.NONE, flash_attention=False))
    assert (config.main_gpu, config.beside_gpu, config.split, config.flash_attention) == (1, 1, "none", False)


def test_nothing_is_lent_to_a_model_in_ram_and_nothing_runs_beside_it_on_a_card() -> None:
    config, _ = planned(CARDS, Wish(use_gpu=False))
    assert (config.rpc, config.main_gpu, config.beside_gpu, config.n_gpu_layers) == ((), 0, None, 0)


def test_on_a_lent_card_alone_what_is_beside_the_model_stays_in_ram() -> None:
    lent = Machine((Gpu("lent", 80 << 30, 80 << 30, link=Link(1e-4, 1e9)),), 64 << 30)
    config, _ = planned(lent, Wish())
    assert (config.rpc, config.beside_gpu, config.n_gpu_layers) == (ASKED.rpc, None, 3)


def test_smaller_plans_become_fallbacks() -> None:
    wish = Wish(n_ctx=8192)
    plan = make_plan(TINY, CARDS, wish)
    config = configure(ASKED, plan, CARDS, smaller_plans(TINY, CARDS, wish, plan))
    assert config.n_ctx == 8192
    assert len(config.fallbacks) > 1
    assert all(each.fallbacks == () and each.speculate == "off" for each in config.fallbacks)
    assert config.fallbacks[-1].n_ctx < 8192

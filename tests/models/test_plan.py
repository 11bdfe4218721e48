from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.errors import DoesNotFit, UsageError
from mm35local.models.gguf_header import GgufHeader, read_header
from mm35local.models.gpus import Gpu, Machine, detect_machine
from mm35local.models.plan import ALL_LAYERS, COMPUTE_RESERVE_BYTES, kv_bytes_per_token, plan_load
from tests.models.gguf_bytes import tiny_llama

KV = 256
WEIGHTS = 64 * 64 * 4
FIXED = WEIGHTS + COMPUTE_RESERVE_BYTES


@pytest.fixture
def header(tmp_path: Path) -> GgufHeader:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_llama(context_length=8192))
    return read_header(path)


def ram(num_bytes: int) -> Machine:
    return Machine((), num_bytes)


def test_kv_bytes(header: GgufHeader, smollm2_path: Path) -> None:
    assert kv_bytes_per_token(header) == KV
    assert kv_bytes_per_token(read_header(smollm2_path)) == 2 * 30 * 3 * 64 * 2


def test_plenty_of_ram_gives_the_whole_context(header: GgufHeader) -> None:
    plan = plan_load(header, ram(64 << 30))
    assert (plan.n_ctx, plan.n_gpu_layers, plan.needed_bytes) == (8192, 0, FIXED + 8192 * KV)


def test_little_ram_shortens_the_context_and_leaves_half(header: GgufHeader) -> None:
    assert plan_load(header, ram(FIXED + 8192 * KV)).n_ctx == 4096


def test_on_a_gpu_kv_takes_what_is_left(header: GgufHeader) -> None:
    machine = Machine((Gpu("card", 80 << 30, FIXED + 6000 * KV),), 1)
    plan = plan_load(header, machine)
    assert (plan.n_ctx, plan.n_gpu_layers) == (6000 // 256 * 256, ALL_LAYERS)


def test_a_gpu_that_is_too_small_leaves_it_to_ram(header: GgufHeader) -> None:
    assert plan_load(header, Machine((Gpu("card", 1 << 20, 1 << 20),), 64 << 30)).n_gpu_layers == 0


def test_forcing_the_place(header: GgufHeader) -> None:
    big = Machine((Gpu("card", 80 << 30, 80 << 30),), 64 << 30)
    assert plan_load(header, big, gpu=False).n_gpu_layers == 0
    with pytest.raises(DoesNotFit):
        plan_load(header, ram(64 << 30), gpu=True)


def test_what_does_not_fit_names_the_bytes(header: GgufHeader) -> None:
    with pytest.raises(DoesNotFit) as caught:
        plan_load(header, ram(FIXED), n_ctx=8192)
    assert (caught.value.needed_bytes, caught.value.free_bytes) == (FIXED + 8192 * KV, FIXED)


@pytest.mark.parametrize("n_ctx", [0, -1, 8193])
def test_a_context_outside_the_models(header: GgufHeader, n_ctx: int) -> None:
    with pytest.raises(UsageError, match="1 to 8192"):
        plan_load(header, ram(64 << 30), n_ctx=n_ctx)


def test_this_machine_has_ram() -> None:
    machine = detect_machine()
    assert machine.ram_free_bytes > 0
    assert machine.largest_free_bytes >= machine.gpu_free_bytes

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.engine import llama_backend
from mm35local.errors import DoesNotFit, ModelFileError, UsageError
from mm35local.models import memory
from mm35local.models.draft import draft_bytes
from mm35local.models.geometry import Geometry, from_header
from mm35local.models.gguf_header import read_header
from mm35local.models.gpus import Gpu, Link, Machine, detect_machine
from mm35local.models.memory import HOST_RESERVE_BYTES, compute_bytes, kv_bytes
from mm35local.models.mixes import Shape
from mm35local.models.placement import Beside, Load, place_layers, place_tensors
from mm35local.models.plan import Wish, gpu_load, make_plan, smaller_plans
from mm35local.models.speed import CpuPart, decode_tokens_per_second
from mm35local.models.split import Split
from mm35local.models.stated import parse_gpus
from tests.models.gguf_bytes import Tensor, gguf, text, tiny_llama, uint32
from tests.models.test_plan_table import MEDIUM, medium

MIB = 1 << 20
TINY_SHAPE = Shape(2, 64, 256, 4, 2, 16, 64, 8192)
TINY = Geometry("tiny", TINY_SHAPE, (0, 0), 64 * 64 * 4, 64 * 64 * 4, is_tied=True)
KV = 256


def ram(num_bytes: int) -> Machine:
    return Machine((), num_bytes)


def needed_in_ram(n_ctx: int, *, flash: bool = True) -> int:
    compute = compute_bytes(TINY_SHAPE, "f16", n_ctx, 512 if flash else 256, flash_attention=flash, n_seq=32)
    return 64 * 64 * 4 + n_ctx * KV + compute + HOST_RESERVE_BYTES


def test_a_geometry_from_a_file(tmp_path: Path, smollm2_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_llama(context_length=8192))
    tiny = from_header(read_header(path))
    assert (tiny.shape, tiny.embedding_bytes, tiny.is_tied) == (TINY_SHAPE, 64 * 64 * 4, True)
    header = read_header(smollm2_path)
    smol = from_header(header)
    assert smol.num_bytes == header.tensor_bytes
    assert smol.shape == Shape(30, 576, 1536, 9, 3, 64, 49152, 8192)
    assert kv_bytes(smol.shape, "f16", 256) * 30 == 256 * 2 * 30 * 3 * 64 * 2


@pytest.mark.parametrize("num_layers", [1_000_000, 0])
def test_a_lying_header(tmp_path: Path, num_layers: int) -> None:
    values = [
        text("general.architecture", "llama"),
        uint32("llama.context_length", 4096),
        uint32("llama.block_count", num_layers),
        uint32("llama.embedding_length", 64),
        uint32("llama.attention.head_count", 4),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(values, [Tensor("token_embd.weight", (64, 64), 0, 0)], 64 * 64 * 4))
    with pytest.raises(ModelFileError, match=f"{num_layers} layers of width 64"):
        from_header(read_header(path))


def test_plenty_of_ram_gives_the_whole_context() -> None:
    plan = make_plan(TINY, ram(64 << 30))
    assert (plan.n_ctx, plan.n_gpu_layers, plan.kv_type) == (8192, 0, "f16")
    assert plan.needed_bytes == needed_in_ram(8192)


def test_little_ram_shortens_the_context_and_leaves_half() -> None:
    assert make_plan(TINY, ram(HOST_RESERVE_BYTES * 2 + (20 << 20))).n_ctx < 8192


@pytest.mark.parametrize(
    ("wish", "flash"),
    [
        (Wish(num_slots=1), False),
        (Wish(num_slots=2), True),
        (Wish(num_slots=1, flash_attention=True), True),
        (Wish(num_slots=1, kv_type="q8_0"), True),
        (Wish(num_slots=1, kv_type="f16"), False),
        (Wish(num_slots=2, flash_attention=False), False),
    ],
)
def test_one_conversation_on_a_cpu_is_computed_by_matrix_products(wish: Wish, *, flash: bool) -> None:
    assert make_plan(TINY, ram(64 << 30), wish).flash_attention is flash


def test_one_conversation_on_a_card_is_computed_by_the_flash_kernel() -> None:
    assert make_plan(TINY, Machine(parse_gpus("1xh100"), 64 << 30), Wish(num_slots=1)).flash_attention


def test_no_context_is_given_up_for_matrix_products() -> None:
    wish = Wish(num_slots=1, n_ctx=8192)
    with_flash = make_plan(TINY, ram(64 << 30), replace(wish, flash_attention=True)).needed_bytes
    with_products = make_plan(TINY, ram(64 << 30), wish).needed_bytes
    assert with_products > with_flash
    assert make_plan(TINY, ram(with_flash), wish).flash_attention
    assert not make_plan(TINY, ram(with_products), wish).flash_attention


def test_without_flash_attention_a_step_on_a_cpu_has_fewer_rows() -> None:
    plan = make_plan(TINY, ram(64 << 30), Wish(flash_attention=False))
    assert (plan.flash_attention, plan.n_batch, plan.n_ctx) == (False, 256, 8192)
    assert plan.needed_bytes == needed_in_ram(8192, flash=False)


def test_a_gpu_that_is_too_small_leaves_it_to_ram() -> None:
    assert make_plan(TINY, Machine((Gpu("card", 1 << 20, 1 << 20),), 64 << 30)).n_gpu_layers == 0


def test_a_draft_model_gets_its_weights_cells_and_buffer_where_the_model_lives() -> None:
    needed = draft_bytes(TINY, 8192, 512, 8)
    assert needed == 64 * 64 * 4 + 8192 * KV + compute_bytes(TINY_SHAPE, "f16", 8192, 512, n_seq=8)
    with_draft, card = Wish(draft=TINY), Machine((Gpu("card", 80 << 30, 80 << 30),), 64 << 30)
    assert make_plan(TINY, ram(64 << 30), with_draft).needed_bytes == needed_in_ram(8192) + needed
    products = draft_bytes(TINY, 8192, 256, 8, flash_attention=False)
    without = make_plan(TINY, ram(64 << 30), Wish(draft=TINY, flash_attention=False))
    assert without.needed_bytes == needed_in_ram(8192, flash=False) + products
    assert make_plan(TINY, card, with_draft).gpu_bytes == make_plan(TINY, card).gpu_bytes + needed
    assert make_plan(TINY, card, with_draft).ram_bytes == make_plan(TINY, card).ram_bytes
    free = needed_in_ram(8192) + needed - 1
    with pytest.raises(DoesNotFit) as caught:
        make_plan(TINY, ram(free), replace(with_draft, n_ctx=8192, kv_type="f16"))
    assert caught.value.needed_bytes == free + 1


def test_a_draft_model_and_the_vision_tower_are_whole_on_the_card_with_most_room() -> None:
    untied = Geometry("untied", TINY_SHAPE, (0, 0), 64 * 64 * 4, 64 * 64 * 4)
    cards = Machine((Gpu("small", 8 << 30, 8 << 30), Gpu("large", 80 << 30, 80 << 30)), 64 << 30)
    for split in (Split.LAYER, Split.TENSOR, Split.NONE):
        alone = make_plan(TINY, cards, Wish(split=split))
        plan = make_plan(TINY, cards, Wish(split=split, draft=untied, vision_bytes=5 << 30))
        more = [share.other_bytes - other.other_bytes for share, other in zip(plan.shares, alone.shares, strict=True)]
        looked_up = untied.embedding_bytes
        expected = (5 << 30) + draft_bytes(untied, 8192, 512, 8) - looked_up
        assert more == ([expected] if split is Split.NONE else [0, expected])
        assert plan.beside == Beside(0 if split is Split.NONE else 1, expected, looked_up)
        assert plan.ram_bytes - alone.ram_bytes == looked_up


def test_only_cards_of_this_machine_take_what_is_beside_the_model() -> None:
    link = Link(1e-4, 1e9)
    lent = Machine((Gpu("lent", 80 << 30, 80 << 30, link=link),), 64 << 30)
    plan = make_plan(TINY, lent, Wish(vision_bytes=5 << 30))
    assert (plan.beside, plan.n_gpu_layers) == (Beside(None, 0, 5 << 30), 3)
    assert plan.ram_bytes == make_plan(TINY, lent).ram_bytes + (5 << 30)
    both = replace(lent, gpus=(Gpu("own", 8 << 30, 8 << 30), *lent.gpus))
    assert make_plan(TINY, both, Wish(split=Split.LAYER, vision_bytes=5 << 30)).beside == Beside(0, 5 << 30, 0)


def test_the_vision_tower_takes_ram_where_the_model_does() -> None:
    vision = 100 << 20
    assert make_plan(TINY, ram(64 << 30), Wish(vision_bytes=vision)).needed_bytes == needed_in_ram(8192) + vision
    free = needed_in_ram(8192) + vision - 1
    with pytest.raises(DoesNotFit) as caught:
        make_plan(TINY, ram(free), Wish(vision_bytes=vision, n_ctx=8192, kv_type="f16"))
    assert caught.value.needed_bytes == free + 1


def test_forcing_the_place() -> None:
    big = Machine((Gpu("card", 80 << 30, 80 << 30),), 64 << 30)
    assert make_plan(TINY, big).n_gpu_layers == 3
    assert make_plan(TINY, big, Wish(use_gpu=False)).n_gpu_layers == 0
    with pytest.raises(DoesNotFit):
        make_plan(TINY, ram(64 << 30), Wish(use_gpu=True))


def test_what_does_not_fit_names_the_bytes() -> None:
    free = needed_in_ram(8192) - 1
    with pytest.raises(DoesNotFit) as caught:
        make_plan(TINY, ram(free), Wish(n_ctx=8192, kv_type="f16"))
    assert (caught.value.needed_bytes, caught.value.free_bytes) == (free + 1, free)


@pytest.mark.parametrize("n_ctx", [0, -1, 8193])
def test_a_context_outside_the_models(n_ctx: int) -> None:
    with pytest.raises(UsageError, match="1 to 8192"):
        make_plan(TINY, ram(64 << 30), Wish(n_ctx=n_ctx))


def test_impossible_wishes() -> None:
    one, nine = Machine(parse_gpus("h100"), 0), Machine(parse_gpus("9x80GiB"), 0)
    with pytest.raises(UsageError, match="needs at least 2 GPUs, 1 here"):
        make_plan(medium("Q4_K_M"), one, Wish(split=Split.TENSOR))
    with pytest.raises(UsageError, match="8 KV heads among 9 GPUs"):
        make_plan(medium("Q4_K_M"), nine, Wish(split=Split.TENSOR))
    with pytest.raises(UsageError, match="flash attention"):
        make_plan(medium("Q4_K_M"), Machine(parse_gpus("2xh100"), 0), Wish(split=Split.TENSOR, flash_attention=False))
    with pytest.raises(UsageError, match="unknown KV type 'q3_k'"):
        make_plan(medium("Q4_K_M"), one, Wish(kv_type="q3_k"))
    with pytest.raises(UsageError, match="KV type q8_0: rows of 24"):
        kv_bytes(Shape(2, 64, 256, 4, 1, 24, 64, 8192), "q8_0", 256)


@pytest.mark.parametrize(
    ("n_ctx", "n_batch", "kv_type", "flash", "measured_mib"),
    [
        (32768, 512, "f16", True, 296.01),
        (32768, 512, "q8_0", True, 272.09),
        (65536, 512, "q8_0", True, 304.09),
        (32768, 2048, "f16", True, 1184.05),
        (4096, 512, "f16", True, 268.01),
        (4096, 128, "f16", True, 67.00),
        (262144, 512, "f16", True, 520.01),
        (1024, 2048, "f16", True, 530.02),
        (32768, 512, "f16", False, 6332.01),
    ],
)
def test_compute_buffers_as_llama_cpp_reserves_them(
    n_ctx: int, n_batch: int, kv_type: str, flash: bool, measured_mib: float
) -> None:
    estimate = compute_bytes(MEDIUM, kv_type, n_ctx, n_batch, flash_attention=flash)
    assert estimate / MIB == pytest.approx(measured_mib, rel=0.001)


def test_the_planner_knows_the_engines_sequences() -> None:
    assert [memory.num_sequences(n) for n in (1, 8, 200)] == [llama_backend.num_sequences(n) for n in (1, 8, 200)]


def test_layers_are_dealt_as_llama_cpp_deals_them() -> None:
    """i/(n_layer+1) falls into the share of the card that the plan gave layer i to."""
    plan = make_plan(medium("Q4_K_M"), Machine(parse_gpus("h100,rtx-4090,3x16GiB"), 0), Wish(split=Split.LAYER))
    total = sum(plan.tensor_split)
    assert total == plan.n_gpu_layers == 89
    ends, dealt = [sum(plan.tensor_split[: index + 1]) / total for index in range(5)], [0] * 5
    for layer in range(88):
        dealt[next(index for index, end in enumerate(ends) if end > layer / total)] += 1
    assert dealt == [share.num_layers for share in plan.shares]
    assert sum(share.weight_bytes for share in plan.shares) == medium("Q4_K_M").num_bytes - 905969664


def test_the_cpu_helps_only_when_nothing_else_fits() -> None:
    machine = Machine(parse_gpus("h100"), 30 << 30)
    plan = make_plan(medium("Q5_K_M"), machine)
    assert 0 < plan.num_cpu_layers < 20
    assert plan.n_gpu_layers == 89 - plan.num_cpu_layers
    assert plan.ram_weight_bytes == sum(medium("Q5_K_M").layer_bytes[: plan.num_cpu_layers])
    assert plan.decode < 10 < make_plan(medium("Q4_K_M"), machine).decode


def test_the_smaller_plans_after_a_failure() -> None:
    machine = Machine(parse_gpus("4x24GiB"), 0)
    failed = make_plan(medium("Q4_K_M"), machine)
    assert failed.split is Split.TENSOR
    smaller = list(smaller_plans(medium("Q4_K_M"), machine, Wish(), failed))
    assert smaller[0].split is Split.LAYER or smaller[0].n_batch < failed.n_batch
    assert all(plan.gpu_bytes < failed.gpu_bytes for plan in smaller if plan.split is failed.split)
    assert smaller[-1].n_ctx < failed.n_ctx


@pytest.mark.parametrize(
    ("gpus", "quant", "split", "published"),
    [
        ("rtx-pro-6000", "Q4_K_M", Split.NONE, 20.4),
        ("4xrtx-3080-20gb", "IQ4_XS", Split.LAYER, 10.4),
        ("4xrtx-3080-20gb", "IQ4_XS", Split.TENSOR, 21.6),
    ],
)
def test_decode_estimates_against_published_figures(gpus: str, quant: str, split: Split, published: float) -> None:
    plan = make_plan(medium(quant), Machine(parse_gpus(gpus), 0), Wish(n_ctx=4096, kv_type="q8_0", split=split))
    assert plan.decode == pytest.approx(published, rel=0.12)


def test_an_unknown_card_gives_no_estimate() -> None:
    plan = make_plan(medium("Q4_K_M"), Machine((Gpu("card", 80 << 30, 80 << 30),), 0))
    assert (plan.decode, plan.prefill) == (0.0, 0.0)
    assert decode_tokens_per_second((), (), is_tensor_split=False, cpu=CpuPart(34 * 10**9)) == pytest.approx(1.0)


def test_few_cores_are_the_limit_before_the_memory(smollm2_path: Path) -> None:
    """SmolLM2 on one thread: measured 105-130 tok/s, and 170-250 in prompts on two."""
    smol = from_header(read_header(smollm2_path))
    plan = make_plan(smol, Machine((), 8 << 30, num_decode_threads=1, num_batch_threads=2), Wish(n_ctx=512))
    assert 85 < plan.decode < 130
    assert 170 < plan.prefill < 350
    many = make_plan(smol, Machine((), 8 << 30, num_decode_threads=64), Wish(n_ctx=512))
    assert plan.decode < many.decode < 352


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=8),
    st.integers(2048, 262144),
    st.sampled_from(["f16", "q8_0", "q4_0"]),
    st.integers(0, 100 << 30),
)
def test_no_card_is_promised_more_than_it_has(sizes: list[int], n_ctx: int, kv_type: str, vision_bytes: int) -> None:
    gpus = tuple(Gpu(f"{size} GiB", size << 30, size << 30) for size in sizes)
    geometry = medium("Q4_K_M")
    load: Load = gpu_load(geometry, Wish(vision_bytes=vision_bytes), kv_type, n_ctx, Split.LAYER, gpus)
    assert load.beside.card_bytes == vision_bytes
    for shares in (place_layers(load, gpus), place_tensors(load, gpus)):
        if shares is not None:
            used = [share.split > 0 or index == load.beside.card for index, share in enumerate(shares)]
            assert all(
                share.num_bytes <= gpu.free_bytes
                for share, gpu, is_used in zip(shares, gpus, used, strict=True)
                if is_used
            )
            weights = sum(share.weight_bytes for share in shares)
            assert weights == pytest.approx(sum(geometry.layer_bytes) + geometry.head_bytes, abs=8)


def test_this_machine_has_ram() -> None:
    machine = detect_machine()
    assert machine.ram_free_bytes > 0
    assert machine.largest_free_bytes >= machine.gpu_free_bytes

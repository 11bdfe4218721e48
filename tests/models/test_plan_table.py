"""The 128B on many machines: sums worked out apart from the planner, from MODEL's published figures.

weights  file bytes less the token embedding, which stays in RAM (Q4_K_M: 74.889 GB - 1.611e9 x 4.5 bits = 68.90 GiB)
kv       tokens x bytes per token (f16 360448, q8_0 191488, q5_1 135168, q4_0 101376)
others   per card, for 512 rows: 3 x 56 MiB FFN + 24 MiB x 4 (f16) or 3 + the mask at 1 KiB a token + 15.75 MiB of
         activations + 4 KiB a token of converted KV where it is quantised + 768 MiB of CUDA context and reserve
fits     weights + kv + cards x others <= the memory of all cards, matrices cut across them where there are several
"""

from __future__ import annotations

import pytest

from mm35local.errors import GIB, DoesNotFit
from mm35local.models.geometry import Geometry, from_shape
from mm35local.models.gpus import Machine
from mm35local.models.mixes import Shape
from mm35local.models.plan import Wish, gpu_load, make_plan
from mm35local.models.split import Split
from mm35local.models.stated import parse_gpus

MEDIUM = Shape(88, 12288, 28672, 96, 8, 128, 131072, 262144)

# gpus, quant, KV type, context, weights GiB, KV GiB, others GiB per card, fits
TABLE = [
    ("h100", "Q4_K_M", "q8_0", 32768, 68.90, 5.84, 1.16, True),
    ("h100", "Q5_K_M", "q8_0", 32768, 81.21, 5.84, 1.16, False),
    ("h100", "Q4_K_M", "f16", 32768, 68.90, 11.00, 1.05, False),
    ("h100", "Q4_K_M", "f16", 24576, 68.90, 8.25, 1.05, True),
    ("h100", "Q4_K_M", "q8_0", 65536, 68.90, 11.69, 1.31, False),
    ("h100", "Q4_K_M", "q4_0", 65536, 68.90, 6.19, 1.31, True),
    ("h100", "Q4_K_M", "q4_0", 131072, 68.90, 12.38, 1.62, False),
    ("h100", "IQ4_XS", "q8_0", 65536, 62.23, 11.69, 1.31, True),
    ("h100", "IQ4_XS", "q8_0", 131072, 62.23, 23.38, 1.62, False),
    ("h100", "IQ4_XS", "f16", 32768, 62.23, 11.00, 1.05, True),
    ("h100", "IQ4_XS", "f16", 65536, 62.23, 22.00, 1.09, False),
    ("h100", "IQ4_XS", "q5_1", 98304, 62.23, 12.38, 1.47, True),
    ("h100", "Q4_K_S", "q8_0", 65536, 65.50, 11.69, 1.31, True),
    ("h100", "Q4_K_S", "q8_0", 98304, 65.50, 17.53, 1.47, False),
    ("h100", "Q6_K", "q4_0", 2048, 94.29, 0.19, 1.01, False),
    ("h100", "Q8_0", "q4_0", 2048, 122.13, 0.19, 1.01, False),
    ("80GiB", "Q4_K_M", "q8_0", 32768, 68.90, 5.84, 1.16, True),
    ("80GiB", "Q4_K_M", "q8_0", 65536, 68.90, 11.69, 1.31, False),
    ("80GiB", "Q4_K_M", "q5_1", 65536, 68.90, 8.25, 1.31, True),
    ("80GiB", "Q5_K_M", "q4_0", 2048, 81.21, 0.19, 1.01, False),
    ("h200", "Q4_K_M", "f16", 131072, 68.90, 44.00, 1.15, True),
    ("h200", "Q4_K_M", "q8_0", 262144, 68.90, 46.75, 2.25, True),
    ("h200", "Q4_K_M", "f16", 262144, 68.90, 88.00, 1.27, False),
    ("h200", "Q5_K_M", "f16", 131072, 81.21, 44.00, 1.15, True),
    ("h200", "Q6_K", "f16", 131072, 94.29, 44.00, 1.15, True),
    ("h200", "Q6_K", "q8_0", 262144, 94.29, 46.75, 2.25, False),
    ("h200", "Q6_K", "q5_1", 262144, 94.29, 33.00, 2.25, True),
    ("h200", "Q8_0", "f16", 32768, 122.13, 11.00, 1.05, True),
    ("h200", "Q8_0", "f16", 65536, 122.13, 22.00, 1.09, False),
    ("h200", "Q8_0", "q8_0", 65536, 122.13, 11.69, 1.31, True),
    ("h200", "Q8_0", "q8_0", 131072, 122.13, 23.38, 1.62, False),
    ("rtx-pro-6000", "Q4_K_M", "f16", 65536, 68.90, 22.00, 1.09, True),
    ("rtx-pro-6000", "Q5_K_M", "f16", 32768, 81.21, 11.00, 1.05, True),
    ("rtx-pro-6000", "Q5_K_M", "q8_0", 65536, 81.21, 11.69, 1.31, True),
    ("rtx-pro-6000", "Q6_K", "q4_0", 8192, 94.29, 0.77, 1.04, False),
    ("rtx-pro-6000", "Q4_K_M", "q8_0", 131072, 68.90, 23.38, 1.62, True),
    ("2x48GiB", "Q4_K_M", "f16", 65536, 68.90, 22.00, 1.09, True),
    ("2x48GiB", "Q4_K_M", "q8_0", 131072, 68.90, 23.38, 1.62, True),
    ("2x48GiB", "Q5_K_M", "q8_0", 65536, 81.21, 11.69, 1.31, True),
    ("2x48GiB", "Q6_K", "q4_0", 2048, 94.29, 0.19, 1.01, False),
    ("4x24GiB", "Q4_K_M", "f16", 65536, 68.90, 22.00, 1.09, True),
    ("4x24GiB", "Q4_K_M", "q8_0", 65536, 68.90, 11.69, 1.31, True),
    ("4x24GiB", "Q4_K_M", "q8_0", 131072, 68.90, 23.38, 1.62, False),
    ("4x24GiB", "Q5_K_M", "q8_0", 32768, 81.21, 5.84, 1.16, True),
    ("4x24GiB", "IQ4_XS", "q8_0", 131072, 62.23, 23.38, 1.62, True),
    ("2xh100", "Q8_0", "f16", 65536, 122.13, 22.00, 1.09, True),
    ("2xh100", "Q8_0", "q8_0", 131072, 122.13, 23.38, 1.62, True),
    ("8x24GiB", "Q8_0", "f16", 131072, 122.13, 44.00, 1.15, True),
    ("8x24GiB", "Q6_K", "q8_0", 262144, 94.29, 46.75, 2.25, True),
]


def medium(quant: str) -> Geometry:
    geometry = from_shape("Medium", MEDIUM, quant)
    assert geometry is not None
    return geometry


@pytest.mark.parametrize(("gpus", "quant", "kv_type", "n_ctx", "weights", "kv", "others", "fits"), TABLE)
def test_sums(
    gpus: str, quant: str, kv_type: str, n_ctx: int, weights: float, kv: float, others: float, fits: bool
) -> None:
    machine = Machine(parse_gpus(gpus), 0)
    split = Split.TENSOR if len(machine.gpus) > 1 else Split.NONE
    wish = Wish(n_ctx=n_ctx, kv_type=kv_type, split=split, use_gpu=True)
    geometry = medium(quant)
    load = gpu_load(geometry, wish, kv_type, n_ctx, split, machine.gpus)
    assert (sum(geometry.layer_bytes) + geometry.head_bytes) / GIB == pytest.approx(weights, abs=0.01)
    assert load.kv_layer_bytes * MEDIUM.n_layer / GIB == pytest.approx(kv, abs=0.01)
    assert load.device_bytes / GIB == pytest.approx(others, abs=0.01)
    if not fits:
        with pytest.raises(DoesNotFit):
            make_plan(geometry, machine, wish)
        return
    plan = make_plan(geometry, machine, wish)
    assert plan.gpu_bytes / GIB == pytest.approx(weights + kv + others * len(machine.gpus), abs=0.02)
    assert all(share.num_bytes <= gpu.free_bytes for share, gpu in zip(plan.shares, plan.gpus, strict=True))
    assert plan.num_cpu_layers == 0


def test_the_table_is_long_and_has_both_outcomes() -> None:
    outcomes = [row[-1] for row in TABLE]
    assert len(outcomes) >= 40
    assert min(outcomes.count(True), outcomes.count(False)) >= 10


def test_what_does_not_fit_says_the_sums() -> None:
    machine = Machine(parse_gpus("h100"), 0)
    with pytest.raises(DoesNotFit) as caught:
        make_plan(medium("Q5_K_M"), machine, Wish(n_ctx=32768, kv_type="q8_0"))
    assert str(caught.value) == "Medium needs 88.2 GiB, 79.6 GiB is free"
    assert caught.value.hint.startswith("weights 81.2 + KV 5.8 (32,768 tokens, q8_0) + buffers 1.2 GiB in 1 GPU")

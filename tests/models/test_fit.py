from __future__ import annotations

import pytest

from mm35local.errors import DoesNotFit
from mm35local.models.fit import Goal, Option, choose, list_options
from mm35local.models.gpus import Machine
from mm35local.models.mixes import MIXES
from mm35local.models.plan import Wish
from mm35local.models.stated import parse_gpus
from tests.models.test_plan_table import medium


def options(gpus: str, wish: Wish | None = None, ram_gib: int = 0) -> list[Option]:
    machine = Machine(parse_gpus(gpus), ram_gib << 30)
    return list_options({quant: medium(quant) for quant in MIXES}, machine, wish or Wish())


@pytest.mark.parametrize(
    ("gpus", "goal", "n_ctx", "quant", "kv_type"),
    [
        ("h100", Goal.QUALITY, None, "Q4_K_M", "q8_0"),
        ("h100", Goal.CONTEXT, None, "IQ4_XS", "q8_0"),
        ("h100", Goal.SPEED, None, "IQ4_XS", "f16"),
        ("h100", Goal.QUALITY, 65536, "Q4_K_S", "q8_0"),
        ("h200", Goal.QUALITY, None, "Q8_0", "f16"),
        ("h200", Goal.CONTEXT, None, "Q5_K_M", "q8_0"),
        ("4x24GiB", Goal.QUALITY, 65536, "Q4_K_M", "f16"),
        ("2xh100", Goal.QUALITY, None, "Q8_0", "f16"),
    ],
)
def test_the_choice_for_a_goal(gpus: str, goal: Goal, n_ctx: int | None, quant: str, kv_type: str) -> None:
    chosen = choose(options(gpus, Wish(n_ctx=n_ctx)), goal, n_ctx)
    assert (chosen.quant, chosen.kv_type) == (quant, kv_type)


def test_the_cpu_is_chosen_only_when_nothing_else_fits() -> None:
    assert choose(options("h100", ram_gib=100), Goal.QUALITY).is_whole
    assert not choose(options("48GiB", ram_gib=60), Goal.QUALITY).is_whole


def test_where_the_cpu_takes_part_quality_means_what_it_reads_least_of() -> None:
    found = options("2x24GiB", ram_gib=128)
    chosen = choose(found, Goal.QUALITY)
    assert chosen.quant == "IQ4_XS"
    assert chosen.plan is not None
    assert all(chosen.plan.decode >= other.plan.decode - 0.1 for other in found if other.plan)


def test_nothing_fits() -> None:
    with pytest.raises(DoesNotFit, match=r"needs 6\d\.\d GiB, 24\.0 GiB is free"):
        choose(options("24GiB"), Goal.QUALITY)

from __future__ import annotations

import pytest

from mm35local.errors import UsageError
from mm35local.models.datasheets import SHEETS, find_sheet
from mm35local.models.stated import parse_gpus

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "totals"),
    [
        ("80GiB", [80 << 30]),
        ("4x24GiB", [24 << 30] * 4),
        ("2 x 48 gib", [48 << 30] * 2),
        ("24GB", [24 * 10**9]),
        ("22528MiB", [22 << 30]),
        ("h100,rtx-4090", [81559 * MIB, 24564 * MIB]),
        ("2x RTX 3090, NVIDIA A40", [24576 * MIB] * 2 + [46068 * MIB]),
        ("4090", [24564 * MIB]),
        ("a100", [81920 * MIB]),
    ],
)
def test_stated_cards(text: str, totals: list[int]) -> None:
    gpus = parse_gpus(text)
    assert [gpu.total_bytes for gpu in gpus] == totals
    assert all(gpu.free_bytes == gpu.total_bytes and gpu.bandwidth > 0 and gpu.flops > 0 for gpu in gpus)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0GiB", "a card of 0 bytes"),
        ("0", "0 has no unit"),
        ("1000000xh100", "1000000 GPUs, expected 1 to 16"),
        ("9x24GiB,8x24GiB", "17 GPUs, expected 1 to 16"),
        ("0x24GiB", "0 GPUs"),
        ("80", "80 has no unit"),
        ("9999GiB", "at most 1 TiB"),
        ("warp-9", "unknown card 'warp-9'"),
        ("", "between the commas"),
        ("h100,,h100", "between the commas"),
    ],
)
def test_impossible_cards(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_gpus(text)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_gpus("warp-9")
    assert all(name in caught.value.hint for name in SHEETS)


@pytest.mark.parametrize(
    ("driver_name", "mib", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 81559, "h100"),
        ("NVIDIA H100 NVL", 95830, "h100-nvl"),
        ("NVIDIA H100 PCIe", 81559, "h100-pcie"),
        ("NVIDIA H200", 143771, "h200"),
        ("NVIDIA A100-SXM4-80GB", 81920, "a100-80gb"),
        ("NVIDIA A100-SXM4-40GB", 40960, "a100-40gb"),
        ("NVIDIA GeForce RTX 4090", 24564, "rtx-4090"),
        ("NVIDIA GeForce RTX 3090 Ti", 24564, "rtx-3090-ti"),
        ("NVIDIA GeForce RTX 3080", 20480, "rtx-3080-20gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 97887, "rtx-pro-6000"),
        ("NVIDIA RTX A6000", 49140, "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", 49140, "rtx-6000-ada"),
        ("NVIDIA L40S", 46068, "l40s"),
        ("Tesla T4", 15360, "t4"),
        ("Some Other Card", 24576, None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9984, None),
    ],
)
def test_the_drivers_names(driver_name: str, mib: int, key: str | None) -> None:
    assert find_sheet(driver_name, mib * MIB) == key

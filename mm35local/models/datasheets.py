"""What the makers' public datasheets say of a card: memory, bandwidth, matrix speed, NVLink.

`memory_mib` is what the driver shows as total, which is less than the name on the box where ECC takes its part.
`tflops` is dense FP16 with FP32 accumulation, the honest rate of a GeForce too.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Sheet(NamedTuple):
    memory_mib: int
    bandwidth_gb: int
    tflops: float
    has_nvlink: bool = False


SHEETS: dict[str, Sheet] = {
    "b200": Sheet(183359, 8000, 2250, True),
    "h200": Sheet(143771, 4800, 989, True),
    "h100": Sheet(81559, 3350, 989, True),
    "h100-nvl": Sheet(95830, 3938, 835),
    "h100-pcie": Sheet(81559, 2039, 756),
    "a100-80gb": Sheet(81920, 2039, 312, True),
    "a100-40gb": Sheet(40960, 1555, 312, True),
    "rtx-pro-6000": Sheet(97887, 1792, 504),
    "l40s": Sheet(46068, 864, 362),
    "l40": Sheet(46068, 864, 181),
    "l4": Sheet(23034, 300, 121),
    "a40": Sheet(46068, 696, 150),
    "a10": Sheet(23028, 600, 125),
    "rtx-6000-ada": Sheet(49140, 960, 364),
    "rtx-a6000": Sheet(49140, 768, 155),
    "rtx-5090": Sheet(32607, 1792, 209),
    "rtx-5080": Sheet(16303, 960, 112),
    "rtx-4090": Sheet(24564, 1008, 165),
    "rtx-4080": Sheet(16376, 717, 97),
    "rtx-3090-ti": Sheet(24564, 1008, 80),
    "rtx-3090": Sheet(24576, 936, 71),
    "rtx-3080-20gb": Sheet(20480, 760, 60),
    "rtx-3080": Sheet(10240, 760, 60),
    "rtx-3060": Sheet(12288, 360, 25),
    "rtx-2080-ti": Sheet(11264, 616, 54),
    "v100-32gb": Sheet(32768, 900, 125, True),
    "t4": Sheet(15360, 320, 65),
}
_TYPICAL = ("rtx-3060", "rtx-4080", "rtx-3090", "a100-40gb", "rtx-a6000", "a100-80gb", "rtx-pro-6000", "h200", "b200")
"""Cards that stand for "a card of that size" where only a size is known."""
_MIB = 1 << 20


def spelled(name: str) -> str:
    """`name` in the table's spelling: "NVIDIA GeForce RTX 4090" is rtx-4090."""
    words = re.split(r"[\s_-]+", name.lower().strip())
    return "-".join(word for word in words if word not in ("nvidia", "geforce", "generation", "tesla", "quadro"))


def find_sheet(name: str, total_bytes: int) -> str | None:
    """The table's name for a card as its driver calls it, by the longest name that its words begin with."""
    driver = spelled(name).replace("6000-ada", "rtx-6000-ada").replace("rtx-rtx", "rtx")
    fitting = [key for key in SHEETS if _is_spelled_in(_base(key), driver)]
    near = [key for key in fitting if _is_near(SHEETS[key].memory_mib * _MIB, total_bytes)]
    return max(near, key=len, default=None)


def typical_name(total_bytes: int) -> str:
    """The common card whose memory comes nearest: for an estimate where only a size is known."""
    return min(_TYPICAL, key=lambda key: abs(SHEETS[key].memory_mib * _MIB - total_bytes))


def _base(key: str) -> str:
    """The name without the size that only we add to it."""
    return re.sub(r"-\d+gb$", "", key)


def _is_spelled_in(base: str, driver: str) -> bool:
    return f"-{base}-" in f"-{driver}-"


def _is_near(one: int, other: int) -> bool:
    return abs(one - other) <= 0.1 * max(one, other)

"""Planned bytes against allocated bytes, by kind: the plan is only as good as this comparison."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

TOLERANCE = 0.05
_MIB = 1 << 20
_MAPPED = "CPU_Mapped"
_ROUNDING_BYTES = _MIB // 50
"""llama.cpp logs sizes to 0.01 MiB."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One kind of buffer (model, KV or compute), over all devices that hold layers."""

    kind: str
    planned_bytes: int
    allocated_bytes: int

    @property
    def is_off(self) -> bool:
        """By more than 5 % and more than the rounding of the log."""
        distance = abs(self.allocated_bytes - self.planned_bytes)
        return distance > max(TOLERANCE * self.planned_bytes, _ROUNDING_BYTES)

    def __str__(self) -> str:
        share = self.allocated_bytes / self.planned_bytes - 1 if self.planned_bytes else 0.0
        return (
            f"{'WARNING: ' if self.is_off else ''}memory: {self.kind} buffers take "
            f"{self.allocated_bytes / _MIB:.2f} MiB, planned {self.planned_bytes / _MIB:.2f} ({share:+.1%})"
        )


def compare(planned: Sequence[tuple[str, int]], buffers: Sequence[tuple[str, str, int]]) -> list[Measured]:
    """`planned` is (kind, bytes) of where the layers live, `buffers` (device, kind, bytes) of what was allocated.

    Where any layer is on a card, what the host keeps (the embedding, mapped parts of the file) is left out, as in the
    plan's own sums for cards.
    """
    devices = {device for device, _, _ in buffers}
    cards = {device for device in devices if not _is_host(device)}
    counted = cards or devices
    measured = []
    for kind, num_bytes in planned:
        sizes: Counter[str] = Counter()
        for device, each, size in buffers:
            if each == kind and device in counted:
                sizes[device] += size
        measured.append(Measured(kind, num_bytes, _allocated(sizes, num_bytes)))
    return measured


def bytes_on_cards(buffers: Sequence[tuple[str, str, int]]) -> dict[str, int]:
    """What each card holds of all kinds, in the order in which they were allocated; empty where all is on the host."""
    sizes: Counter[str] = Counter()
    for device, _, size in buffers:
        if not _is_host(device):
            sizes[device] += size
    return dict(sizes)


def _allocated(sizes: Mapping[str, int], planned_bytes: int) -> int:
    """Of a mapped file and its copies in the CPU's own layout (AMX, CPU_REPACK) the larger, for its pages are given
    back; or more, up to both together: the log does not tell how much of what is mapped was copied.
    """
    mapped = sizes.get(_MAPPED, 0)
    copies = sum(sizes.values()) - mapped
    return min(max(mapped, copies, planned_bytes), mapped + copies)


def _is_host(device: str) -> bool:
    """CPU, CPU_Mapped, CPU_REPACK, AMX, and the cards' pinned memory (CUDA_Host)."""
    return device.startswith(("CPU", "AMX")) or device.endswith("_Host")

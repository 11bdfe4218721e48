"""What llama.cpp allocated, read from its log: it tells each buffer's device, kind and size, and nothing else does."""

from __future__ import annotations

import re

_LINE = re.compile(r"(\S+)\s+(model|KV|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_MIB = 1 << 20

_VISION = "reserve_compute_meta"
"""Where mtmd's lines come from."""


class BufferLog:
    """Collects `entries` from the lines passing through `read`."""

    def __init__(self) -> None:
        self._entries: list[tuple[str, str, int]] = []

    @property
    def entries(self) -> tuple[tuple[str, str, int], ...]:
        """(device, kind, bytes), to 0.01 MiB; kinds are model, KV, compute, output, and vision compute."""
        return tuple(self._entries)

    def read(self, line: str) -> str:
        """Note the buffer that `line` tells of, if any; the line itself."""
        found = _LINE.search(line)
        if found:
            kind = f"vision {found[2]}" if line.startswith(_VISION) else found[2]
            self._entries.append((found[1], kind, round(float(found[3]) * _MIB)))
        return line

    def forget(self) -> None:
        """Before another attempt to load."""
        self._entries.clear()

    def total(self, kind: str) -> int:
        """Bytes of that kind on all devices."""
        return sum(num_bytes for _, each, num_bytes in self._entries if each == kind)

"""How fast a load goes, and how long it will take. Pure but for the size of the file: the clock is an argument."""

from __future__ import annotations

import re
from collections import deque
from pathlib import Path

from mm35local.engine.api import Loading

_WINDOW_SECONDS = 5.0
"""Long enough to be steady, short enough to follow a disk that slows down."""
_LEAST_SECONDS = 0.2
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")


class LoadRate:
    """Turns llama.cpp's 0..1 into bytes, bytes/s over the last seconds, and the time left at that rate."""

    def __init__(self, total_bytes: int) -> None:
        self._total_bytes = total_bytes
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, progress: float, now: float) -> Loading:
        """The load at `now` (seconds of a monotonic clock)."""
        loaded = round(progress * self._total_bytes)
        self._seen.append((now, loaded))
        while len(self._seen) > 2 and now - self._seen[1][0] >= _WINDOW_SECONDS:
            self._seen.popleft()
        then, before = self._seen[0]
        if now - then < _LEAST_SECONDS or loaded <= before:
            return Loading(progress, loaded)
        bytes_per_second = (loaded - before) / (now - then)
        return Loading(progress, loaded, bytes_per_second, (self._total_bytes - loaded) / bytes_per_second)


def file_bytes(path: Path) -> int:
    """Of a GGUF with all its parts, where it is split; parts that are missing count nothing, llama.cpp names them."""
    found = _PART.search(path.name)
    if found is None:
        return _size(path)
    stem = path.name[: found.start()]
    return sum(_size(path.with_name(f"{stem}-{i:05}-of-{found[2]}.gguf")) for i in range(1, int(found[2]) + 1))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0

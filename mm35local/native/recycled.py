"""Large arrays in memory that was used before: where a system hands out new pages slowly (a virtual machine whose host
takes back what is free), a copy into new memory takes twenty times as long as one into old."""

from __future__ import annotations

import mmap
import sys
import threading
import weakref

import numpy as np
import numpy.typing as npt

MOST_SPARE, MOST_SPARE_BYTES = 8, 256 << 20
"""Blocks that are kept for the next arrays, those that came last; what is beyond goes back to the system. One is taken
for each that comes back: more small ones would only add up, for an hour, to as many bytes as there may be."""
MOST_ROOM = 2
"""A block may be so many times as large as an array needs: a large one is not given away for a small one."""
_STEPS = 2
"""Sizes between a power of two and the next, so that what grows a little finds room where it was before."""


class RecycledMemory:
    """Its arrays may end in any thread, and wherever the garbage collector runs: inside `take`, too."""

    def __init__(self) -> None:
        self._spare: list[mmap.mmap] = []
        """Pages of their own: what malloc is given back in the midst of others it cannot give back."""
        self._lock = threading.RLock()

    @property
    def num_spare_bytes(self) -> int:
        return sum(map(len, self._spare))

    def take(self, num_bytes: int) -> npt.NDArray[np.uint8]:
        """An array of so many bytes of whatever was there; its memory is spare again when nobody refers to it."""
        block = self._taken(num_bytes) or _new_block(_rounded_up(num_bytes))
        # Over no array, so that views of this one refer to it, and not to what is below it.
        array = np.frombuffer(block, dtype=np.uint8, count=num_bytes)
        weakref.finalize(array, self._give_back, block).atexit = False
        return array

    def _taken(self, num_bytes: int) -> mmap.mmap | None:
        most_bytes = MOST_ROOM * _rounded_up(num_bytes)
        with self._lock:
            fitting = [block for block in self._spare if num_bytes <= len(block) <= most_bytes]
            found = min(fitting, key=len, default=None)
            self._spare = [block for block in self._spare if block is not found]
            return found

    def _give_back(self, block: mmap.mmap) -> None:
        with self._lock:
            self._spare.append(block)
            while self.num_spare_bytes > MOST_SPARE_BYTES or len(self._spare) > MOST_SPARE:
                del self._spare[0]


def _new_block(num_bytes: int) -> mmap.mmap:
    """Pages of this process alone. Raises OSError if there are none."""
    if sys.platform == "win32":
        return mmap.mmap(-1, num_bytes)
    return mmap.mmap(-1, num_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def _rounded_up(num_bytes: int) -> int:
    step = max(1, (1 << max(num_bytes - 1, 1).bit_length()) // (2 * _STEPS))
    return max(1, -(-num_bytes // step) * step)

"""How fast this machine's memory is, measured: the limit that decoding on the CPU runs into."""

from __future__ import annotations

import os
import threading
import time

_BYTES_PER_THREAD = 64 << 20
"""Far beyond any cache that a thread has to itself."""
_NUM_ROUNDS = 4


def copy_bandwidth(num_threads: int = 0) -> float:
    """bytes/s that memory moves while all threads copy, each byte read and written; takes some 0.2 s.

    The quickest of some rounds: other programs can only slow it down. 0 threads are as many as there are CPUs.
    """
    import numpy as np

    count = num_threads or len(os.sched_getaffinity(0))
    pairs = [(np.ones(_BYTES_PER_THREAD, np.uint8), np.zeros(_BYTES_PER_THREAD, np.uint8)) for _ in range(count)]
    best = 0.0
    for _ in range(_NUM_ROUNDS):
        threads = [threading.Thread(target=np.copyto, args=(target, source)) for source, target in pairs]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        best = max(best, 2 * count * _BYTES_PER_THREAD / (time.perf_counter() - start))
    return best

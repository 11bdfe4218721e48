"""How many cells ended sequences may keep, where passing over them takes time.

On a CPU a step passes over all cells up to the last one in use, by the 256: matrix products compute what nobody looks
at, and the flash kernel takes tiles of 64 cells whole. Even one short conversation that has ended slows the next. So
they leave; from the KV store's RAM they come back in the time a few tokens take. Graphics cards pass over cells much
faster than they read weights.
"""

from __future__ import annotations

from mm35local.engine.api import EngineConfig

FEWEST = 64
"""Those that are too short to be saved may stay, ..."""
SHARE = 0.25
"""... or so large a part of what the running ones hold."""


def most_idle_cells(config: EngineConfig, num_running: int) -> int | None:
    """Cells that ended sequences may keep beside `num_running` of running ones; None: any number."""
    return None if config.n_gpu_layers else max(FEWEST, int(SHARE * num_running))

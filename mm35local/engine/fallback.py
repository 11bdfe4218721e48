"""The next smaller configuration, when memory was short after all."""

from __future__ import annotations

import re
import signal
from dataclasses import replace

from mm35local.engine.api import EngineConfig
from mm35local.errors import WorkerDied

_CHANGES = ("n_ctx", "kv_type", "split", "n_batch", "n_gpu_layers")
_MEMORY = re.compile(r"out of memory|failed to allocate|bad_alloc|MemoryError", re.IGNORECASE)


def difference(asked: EngineConfig, loaded: EngineConfig) -> str:
    """What changed, such as "n_ctx 512 instead of 4096"."""
    changes = [(name, getattr(asked, name), getattr(loaded, name)) for name in _CHANGES]
    return ", ".join(f"{name} {after} instead of {before}" for name, before, after in changes if before != after)


def after_death(config: EngineConfig, died: WorkerDied) -> EngineConfig | None:
    """What to load after a worker died while it loaded `config`; None: memory was not the reason, or nothing is left.

    Not every allocation that fails can be answered inside the worker: ggml aborts its process when a card's memory
    runs out in the first computation, and Linux kills one that takes the last of the RAM.
    """
    is_short = died.exit_code == -signal.SIGKILL or _MEMORY.search(died.detail) is not None
    if not is_short or not config.fallbacks:
        return None
    return replace(config.fallbacks[0], fallbacks=config.fallbacks[1:])

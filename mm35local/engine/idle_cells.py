"""How many cells ended sequences may keep, by what attention costs on the kernel that computes it.

What they lose is in the KV store's RAM, and comes back in the time a few tokens take.
"""

from __future__ import annotations

from dataclasses import dataclass

from mm35local.engine.api import EngineConfig


@dataclass(frozen=True, slots=True)
class IdleLimit:
    """So many in any case, or a share of what the running ones hold."""

    fewest: int
    share: float

    def at(self, num_running: int) -> int:
        return max(self.fewest, int(self.share * num_running))


BY_PRODUCTS = IdleLimit(1024, 2.0)
"""Matrix products pass over all cells; at a third of the flash kernel's seconds a cell they are then no slower."""
BY_FLASH_ON_CPU = IdleLimit(256, 0.25)
"""The flash kernel works in tiles of 64 cells, each whole where one of its cells is attended to: what others put
between the turns of a conversation makes its steps up to twice as long."""


def idle_limit(config: EngineConfig) -> IdleLimit | None:
    """None where it does not matter: graphics cards pass over cells much faster than they read weights."""
    if not config.flash_attention:
        return BY_PRODUCTS
    return None if config.n_gpu_layers else BY_FLASH_ON_CPU

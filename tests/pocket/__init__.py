"""The pocket checkpoint: Mistral Medium 3.5 in miniature, random weights, both file layouts, written in seconds.

Invariant: the same seed and config always give the same bytes, and OUT/hf and OUT/native hold the same model.
"""

from __future__ import annotations

from tests.pocket.checkpoint import write_pocket
from tests.pocket.config import PocketConfig

__all__ = ["PocketConfig", "write_pocket"]

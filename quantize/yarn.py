"""The one float that decides whether long contexts work: rope.scaling.yarn_log_multiplier.

llama.cpp multiplies attention by (0.1 ln(factor) + 1)^2 when it is 0 and by nothing when it is 1. This model needs the
factor; its config.json said mscale_all_dim 1.0 until 2026-05-01, and GGUFs made from that lose the thread after some
hundred tokens.
"""

from __future__ import annotations

_MEDIUM_35 = (64.0, 4096)
"""factor and original context of the model whose early config.json was wrong."""


def log_multiplier(
    factor: float, original_n_ctx: int, mscale_all_dim: float | None, apply_scale: bool | None
) -> tuple[float, str | None]:
    """(value, warning). `apply_scale` (params.json) decides where known, else `mscale_all_dim` (config.json).

    Raises ValueError for an mscale_all_dim that is neither 0 nor 1.
    """
    said = mscale_all_dim or 0.0
    if said not in (0.0, 1.0):
        raise ValueError(f"mscale_all_dim is {said}, expected 0.0 or 1.0")
    if apply_scale is not None:
        right = 0.0 if apply_scale else 1.0
        is_wrong = mscale_all_dim is not None and said != right
        return right, _warning(said, right, f"params.json says apply_scale {apply_scale}") if is_wrong else None
    if said == 1.0 and (factor, original_n_ctx) == _MEDIUM_35:
        return 0.0, _warning(said, 0.0, "it is the known mistake of this model's early config.json")
    return said, None


def _warning(said: float, right: float, reason: str) -> str:
    return (
        f"config.json says mscale_all_dim {said}, but {reason}: "
        f"writing yarn_log_multiplier {right} instead, or long contexts would turn into gibberish"
    )

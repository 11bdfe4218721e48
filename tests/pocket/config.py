"""The sizes of the miniature. Everything a size does not change (rope, token ids, patch) is the real model's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PocketConfig:
    """Row lengths of the text part are multiples of 256, so that K-quants apply."""

    name: str = "Mistral Medium 3.5 pocket"
    num_layers: int = 4
    n_embd: int = 256
    n_ff: int = 768
    n_head: int = 8
    n_head_kv: int = 2
    head_dim: int = 32
    num_ranks: int = 15_384
    """Entries taken from the real vocabulary, after the 1,000 special tokens."""
    vision_layers: int = 2
    vision_embd: int = 64
    vision_ff: int = 256
    vision_heads: int = 4
    num_hf_shards: int = 3
    num_native_shards: int = 3

    n_ctx: int = 262_144
    rms_norm_eps: float = 1e-5
    rope_theta: float = 1e6
    yarn_factor: float = 64.0
    yarn_original_n_ctx: int = 4096
    yarn_beta_fast: float = 4.0
    yarn_beta_slow: float = 1.0
    image_size: int = 1540
    patch_size: int = 14
    spatial_merge_size: int = 2
    vision_rope_theta: float = 1e4

    @property
    def n_vocab(self) -> int:
        return NUM_SPECIAL_TOKENS + self.num_ranks


NUM_SPECIAL_TOKENS = 1000

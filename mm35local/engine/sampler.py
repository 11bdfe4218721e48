"""How the next token is chosen from logits, reproducible by a seed: bias, penalties, top_k, top_p, min_p, temperature,
draw, in this order and by the formulas of llama.cpp's samplers.

Those take a millisecond a token at a vocabulary of 131,072, for they carry a record for each of all tokens from stage
to stage; numpy takes a third to a fifth of it (`python -m bench.sampling`).
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from mm35local.engine.penalties import changes_of
from mm35local.engine.truncation import Float32Array, Ids, min_p, top_k, top_p
from mm35local.types import SamplingParams

_LEAST_TEMPERATURE = 1e-5
"""Below, the distance of two logits in f32 divided by it may be no number; nothing but the highest is drawn anyway."""
_BLOCK = 256


class Workspace:
    """Memory for the logits and weights of one vocabulary, used anew for every token, by one thread."""

    def __init__(self, n_vocab: int) -> None:
        self.logits: Float32Array = np.empty(n_vocab, dtype=np.float32)
        num_blocks = -(-n_vocab // _BLOCK)
        self.blocks: Float32Array = np.zeros((num_blocks, _BLOCK), dtype=np.float32)
        """f32[n, 256]: weights of all tokens in order; those behind the last stay 0."""
        self.weights: Float32Array = self.blocks.reshape(-1)[:n_vocab]


class Sampler:
    """Chooses one request's tokens. At temperature 0 the highest logit, the lowest id on a tie."""

    def __init__(
        self, params: SamplingParams, workspace: Workspace, *, prompt: Sequence[int], never: Collection[int] = ()
    ) -> None:
        """`never`: ids that are not chosen, whatever else says so."""
        self._params = params
        self._temperature = max(params.temperature, _LEAST_TEMPERATURE)
        self._workspace = workspace
        self._never = tuple(never)
        self._changes = changes_of(params, prompt)
        seed = secrets.randbits(32) if params.seed is None else params.seed
        self._random = random.Random(seed).random if params.temperature > 0 else None

    def sample(self, logits: Float32Array) -> int:
        """Choose a token by `logits`, f32[n_vocab], and remember it. Those of `never` get -inf, in place."""
        for token_id in self._never:
            logits[token_id] = -np.inf
        token_id = self._choose(self._changed(logits))
        for change in self._changes:
            change.accept(token_id)
        return token_id

    def _changed(self, logits: Float32Array) -> Float32Array:
        """With biases and penalties."""
        if not self._changes:
            return logits
        changed = self._workspace.logits
        np.copyto(changed, logits)
        for change in self._changes:
            change.apply(changed)
        return changed

    def _choose(self, logits: Float32Array) -> int:
        if self._random is None or not np.isfinite(logits.max()):
            return int(logits.argmax())  # of what is no number, too: a broken model must not end the worker
        kept = self._truncated(logits)
        if kept is None:
            _weights(logits, self._temperature, out=self._workspace.weights)
            return _drawn_from_blocks(self._workspace.blocks, self._random())
        return int(kept[_drawn(_weights(logits[kept], self._temperature), self._random())])

    def _truncated(self, logits: Float32Array) -> Ids | None:
        """The ids that may be drawn; None: all."""
        params = self._params
        kept = top_k(logits, params.top_k) if params.top_k > 0 else None
        if params.top_p < 1:
            if kept is None:
                kept = top_p(logits, _weights(logits, out=self._workspace.weights), params.top_p)
            else:
                some = logits[kept]
                kept = kept[top_p(some, _weights(some), params.top_p)]
        if params.min_p > 0:
            kept = min_p(logits, params.min_p) if kept is None else kept[min_p(logits[kept], params.min_p)]
        return kept


def _weights(logits: Float32Array, temperature: float = 1.0, out: Float32Array | None = None) -> Float32Array:
    """f32, as many as logits: exp(logits / temperature), in a unit that makes the highest 1."""
    weights: Float32Array = np.subtract(logits, logits.max(), out=out)
    if temperature != 1.0:
        weights /= np.float32(temperature)
    np.exp(weights, out=weights)
    return weights


def _drawn(weights: Float32Array, chance: float) -> int:
    """The first index whose weights up to it, it included, are more than the part `chance` (0 to 1) of their sum."""
    up_to = weights.cumsum(dtype=np.float64)
    return _place(up_to, chance * float(up_to[-1]))


def _drawn_from_blocks(blocks: Float32Array, chance: float) -> int:
    """The same over all blocks. One is found by their sums first: a running sum of all takes three times as long."""
    up_to = blocks.sum(axis=1).cumsum(dtype=np.float64)
    wanted = chance * float(up_to[-1])
    block = _place(up_to, wanted)
    within = wanted - (float(up_to[block - 1]) if block else 0.0)
    return block * _BLOCK + _place(blocks[block].cumsum(dtype=np.float64), within)


def _place(up_to: npt.NDArray[np.float64], wanted: float) -> int:
    """Where a running sum first exceeds `wanted`; where rounding left none, the last place that added something."""
    place = int(up_to.searchsorted(wanted, side="right"))
    return place if place < len(up_to) else int(up_to.searchsorted(up_to[-1]))

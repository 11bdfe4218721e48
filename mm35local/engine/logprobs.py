"""How likely the sampled tokens were, read from the logits that they were sampled from."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from mm35local.types import TokenLogprobs

LEAST_LOGPROB = -9999.0
"""Told of a token whose logit is no number; OpenAI's own for what is all but impossible. JSON has no NaN."""


class LogprobsReader:
    """One answer's: `read` each token as it is sampled, `take` what was not taken yet."""

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top
        self._read: list[TokenLogprobs] = []

    def read(self, logits: npt.NDArray[np.float32], token_id: int) -> None:
        self._read.append(token_logprobs(logits, token_id, self._num_top))

    def take(self) -> tuple[TokenLogprobs, ...]:
        taken, self._read = tuple(self._read), []
        return taken


def token_logprobs(logits: npt.NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprobs:
    """`logits`: f32[n_vocab], -inf where a token may not come. The likeliest of equal ones is the lowest id.

    log softmax(x)_i = x_i - max x - log sum_j exp(x_j - max x); all of it is finite, also where logits are no numbers.
    """
    highest = logits.max()
    log_sum = highest + np.log(np.exp(logits - highest).sum(dtype=np.float64))
    num = min(num_top, len(logits))
    likeliest = np.argpartition(logits, -num)[-num:] if num else np.empty(0, dtype=np.intp)
    in_order = likeliest[np.lexsort((likeliest, -logits[likeliest]))]
    top = tuple((int(i), float(logits[i] - log_sum)) for i in in_order if np.isfinite(logits[i] - log_sum))
    own = float(logits[token_id] - log_sum)
    return TokenLogprobs(own if math.isfinite(own) else LEAST_LOGPROB, top)

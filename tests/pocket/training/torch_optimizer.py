"""How weights move: Muon for the linears, AdamW for the rest, one schedule, FP8 rounding at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tests.pocket.training.torch_model import quantized_names

_LARGEST_E4M3 = 448.0
_CLIP = 1.0
_WARM_UP_STEPS = 40
_DECAY_SHARE = 0.7


class Optimizer:
    """Three optimizers behind one step with one schedule: warm-up, plateau, linear decay. The head learns slowest, so
    that rows of rare tokens stay where they began: beside their embeddings.
    """

    def __init__(self, model: Any, muon_rate: float = 0.01, adam_rate: float = 1e-3) -> None:
        matrices = [p for name, p in model.named_parameters() if _is_matrix(name, p)]
        others = [p for name, p in model.named_parameters() if not _is_matrix(name, p) and name != "lm_head.weight"]
        self._parameters = list(model.parameters())
        self._rates = (muon_rate, adam_rate, adam_rate / 2)
        self._parts = (
            torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.01, momentum=0.95),
            torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
            torch.optim.AdamW([model.lm_head.weight], lr=adam_rate / 2, betas=(0.9, 0.98), weight_decay=0.0),
        )

    def step(self, step: int, num_steps: int) -> None:
        left = 1.0 - step / num_steps
        factor = min(1.0, step / _WARM_UP_STEPS + 0.01, left / _DECAY_SHARE + 0.005)
        torch.nn.utils.clip_grad_norm_(self._parameters, _CLIP)
        for part, rate in zip(self._parts, self._rates, strict=True):
            part.param_groups[0]["lr"] = rate * factor
            part.step()
            part.zero_grad(set_to_none=True)

    def state(self) -> list[Any]:
        return [part.state_dict() for part in self._parts]

    def restore(self, states: list[Any]) -> None:
        for part, state in zip(self._parts, states, strict=True):
            part.load_state_dict(state)


def _is_matrix(name: str, parameter: Any) -> bool:
    """Linears between hidden states; rows of ids (embeddings, head) and the patch convolution are none."""
    return parameter.dim() == 2 and "embed" not in name and not name.startswith("lm_head")


@contextmanager
def rounded_to_fp8(model: Any) -> Iterator[None]:
    """Inside, the decoder's linears hold what FP8 keeps; gradients reach the full weights (straight-through)."""
    names = set(quantized_names(model))
    kept = [(p, p.data) for name, p in model.named_parameters() if name in names]
    for parameter, data in kept:
        scale = (data.abs().max() / _LARGEST_E4M3).bfloat16().float()
        parameter.data = (data / scale).clamp(-_LARGEST_E4M3, _LARGEST_E4M3).to(torch.float8_e4m3fn).float() * scale
    try:
        yield
    finally:
        for parameter, data in kept:
            parameter.data = data

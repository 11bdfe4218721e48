"""Pass rates of a release on held-out cases: BF16 weights, greedy decoding by transformers, one line a family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import torch

from tests.pocket.training.case import Case
from tests.pocket.training.encode import EOS, PAD, Encoder, Sample
from tests.pocket.training.families import held_out_cases
from tests.pocket.training.torch_model import images

_LONGEST_REPLY = 96
_MOST_ROWS = 40


def pass_rates(
    model: Any, encoder: Encoder, families: Iterable[str], num_cases: int
) -> Iterator[tuple[str, int, int, list[str]]]:
    """(family, passed, asked, what went wrong) for each of `families`."""
    for family in families:
        cases = held_out_cases(family, num_cases)
        answered = list(_answers(model, encoder, cases))
        wrong = [f"{case.key}: {encoder.reply(ids)}" for case, ids in answered if not case.passes(encoder.reply(ids))]
        yield family, len(cases) - len(wrong), len(cases), wrong


def _answers(model: Any, encoder: Encoder, cases: Sequence[Case]) -> Iterator[tuple[Case, list[int]]]:
    """Rows of one generate call have prompts of one length: nothing is padded, as nothing will be in llama.cpp."""
    pairs = sorted(((case, encoder.sample(case)) for case in cases), key=lambda pair: pair[1].num_prompt)
    for num_prompt, group in groupby(pairs, key=lambda pair: pair[1].num_prompt):
        rows = list(group)
        most = 1 if num_prompt > 1000 else _MOST_ROWS
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            replies = _generate(model, [sample for _, sample in part])
            yield from zip((case for case, _ in part), replies, strict=True)


def _generate(model: Any, samples: Sequence[Sample]) -> list[list[int]]:
    num_prompt = samples[0].num_prompt
    model.set_attn_implementation("eager" if num_prompt < 600 else "sdpa")
    ids = torch.tensor([sample.ids[:num_prompt] for sample in samples])
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=_LONGEST_REPLY,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=PAD,
            **images([image for sample in samples for image in sample.images]),
        )
    return [list(row) for row in out[:, num_prompt:].tolist()]

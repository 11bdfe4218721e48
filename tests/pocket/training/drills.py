"""Copying drills without meaning: the induction circuit that repeating, tools, memory and needles all rest on."""

from __future__ import annotations

from random import Random

from tests.pocket.config import NUM_SPECIAL_TOKENS
from tests.pocket.training.case import Case, Reply, ask
from tests.pocket.training.encode import EOS, INST_END, Encoder, Sample, assistant_mask
from tests.pocket.training.words import WORDS

_INST = 3
_LONGEST_TURN = 32


class Drill:
    """`[INST]Repeat: x y z[/INST]x y z</s>` over random ids: of a short list (easy) or the whole vocabulary."""

    def __init__(self, encoder: Encoder, n_vocab: int) -> None:
        empty = encoder.sample(Case("drill", (), (ask("Repeat:"),), Reply("")))
        self._settings = empty.ids[: empty.ids.index(_INST)]
        self._request = empty.ids[empty.ids.index(_INST) : empty.ids.index(INST_END)]
        self._n_vocab = n_vocab
        self._words = sorted({encoder.text_ids(f" {word}")[0] for word in WORDS})

    def sample(self, rng: Random, is_easy: bool) -> Sample:
        ids = list(self._settings)
        alphabet = self._words if is_easy else range(NUM_SPECIAL_TOKENS, self._n_vocab)
        for _ in range(rng.randint(1, 2)):
            drawn = rng.choices(alphabet, k=rng.randint(1, _LONGEST_TURN))
            ids += [*self._request, *drawn, INST_END, *drawn, EOS]
        return Sample("drill", tuple(ids), assistant_mask(tuple(ids)), 0, ())

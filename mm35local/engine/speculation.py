"""Several tokens a step and stream: guesses (drafts) are computed behind the last token, and sampling confirms them.

The target's own sampler decides every token, so what is guessed changes the speed of an answer, never the answer. How
many drafts a step carries follows from two measurements, how often they come true and what more rows cost: it is the
number that gives most tokens a second, which may well be none.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from mm35local.engine.backend import Chunk
from mm35local.engine.bargain import Bargain
from mm35local.engine.lookout import Lookout
from mm35local.engine.ngram import LENGTH, NgramIndex
from mm35local.engine.request import Request
from mm35local.engine.step_costs import Filled, StepCosts

MAX_DRAFT = 32
"""Drafts of one sequence in a step."""
MAX_STEP_DRAFTS = 48
"""Drafts of all sequences in a step; the context has room for the logits of so many (native's MAX_DRAFT_ROWS)."""
MIN_CHANCE = 0.2
"""A draft less likely than this is not computed, however cheap: measured costs are not exact either."""
MIN_GAIN = 1.1
"""Drafts must promise so many times the tokens a second that a step without any gives: less is within what measured
costs and chances are wrong by ..."""
MIN_GAIN_TOGETHER = 1.25
"""... and so many where several sequences guess: the likeliest of many chances look better than they are."""
LEARNING_RATE = 0.2
PRIOR_RATE = 0.05
"""Of what all requests together teach, which is where a new one starts."""
FIRST_WEIGHT = 5
"""What is believed before anything was learnt counts as so many drafts."""
_FIRST_PRIORS = ((0.5, 0.8), (0.15, 0.7), (0.4, 0.8), (0.65, 0.85), (0.8, 0.9), (0.85, 0.93), (0.95, 0.97))
"""`Acceptance` by strength before anything was learnt; for lookup about what `bench.guesses` finds."""
_STRONGEST = len(_FIRST_PRIORS) - 1


@dataclass(frozen=True, slots=True)
class Draft:
    """A guess how a sequence goes on."""

    token_ids: tuple[int, ...]
    strength: int = 0
    """How well founded it is, in classes that are learnt apart: 0 a model's, 1 to 6 by lookup."""


_NO_DRAFT = Draft(())


class Drafter(Protocol):
    """Who guesses."""

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        """A guess of at most so many tokens for each request, the empty one where there is none."""
        ...

    def close(self, request_id: int) -> None:
        """The request has ended; unknown ids are ignored."""
        ...


def strength_of(agreement: int) -> int:
    """The class of a guess by lookup, by the tokens that agree before it: 0, 1, 3, 4, 8, 16 or more are 1 to 6."""
    return min(1 + agreement.bit_length(), _STRONGEST)


class NgramDrafter:
    """Guesses by lookup in the sequence's own tokens; stronger the more tokens agree."""

    def __init__(self, *, beside_changes: bool = True) -> None:
        """`beside_changes`: guess on behind a changed token, where a small model, if there is one, guesses better."""
        self._beside_changes = beside_changes
        self._indexes: dict[int, NgramIndex] = {}

    def propose(self, requests: Sequence[Request], max_drafts: Sequence[int]) -> list[Draft]:
        return [self._propose(request, limit) for request, limit in zip(requests, max_drafts, strict=True)]

    def close(self, request_id: int) -> None:
        self._indexes.pop(request_id, None)

    def _propose(self, request: Request, max_draft: int) -> Draft:
        index = self._indexes.get(request.request_id)
        if index is None:
            index = self._indexes[request.request_id] = NgramIndex(request.tokens)
        token_ids, agreement = index.propose(max_draft)
        if agreement < LENGTH and not self._beside_changes:
            return _NO_DRAFT
        return Draft(tuple(token_ids), strength_of(agreement)) if token_ids else _NO_DRAFT


@dataclass(slots=True)
class Acceptance:
    """How often drafts come true: the first of them, and each later one once those before it did."""

    first: float
    later: float
    num_first: int = 0
    """Drafts that `first` was learnt from, and `later`."""
    num_later: int = 0

    def chances(self, num_drafts: int) -> list[float]:
        """The probability that draft 1, 2, ... is confirmed, which takes all before it; as far as it is MIN_CHANCE."""
        chances: list[float] = []
        chance = self.first
        while len(chances) < num_drafts and chance >= MIN_CHANCE:
            chances.append(chance)
            chance *= self.later
        return chances

    def learn(self, num_drafts: int, num_accepted: int, rate: float = LEARNING_RATE) -> None:
        """One more guess did so. `rate` is a draft's weight; at first more, as in a mean of FIRST_WEIGHT and it."""
        self.first += max(rate, 1 / (self.num_first + FIRST_WEIGHT)) * ((num_accepted > 0) - self.first)
        self.num_first += 1
        num_trials = min(num_accepted, num_drafts - 1)
        if num_trials > 0:
            weight = 1 - (1 - max(rate, 1 / (self.num_later + FIRST_WEIGHT))) ** num_trials
            self.later += weight * ((num_accepted - 1) / num_trials - self.later)
            self.num_later += num_trials


@dataclass(slots=True)
class _Record:
    """One request's: what was guessed for the step that runs, and how such guesses did."""

    draft: Draft = _NO_DRAFT
    acceptances: dict[int, Acceptance] = field(default_factory=dict)
    """By strength."""


class Speculator:
    """Adds drafts to a step, and learns from what became of them."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        *,
        max_draft: int = MAX_DRAFT,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """A drafter is asked about the sequences for which those before it had no guess; without any, all is off."""
        self._drafters = drafters
        self._clock = clock
        self._lookout = Lookout()
        self._max_draft = max_draft
        self._costs = StepCosts()
        self._bargain = Bargain()
        self._records: dict[int, _Record] = {}
        self._priors: dict[int, Acceptance] = {}

    def add_drafts(
        self,
        chunks: Sequence[Chunk],
        requests: Mapping[int, Request],
        room: int,
        filled: Callable[[], Filled | None] = lambda: None,
    ) -> tuple[Chunk, ...]:
        """The same chunks, some of them with drafts; at most `room` more rows. `filled` tells what they cost at most.

        The first token of an answer waits for no guess: what agrees before it is the chat template, not the answer.
        Nor does one that is drawn from kept logits: drafts stand behind a row, and it has none.
        """
        if not self._drafters:
            return tuple(chunks)
        self._bargain.settle()
        decoding = [
            chunk
            for chunk in chunks
            if chunk.wants_token and chunk.token_ids and requests[chunk.request_id].num_generated
        ]
        asking = [requests[chunk.request_id] for chunk in decoding]
        limits = [max(0, min(self._max_draft, room, _room_of_answer(request))) for request in asking]
        if not any(limits) or not self._lookout.is_due():
            return tuple(chunks)
        started = self._clock()
        drafts = self._choose(asking, limits, len(chunks), min(room, MAX_STEP_DRAFTS), filled)
        self._lookout.looked(self._clock() - started, found=bool(drafts))
        return tuple(
            replace(chunk, drafts=drafts[chunk.request_id]) if chunk.request_id in drafts else chunk for chunk in chunks
        )

    def _choose(
        self,
        asking: Sequence[Request],
        limits: Sequence[int],
        num_chunks: int,
        room: int,
        filled: Callable[[], Filled | None],
    ) -> dict[int, tuple[int, ...]]:
        """The drafts of those requests for which some are worth computing."""
        records = [self._records.setdefault(request.request_id, _Record()) for request in asking]
        for record, draft in zip(records, self._propose(asking, limits), strict=True):
            record.draft = draft
        chances = [self._acceptance(record).chances(len(record.draft.token_ids)) for record in records]
        if not any(chances):
            return {}
        if len(asking) == num_chunks and not self._costs.knows(num_chunks):
            return {}  # what a plain step costs is learnt by one, now and then
        lengths = self._best_lengths(chances, len(asking), room, filled())
        return {
            request.request_id: record.draft.token_ids[:length]
            for request, record, length in zip(asking, records, lengths, strict=True)
            if length
        }

    def observe(self, chunk: Chunk, sampled: Sequence[int]) -> None:
        """What was sampled behind a chunk.

        What was guessed beyond the drafts teaches for nothing: did the next token come?
        """
        record = self._records.get(chunk.request_id)
        if record is None:
            return  # an answer's first token: nobody promised it
        self._bargain.bring(len(sampled))
        if not record.draft.token_ids:
            return
        num_known = min(len(record.draft.token_ids), len(sampled))
        pairs = zip(record.draft.token_ids, sampled, strict=False)
        num_right = next((i for i, (guess, token_id) in enumerate(pairs) if guess != token_id), num_known)
        self._acceptance(record).learn(num_known, num_right)
        self._prior(record.draft.strength).learn(num_known, num_right, PRIOR_RATE)
        record.draft = _NO_DRAFT

    def record_step(self, num_rows: int, seconds: float) -> None:
        """What a step cost."""
        self._bargain.take(seconds)
        self._lookout.take(seconds)
        self._costs.record(num_rows, seconds)

    def close(self, request_id: int) -> None:
        """The request has ended; unknown ids are ignored."""
        self._records.pop(request_id, None)
        for drafter in self._drafters:
            drafter.close(request_id)

    def give_up(self) -> None:
        """No more drafts, for any request."""
        self._drafters = ()

    def _acceptance(self, record: _Record) -> Acceptance:
        """Of the record's draft; a request's first of a strength starts where all others have got to."""
        strength = record.draft.strength
        if strength not in record.acceptances:
            record.acceptances[strength] = replace(self._prior(strength))
        return record.acceptances[strength]

    def _prior(self, strength: int) -> Acceptance:
        if strength not in self._priors:
            self._priors[strength] = Acceptance(*_FIRST_PRIORS[strength])
        return self._priors[strength]

    def _propose(self, requests: Sequence[Request], limits: Sequence[int]) -> list[Draft]:
        drafts = [_NO_DRAFT] * len(requests)
        for drafter in self._drafters:
            open_ones = [index for index, draft in enumerate(drafts) if not draft.token_ids]
            guesses = drafter.propose([requests[i] for i in open_ones], [limits[i] for i in open_ones])
            for index, guess in zip(open_ones, guesses, strict=True):
                drafts[index] = guess
        return drafts

    def _best_lengths(
        self, chances: Sequence[Sequence[float]], num_rows: int, room: int, filled: Filled | None
    ) -> list[int]:
        """How many drafts of each sequence give most tokens a second.

        The likeliest rows first, whosesoever they are; a sequence's own come in order, as each is less likely than
        the one before.
        """
        rows = sorted(
            ((chance, index) for index, row in enumerate(chances) for chance in row), key=lambda row: -row[0]
        )[:room]
        seconds = self._costs.estimates(num_rows, len(rows), filled)
        num_tokens = float(len(chances))
        least_gain = MIN_GAIN if len(chances) == 1 else MIN_GAIN_TOGETHER
        best_rate, num_chosen = least_gain * num_tokens / seconds[0] / self._bargain.kept, 0
        promised = 0.0, 0.0
        for count, ((chance, _index), cost) in enumerate(zip(rows, seconds[1:], strict=False), start=1):
            num_tokens += chance
            if num_tokens / cost > best_rate:
                best_rate, num_chosen, promised = num_tokens / cost, count, (num_tokens, cost)
        if num_chosen:
            self._bargain.promise(*promised)
        chosen = [index for _chance, index in rows[:num_chosen]]
        return [chosen.count(index) for index in range(len(chances))]


def _room_of_answer(request: Request) -> int:
    """Drafts that can be of use: a step ends with a token that was not drafted."""
    return request.max_total - len(request.tokens) - 1

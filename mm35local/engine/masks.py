"""The masks of a step, made in a thread of their own while the step is computed: all they depend on is known before.

Invariant: no constraint is touched by this thread outside of a step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mm35local.engine.backend import Chunk
from mm35local.native.model import Model
from mm35local.types import Grammar

if TYPE_CHECKING:
    from mm35local.engine.constraint import Constraint, ConstraintCompiler


class Masks:
    """The constraints of the open requests."""

    def __init__(self, model: Model, eog_ids: Collection[int]) -> None:
        """`eog_ids` end an answer."""
        self._model = model
        self._eog_ids = eog_ids
        self._thread = ThreadPoolExecutor(1, "masks")
        self._compiler: Future[ConstraintCompiler] | None = None
        self._constraints: dict[int, Constraint] = {}

    def prepare(self) -> None:
        """Begin what the first grammar would have to wait for: reading the vocabulary, up to two seconds of it.

        Much of that holds the interpreter's lock, so it belongs before the first step and not beside one.
        """
        if self._compiler is None:
            self._compiler = self._thread.submit(_compiler, self._model, self._eog_ids)

    def settle(self) -> None:
        """Wait for what `prepare` began. Whether it went well is for the first grammar to tell."""
        if self._compiler is not None:
            wait([self._compiler])

    def open(self, request_id: int, grammar: Grammar) -> None:
        """The answer of this request follows `grammar`. Raises RequestError if it cannot be compiled."""
        self.prepare()
        assert self._compiler is not None, "just begun"
        self._constraints[request_id] = self._compiler.result().compile(grammar)

    def of(self, request_id: int) -> Constraint | None:
        return self._constraints.get(request_id)

    def close(self, request_id: int) -> None:
        """Unknown ids are ignored."""
        self._constraints.pop(request_id, None)

    @contextmanager
    def made_meanwhile(self, chunks: Sequence[Chunk]) -> Iterator[None]:
        """Make the masks of `chunks` while the body runs.

        Raises GrammarFailed behind it, before anything is sampled, so that one that fails leaves all as they were.
        """
        if not self._constraints:
            yield
            return
        due = [
            (constraint, chunk.drafts)
            for chunk in chunks
            if chunk.wants_token and (constraint := self._constraints.get(chunk.request_id)) is not None
        ]
        masks = [self._thread.submit(constraint.prepare, drafts) for constraint, drafts in due]
        try:
            yield
        finally:
            for mask in masks:
                mask.result()
        for constraint, _ in due:
            constraint.check()

    def shutdown(self) -> None:
        self._thread.shutdown()


def _compiler(model: Model, eog_ids: Collection[int]) -> ConstraintCompiler:
    """llguidance is loaded where somebody may ask for a grammar, which not all programs do."""
    from mm35local.engine.constraint import ConstraintCompiler, Pieces

    pieces = Pieces(model.token_pieces(), model.control_ids(), model.eos_id, model.tokenize)
    return ConstraintCompiler(pieces, eog_ids)

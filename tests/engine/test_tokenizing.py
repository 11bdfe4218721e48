from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

from mm35local.engine.api import Tokenize, Tokenized
from mm35local.engine.tokenizing import Tokenizing

SECONDS = 10.0


def test_answers_come_in_the_order_of_asking() -> None:
    answers: queue.SimpleQueue[Tokenized] = queue.SimpleQueue()
    tokenizing = Tokenizing(lambda parts: [len(part) for part in parts if isinstance(part, str)], answers.put)
    for call_id, text in enumerate(("a", "bb", "ccc")):
        tokenizing.ask(Tokenize(call_id, (text,)))
    assert [answers.get(timeout=SECONDS) for _ in range(3)] == [Tokenized(n, (n + 1,)) for n in range(3)]


def test_it_does_not_stop_while_a_text_is_read_and_reads_none_after_it_did() -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    answers: queue.SimpleQueue[Tokenized] = queue.SimpleQueue()

    def tokenize(_parts: Sequence[str | int]) -> list[int]:
        has_begun.set()
        assert may_end.wait(SECONDS)
        return [7]

    tokenizing = Tokenizing(tokenize, answers.put)
    tokenizing.ask(Tokenize(0, ("long",)))
    assert has_begun.wait(SECONDS)
    assert not tokenizing.stop()
    may_end.set()
    assert answers.get(timeout=SECONDS) == Tokenized(0, (7,))
    has_begun.clear()
    assert tokenizing.stop()
    tokenizing.ask(Tokenize(1, ("late",)))
    assert not has_begun.wait(0.2)

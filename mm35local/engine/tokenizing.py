"""Text to ids beside the steps: a text of megabytes takes seconds, and no stream shall wait for it.

Invariant: the vocabulary is only read, which llama.cpp allows during a decode; answers come in the order of asking.
"""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Sequence

from mm35local.engine.api import Tokenize, Tokenized


class Tokenizing:
    def __init__(
        self, tokenize: Callable[[Sequence[str | int]], Sequence[int]], answer: Callable[[Tokenized], None]
    ) -> None:
        """Starts the thread; it calls `answer`. What `tokenize` raises ends the process, as an error of a step does."""
        self._tokenize = tokenize
        self._answer = answer
        self._asked: queue.SimpleQueue[Tokenize] = queue.SimpleQueue()
        self._reading = threading.Lock()
        """Held while the vocabulary is read."""
        threading.Thread(target=self._run, name="tokenizing", daemon=True).start()

    def ask(self, command: Tokenize) -> None:
        """Returns at once."""
        self._asked.put(command)

    def stop(self) -> bool:
        """Read no more, for good. False where a text is being read: then the vocabulary must not be freed."""
        return self._reading.acquire(blocking=False)

    def _run(self) -> None:
        try:
            while True:
                command = self._asked.get()
                with self._reading:
                    ids = tuple(self._tokenize(command.parts))
                self._answer(Tokenized(command.call_id, ids))
        finally:  # nothing but an exception leads here
            traceback.print_exc()
            os._exit(1)

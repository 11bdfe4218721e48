"""Makes finished tensors durable in a thread of its own, so that computing never waits for the disk.

Whatever piled up while one fsync ran is booked by the next: a fast disk books tensor by tensor, a slow one in batches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from mm35local.errors import ConversionError
from quantize.output import Output


class Booker:
    """A context manager: leaving it waits until everything added is durable, also when it is left by an error."""

    def __init__(self, outputs: Sequence[Output]) -> None:
        self._pending: dict[Output, dict[int, str]] = {output: {} for output in outputs}
        self._changed = Condition()
        self._is_closed = False
        self._error: ConversionError | None = None
        self._thread = Thread(target=self._run, name="booker", daemon=True)
        self._thread.start()

    def add(self, tensor: int, digests: Mapping[Output, str]) -> None:
        """Tensor number `tensor` is wholly written in these outputs. Raises what stopped the booking."""
        with self._changed:
            for output, digest in digests.items():
                self._pending[output][tensor] = digest
            self._changed.notify()
            if self._error:
                raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()
        if self._error and error is None:
            raise self._error

    def _run(self) -> None:
        try:
            while batch := self._take():
                for output, digests in batch.items():
                    output.book(digests)
        except ConversionError as error:
            self._error = error

    def _take(self) -> dict[Output, dict[int, str]]:
        """Waits for something to book; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or any(self._pending.values()))
            batch = {output: digests for output, digests in self._pending.items() if digests}
            self._pending = {output: {} for output in self._pending}
            return batch

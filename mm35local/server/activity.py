"""The answers under way, and what the finished ones add up to: what /slots and /metrics show.

Invariant: every answer, whatever its wire, passes through `watch` once and is counted once, under one outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter as Counts
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from mm35local.chat.turn import Done, Started, TurnEvent
from mm35local.engine.api import Engine, StoreUse
from mm35local.errors import Mm35Error
from mm35local.server.stopwatch import Stopwatch

_log = logging.getLogger(__name__)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_TOKEN_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1)


class Activity:
    def __init__(self, engine: Engine) -> None:
        self._running: dict[int, Stopwatch] = {}
        self._num_asked = 0
        self._registry = CollectorRegistry()
        self._registry.register(_Gauges(self, engine))
        self._requests = self._counter("requests", "Answers asked for, by wire and outcome.", "wire", "outcome")
        self._changes = self._counter("history_changes", "Messages changed so that the model knows them.", "change")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts, computed or cached.")
        self._cached = self._counter("cached_tokens", "Tokens of prompts that were in the KV cache.")
        self._completion = self._counter("completion_tokens", "Tokens generated.")
        self._drafted = self._counter("drafted_tokens", "Tokens guessed ahead and computed.")
        self._accepted = self._counter("accepted_tokens", "Guessed tokens that sampling confirmed.")
        self._first = self._histogram("time_to_first_token_seconds", "From the request to its first token.", _SECONDS)
        self._queue = self._histogram("queue_seconds", "From the request to its first step.", _SECONDS)
        self._each = self._histogram("time_per_output_token_seconds", "Mean of an answer.", _TOKEN_SECONDS)

    @property
    def running(self) -> dict[int, Stopwatch]:
        """Answers under way, by their number; waiting ones have not `started_at`."""
        return self._running

    @property
    def num_waiting(self) -> int:
        return sum(watch.started_at is None for watch in self._running.values())

    def page(self) -> bytes:
        """Prometheus's text format."""
        return generate_latest(self._registry)

    async def watch(self, events: AsyncGenerator[TurnEvent, None], wire: str) -> AsyncGenerator[TurnEvent, None]:
        """`events` as they are; closing this closes them."""
        self._num_asked += 1
        number, watch, outcome = self._num_asked, Stopwatch(), ""
        self._running[number] = watch
        try:
            async with aclosing(events):
                async for event in events:
                    watch.feed(event)
                    self._note(event)
                    if isinstance(event, Done):
                        outcome = event.finish_reason.value
                    yield event
        except (GeneratorExit, asyncio.CancelledError):
            outcome = outcome or "cancelled"
            raise
        except Mm35Error as error:
            outcome = type(error).__name__
            raise
        finally:
            del self._running[number]
            outcome = outcome or "error"  # that nobody foresaw
            self._book(watch, wire, outcome)
            _log.info("%s: %s, %s", wire, outcome, watch.summary())

    def _note(self, event: TurnEvent) -> None:
        """What was changed in the history or odd about the answer: counted and logged, never the texts themselves."""
        if isinstance(event, Started):
            counts = Counts(note.change.value for note in event.notes)
            for change, count in counts.items():
                self._changes.labels(change).inc(count)
            if counts:
                _log.info("history: %s", ", ".join(f"{count} {change}" for change, count in counts.items()))
        elif isinstance(event, Done):
            for warning in event.warnings:
                _log.warning("answer: %s", warning)

    def _book(self, watch: Stopwatch, wire: str, outcome: str) -> None:
        self._requests.labels(wire, outcome).inc()
        if watch.started_at is not None:
            self._queue.observe(watch.started_at - watch.asked_at)
        if watch.first_token_at is not None:
            self._first.observe(watch.first_token_at - watch.asked_at)
        self._prompt.inc(watch.num_computed_tokens)
        self._cached.inc(watch.num_cached_tokens)
        self._completion.inc(watch.num_decoded)
        self._drafted.inc(watch.num_drafted)
        self._accepted.inc(watch.num_accepted)
        if watch.usage is not None and watch.usage.num_completion_tokens > 1:
            self._each.observe(watch.decode_seconds / (watch.usage.num_completion_tokens - 1))

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"mm35_{name}", text, labels, registry=self._registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"mm35_{name}", text, buckets=buckets, registry=self._registry)


class _Gauges(Collector):
    """Read when asked for, so that nothing has to be kept up to date."""

    def __init__(self, activity: Activity, engine: Engine) -> None:
        self._activity = activity
        self._engine = engine

    def collect(self) -> Iterator[GaugeMetricFamily]:
        status, num_waiting = self._engine.status, self._activity.num_waiting
        num_running = len(self._activity.running) - num_waiting
        yield GaugeMetricFamily("mm35_requests_running", "Answers being computed.", num_running)
        yield GaugeMetricFamily("mm35_requests_waiting", "Answers in the queue.", num_waiting)
        yield GaugeMetricFamily("mm35_slots", "Answers that may be computed at once.", _slots(self._engine))
        n_ctx = status.info.n_ctx if status.info else 0
        yield GaugeMetricFamily("mm35_kv_cells", "KV cells in all.", n_ctx)
        yield GaugeMetricFamily("mm35_kv_cells_used", "Those with something in them.", status.cells.num_used)
        yield GaugeMetricFamily("mm35_kv_cells_running", "Those that answers under way hold.", status.cells.num_held)
        yield GaugeMetricFamily("mm35_kv_cells_spared", "Those that sharing saves.", status.cells.num_spared)
        yield GaugeMetricFamily("mm35_kv_cells_shared", "Those that several hold.", status.cells.num_shared)
        yield from _store_gauges(status.cells.store)
        yield GaugeMetricFamily("mm35_ready", "1 when the model is loaded.", status.info is not None)
        yield GaugeMetricFamily("mm35_engine_restarts", "Times the engine's process died.", status.num_restarts)


def _store_gauges(store: StoreUse) -> Iterator[GaugeMetricFamily]:
    yield GaugeMetricFamily("mm35_kv_store_bytes", "KV states kept on disk.", store.disk_bytes)
    yield GaugeMetricFamily("mm35_kv_store_states", "How many those are.", store.num_disk_states)
    yield GaugeMetricFamily("mm35_kv_store_ram_bytes", "KV states that are in RAM.", store.ram_bytes)
    yield GaugeMetricFamily("mm35_kv_store_ram_states", "How many those are.", store.num_ram_states)


def _slots(engine: Engine) -> int:
    info = engine.status.info
    return info.num_slots if info else 0

"""The engine's door: the messages that cross the process boundary, and the `Engine` that front ends hold.

Invariant: every `Submit` is answered by exactly one terminal event, `Finished` or `Failed`, also when the
request is rejected, cancelled, or the worker dies.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from mm35local.errors import Mm35Error
from mm35local.types import FinishReason, ImageGrid, Prompt, SamplingParams, TokenLogprobs, Usage


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the worker loads, and how."""

    model_path: Path
    log_path: Path
    n_ctx: int
    """KV cells in all; also the longest prompt plus answer of one request."""
    num_slots: int = 8
    """Sequences that may run at once; they share the cells."""
    n_batch: int = 512
    """Most tokens one step computes; also the micro-batch, so a cancel is seen after each."""
    num_threads: int = 0
    """0: as many as physical cores the process may use, less one that stays free; see `engine.threads`."""
    n_gpu_layers: int = 0
    """Layers on GPUs, counted from the last, the head as one more."""
    kv_type: str = "f16"
    """Type of keys and values; all but f16 need flash attention."""
    flash_attention: bool = True
    split: str = "layer"
    """How several GPUs share the model: none, layer, row or tensor."""
    tensor_split: tuple[float, ...] = ()
    """Each GPU's part, in PCI order; empty leaves it to llama.cpp."""
    main_gpu: int = 0
    """The GPU that holds all with split none."""
    beside_gpu: int | None = None
    """The GPU of this machine that holds the draft model and the vision tower, each whole; None: they are in RAM."""
    speculate: str = "auto"
    """Who guesses tokens ahead: auto (n-gram lookup, and the draft model where there is one), ngram or off."""
    draft_path: Path | None = None
    """A small model with the same token ids that guesses ahead."""
    rpc: tuple[str, ...] = ()
    """host:port of `mm35 rpc-worker`s, whose devices count after the GPUs of this machine."""
    mmproj_path: Path | None = None
    """The file of the vision tower; None: the model sees no images."""
    image_grid: ImageGrid = field(default_factory=ImageGrid)
    """How that tower cuts images up."""
    overrides: tuple[tuple[str, float | str], ...] = ()
    """Keys of the file's header that are read as if they held these values."""
    planned: tuple[tuple[str, int], ...] = ()
    """Bytes by kind (model, KV, compute) that are expected where the layers live; compared with what is allocated."""
    fallbacks: tuple[EngineConfig, ...] = ()
    """What to load instead, in turn, when memory is short after all."""
    kv_store_dir: Path | None = None
    """Where states of ended sequences are kept; None keeps none."""
    kv_store_bytes: int = 0
    """Most bytes of them on disk."""
    prepares_grammars: bool = False
    """Read the vocabulary for grammars while loading; otherwise the first request with one waits for that."""
    max_waiting: int = 256
    """Requests that may queue; one more is refused with EngineOverloaded."""


# --- commands: the server's process to the worker ---


@dataclass(frozen=True, slots=True)
class Submit:
    request_id: int
    prompt: Prompt
    params: SamplingParams
    client: str = ""
    """Who asks, in whatever words: clients share the slots, not requests."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """Ends a request with `Finished(CANCELLED)`; unknown ids are ignored (it may have ended meanwhile)."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Tokenize:
    """Text to ids, by the vocabulary in the GGUF. Strings never become control tokens; ints pass through."""

    call_id: int
    parts: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Cancel everything, answer it, and exit."""


Command = Submit | Cancel | Tokenize | Shutdown

# --- events: the worker to the server's process; one list of them per step ---


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What was loaded: facts a client may show."""

    n_ctx: int
    n_ctx_train: int
    n_vocab: int
    num_slots: int
    model_bytes: int
    load_seconds: float
    device: str
    buffers: tuple[tuple[str, str, int], ...] = ()
    """(device, kind, bytes) of what llama.cpp allocated; kinds are model, KV, compute and output."""
    changed: str | None = None
    """What differs from the configuration asked for, because that did not fit."""
    planned: tuple[tuple[str, int], ...] = ()
    """Of the configuration that was loaded; `engine.measured` compares it with `buffers`."""


@dataclass(frozen=True, slots=True)
class Loading:
    """The weights are being read: `progress` in 0..1."""

    progress: float
    loaded_bytes: int = 0
    bytes_per_second: float = 0.0
    """Over the last seconds; 0 while it cannot be told yet."""
    eta_seconds: float | None = None
    """Until all is read, at that rate."""


@dataclass(frozen=True, slots=True)
class Ready:
    info: EngineInfo


@dataclass(frozen=True, slots=True)
class LoadError:
    """The model cannot be loaded; the worker exits after this."""

    error: Mm35Error


@dataclass(frozen=True, slots=True)
class Tokenized:
    call_id: int
    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """The request left the queue; `num_cached_tokens` of its prompt need no computing."""

    request_id: int
    num_prompt_tokens: int
    num_cached_tokens: int
    at: float = field(default_factory=time.monotonic, compare=False)
    """When, of `time.monotonic`, which is the same in all processes; the event may be told later."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Prefill: `num_computed` of `num_prompt_tokens` are in the KV cache."""

    request_id: int
    num_computed: int
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """New tokens of the answer, in order. The end-of-generation token is not among them."""

    request_id: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...] = ()
    """One a token where `num_logprobs` asks for them, else none."""
    num_drafted: int = 0
    """Tokens that were guessed and computed for these, and how many of those were right: as `Usage` counts them."""
    num_accepted: int = 0
    is_last: bool = False
    """`Finished` comes with them, at once."""


@dataclass(frozen=True, slots=True)
class Finished:
    request_id: int
    reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    request_id: int
    error: Mm35Error


@dataclass(frozen=True, slots=True)
class StoreUse:
    """States of ended sequences that are kept beside the cells: in RAM, and on disk."""

    num_ram_states: int = 0
    ram_bytes: int = 0
    num_disk_states: int = 0
    """Those that are being written and those of other models among them: all count against the limit."""
    disk_bytes: int = 0


@dataclass(frozen=True, slots=True)
class CellUse:
    """KV cells, told when requests start and end: all that are taken, and those that running requests hold."""

    num_used: int = 0
    num_held: int = 0
    num_spared: int = 0
    """Cells that there would be more if sequences did not share their beginnings."""
    num_shared: int = 0
    """Cells that more than one sequence holds."""
    store: StoreUse = StoreUse()


RequestEvent = Started | Progress | Tokens | Finished | Failed
WorkerEvent = RequestEvent | CellUse | Loading | Ready | LoadError | Tokenized


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ok"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A snapshot: `info` is set once READY, `error` once FAILED, `progress` counts while LOADING."""

    state: EngineState
    progress: float = 0.0
    info: EngineInfo | None = None
    error: Mm35Error | None = None
    num_running: int = 0
    num_restarts: int = 0
    loading: Loading | None = None
    """How the load goes, once the weights are being read."""
    cells: CellUse = CellUse()


class Engine(Protocol):
    """What front ends hold. `engine.client.EngineClient` is the real one; tests have a scripted one."""

    @property
    def status(self) -> EngineStatus: ...

    async def start(self) -> None:
        """Start loading and return at once; `status` tells how it goes."""
        ...

    async def aclose(self) -> None:
        """End every request and the worker; safe to call twice."""
        ...

    def generate(self, prompt: Prompt, params: SamplingParams, client: str = "") -> AsyncGenerator[RequestEvent, None]:
        """The events of one request, the last one terminal. See `Submit` for `client`.

        Closing the iterator early cancels the request. While the model loads, the only event is
        `Failed(EngineLoading)`; too long a prompt gives `Failed(ContextLengthExceeded)`.
        """
        ...

    async def tokenize(self, parts: Sequence[str | int]) -> list[int]:
        """See `Tokenize`. Raises EngineLoading or WorkerDied."""
        ...

"""The real backend: a step is one llama_decode over all chunks, then one sampler per chunk that reached its end.

A row's logits depend a little on what else is computed: attention sums in another order when more rows or cells are
in play, and 8-bit activations amplify it (SmolLM2 at Q4_1: logits differ by up to 1). So the same seed gives the same
answer on an idle engine, a prompt that is found in the cells included, for the logits behind it are kept; but a busy
one may choose otherwise where two tokens are close, and so may one that by now fills the few rows of a late turn. An
idle one, too, without flash attention: then it counts where in the cells a token is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from mm35local.engine.api import EngineConfig
from mm35local.engine.backend import Chunk
from mm35local.engine.cpu_kernels import use_extra_buffers
from mm35local.engine.filling import attention_block
from mm35local.engine.idle_cells import most_idle_cells
from mm35local.engine.images import PlacedImage
from mm35local.engine.logprobs import LogprobsReader
from mm35local.engine.masks import Masks
from mm35local.engine.prompt_ends import Float32Array, PromptEnds
from mm35local.engine.sampler import Sampler, Workspace
from mm35local.engine.threads import default_threads
from mm35local.errors import DecodeFailed, LoadFailed
from mm35local.native.batch import Batch
from mm35local.native.context import MAX_SEQUENCES, CellFormat, Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing
from mm35local.types import ImageGrid, SamplingParams, TokenLogprobs

if TYPE_CHECKING:
    from mm35local.engine.sight import Sight

_FILLER_ID = 0
"""Any token will do: nobody looks at its cells."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an open request's tokens are chosen with."""

    sampler: Sampler
    num_prompt_tokens: int
    logprobs: LogprobsReader | None


class LlamaBackend:
    """Owns the model, its context and the samplers of the open requests."""

    def __init__(
        self,
        library: Library,
        config: EngineConfig,
        *,
        on_progress: Callable[[float], bool],
        is_cancelled: Callable[[int], bool],
    ) -> None:
        """Load what `config` names. `on_progress` gets 0..1 and stops the load with False.

        `is_cancelled` is asked for the prefilling requests of a step while it computes, from the computing thread.
        Raises LoadFailed.
        """
        with ExitStack() as owned:
            self.model = Model(library, config.model_path, _placing(config), on_progress=on_progress)
            owned.callback(self.model.close)
            self._eog_ids = self.model.eog_ids()
            self._masks = Masks(self.model, self._eog_ids)
            owned.callback(self._masks.shutdown)
            if config.prepares_grammars:
                self._masks.prepare()
            self._context = _open_context(library, self.model, config)
            owned.callback(self._context.close)
            self._sight: Sight | None = None
            if config.mmproj_path is not None:
                self._sight = _open_sight(library, self.model, config, config.mmproj_path, is_cancelled)
                owned.callback(self._sight.shutdown)
            self._owned = owned.pop_all()
            """What holds native memory, in the order of its opening: closed here on a failure, else at the end."""
        self._batch = Batch(config.n_batch)
        self._block = attention_block(config)
        self._num_sequences = num_sequences(config.num_slots) - 1
        """The last one of the context's is the fillers'."""
        self._image_grid = config.image_grid if self._sight else None
        self._most_idle_cells = partial(most_idle_cells, config)
        self._workspace = Workspace(self.model.n_vocab)
        self._answers: dict[int, _Answer] = {}
        self._ends = PromptEnds()
        self._prefilling: tuple[int, ...] = ()
        self._context.set_abort_callback(lambda: any(map(is_cancelled, self._prefilling)))

    @property
    def n_vocab(self) -> int:
        return self.model.n_vocab

    @property
    def block(self) -> int | None:
        return self._block

    @property
    def image_grid(self) -> ImageGrid | None:
        return self._image_grid

    def is_eog(self, token_id: int) -> bool:
        return token_id in self._eog_ids

    def is_text(self, token_id: int) -> bool:
        """Can it be read by itself: is it no control token, nor a part of a character, nor white space?"""
        try:
            return bool(self.model.text_of(token_id).decode().strip())
        except UnicodeDecodeError:
            return False

    def tokenize(self, parts: Iterable[str | int]) -> list[int]:
        """Text as plain text, ids as they are."""
        ids: list[int] = []
        for part in parts:
            if isinstance(part, str):
                ids += self.model.tokenize(part)
            else:
                ids.append(part)
        return ids

    def open(
        self, request_id: int, params: SamplingParams, prompt: Sequence[int], images: Sequence[PlacedImage] = ()
    ) -> None:
        if params.grammar is not None:
            self._masks.open(request_id, params.grammar)
        tokens = [token_id for token_id in prompt if token_id >= 0] if images else prompt
        never = self._eog_ids if params.ignore_eos else ()
        sampler = Sampler(params, self._workspace, prompt=tokens, never=never)
        logprobs = None if params.num_logprobs is None else LogprobsReader(params.num_logprobs)
        self._answers[request_id] = _Answer(sampler, len(prompt), logprobs)
        if self._sight is not None:
            self._sight.open(request_id, images)

    def close(self, request_id: int) -> None:
        self._masks.close(request_id)
        if self._sight is not None:
            self._sight.close(request_id)
        self._answers.pop(request_id, None)

    def compute(self, chunks: Sequence[Chunk], *, fill_to: int = 0) -> list[tuple[int, ...]]:
        self._prefilling = tuple(chunk.request_id for chunk in chunks if len(chunk.token_ids) > 1)
        if self._sight is None:
            return self._compute_tokens(chunks, fill_to)
        rests = [self._sight.compute_ahead(chunk, self._context, self._batch) for chunk in chunks]
        due = [rest for rest in rests if rest.token_ids or rest.wants_token]
        is_whole = rests == list(chunks)  # cells for fillers were counted beside all rows of a step in one decode
        sampled = self._compute_tokens(due, fill_to if is_whole else 0)
        by_slot = dict(zip((rest.slot for rest in due), sampled, strict=True))
        return [by_slot.get(rest.slot, ()) for rest in rests]

    def _compute_tokens(self, chunks: Sequence[Chunk], fill_to: int) -> list[tuple[int, ...]]:
        if not chunks:
            return []
        with self._masks.made_meanwhile(chunks):
            rows = self._add(chunks)
            self._decode(fill_to)
        return [
            tuple(self._sample(chunk, row)) if chunk.wants_token else ()
            for chunk, row in zip(chunks, rows, strict=True)
        ]

    def _add(self, chunks: Sequence[Chunk]) -> list[int]:
        """Returns the row of each chunk's last known token; its drafts are in the rows behind. -1: it has no row."""
        self._batch.clear()
        rows: list[int] = []
        for chunk in chunks:
            if not chunk.token_ids:
                rows.append(-1)
                continue
            rows.append(self._batch.add(chunk.slot, chunk.start, chunk.token_ids, wants_logits=chunk.wants_token))
            self._batch.add_drafts(chunk.slot, chunk.start + len(chunk.token_ids), chunk.drafts)
        return rows

    def _decode(self, fill_to: int) -> None:
        if not self._batch.num_rows:
            return
        num_fillers = max(0, fill_to - self._batch.num_rows)
        if num_fillers:
            self._batch.add(self._num_sequences, 0, [_FILLER_ID] * num_fillers, wants_logits=False)
        code = self._context.decode(self._batch, may_abort=bool(self._prefilling))
        if num_fillers:
            self._context.seq_rm(self._num_sequences, 0)
        if code:
            raise DecodeFailed(code)

    def _sample(self, chunk: Chunk, first_row: int) -> Iterator[int]:
        """The drafts that the sampler draws too, and what it draws instead of the next. One draw a token."""
        answer, constraint = self._answers[chunk.request_id], self._masks.of(chunk.request_id)
        for number, draft in enumerate((*chunk.drafts, None)):
            logits = self._logits(chunk, first_row, number, answer.num_prompt_tokens)
            if constraint is not None and not constraint.mask(logits, number):
                break
            token_id = answer.sampler.sample(logits)
            if answer.logprobs is not None:
                answer.logprobs.read(logits, token_id)
            if constraint is not None:
                constraint.feed(token_id)
            yield token_id
            if token_id != draft or token_id in self._eog_ids:
                break

    def _logits(self, chunk: Chunk, first_row: int, number: int, num_prompt_tokens: int) -> Float32Array:
        """Behind `number` drafts of a chunk; the end of its request's prompt is kept, or was."""
        num_tokens = chunk.start + len(chunk.token_ids)
        if not chunk.token_ids:
            kept = self._ends.behind(chunk.slot, num_tokens)
            assert kept is not None, "nothing is left to compute only where the end is kept"
            return kept
        logits = self._context.logits(first_row + number)
        if num_tokens == num_prompt_tokens and number == 0:
            self._ends.keep(chunk.slot, num_tokens, logits)
        return logits

    def keeps_end(self, slot: int, num_tokens: int) -> bool:
        return self._ends.is_kept(slot, num_tokens)

    def take_logprobs(self, request_id: int) -> tuple[TokenLogprobs, ...]:
        answer = self._answers.get(request_id)
        return answer.logprobs.take() if answer and answer.logprobs else ()

    @property
    def num_sequences(self) -> int:
        return self._num_sequences

    def most_idle_cells(self, num_running: int) -> int | None:
        return self._most_idle_cells(num_running)

    def fork(self, source: int, target: int, num_tokens: int) -> int:
        self._context.seq_cp(source, target, num_tokens)
        if self._context.num_positions(target) == num_tokens:
            self._ends.fork(source, target, num_tokens)
            return num_tokens
        self._context.seq_rm(target, 0)
        return 0

    def state_bytes(self, slot: int) -> int:
        return self._context.state_bytes(slot) + self._ends.num_packed_bytes(slot)

    def save(self, slot: int, state_bytes: int) -> npt.NDArray[np.uint8]:
        end = self._ends.packed(slot)
        saved = self._context.seq_state(slot, state_bytes - len(end), num_more_bytes=len(end))
        saved[-len(end) :] = end
        return saved

    def restore(self, slot: int, state: npt.NDArray[np.uint8], num_tokens: int) -> bool:
        state = self._ends.unpack(slot, state)
        if self._context.set_seq_state(slot, state) and self._context.num_positions(slot) == num_tokens:
            return True
        self.trim(slot, 0)
        return False

    def num_tokens(self, slot: int) -> int:
        return self._context.num_positions(slot)

    def trim(self, slot: int, num_tokens: int) -> int:
        kept = num_tokens if self._context.seq_rm(slot, num_tokens) else 0
        if kept < num_tokens:
            self._context.seq_rm(slot, 0)
        self._ends.trim(slot, kept)
        return kept

    def settle(self) -> None:
        """Wait for what loading began beside itself."""
        self._masks.settle()

    def shutdown(self) -> None:
        """Free all native memory."""
        self._owned.close()


def num_sequences(num_slots: int) -> int:
    """Those that run and as many ended ones, and some more: a sequence costs nothing, its cells do."""
    return min(2 * num_slots + 16, MAX_SEQUENCES)


def _placing(config: EngineConfig) -> Placing:
    return Placing(
        config.n_gpu_layers,
        config.split,
        config.tensor_split,
        config.main_gpu,
        config.overrides,
        config.rpc,
        use_extra_buffers=use_extra_buffers(),
    )


def _open_context(library: Library, model: Model, config: EngineConfig) -> Context:
    default = default_threads()
    return Context(
        library,
        model,
        n_ctx=config.n_ctx,
        num_sequences=num_sequences(config.num_slots),
        n_batch=config.n_batch,
        num_threads=config.num_threads or default.num_decode,
        num_batch_threads=config.num_threads or default.num_batch,
        cells=CellFormat(config.kv_type, config.flash_attention),
    )


def _open_sight(
    library: Library, model: Model, config: EngineConfig, path: Path, is_cancelled: Callable[[int], bool]
) -> Sight:
    """mtmd's library is loaded for those who have a vision tower only."""
    from mm35local.engine.sight import Sight
    from mm35local.native.vision import VisionEncoder

    encoder = VisionEncoder(
        library,
        path,
        model,
        gpu=config.beside_gpu,
        num_threads=config.num_threads or default_threads().num_batch,
        max_image_tokens=config.image_grid.max_cells,
    )
    sight = Sight(encoder, is_cancelled)
    try:
        sight.warm_up(config.image_grid, str(path), is_largest=config.beside_gpu is not None)
    except LoadFailed:
        sight.shutdown()
        raise
    return sight

"""Does it fit, where does each part go, and how fast will it be: bytes against bytes, before anything is loaded.

Pure: facts (a geometry, a machine) and a wish give a `Plan`, or `DoesNotFit` with the sums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mm35local.errors import GIB, DoesNotFit, UsageError
from mm35local.models import memory
from mm35local.models.context_length import GOOD_CTX, LEAST_CTX, longest_ctx
from mm35local.models.draft import draft_bytes
from mm35local.models.geometry import Geometry
from mm35local.models.gpus import Gpu, Machine
from mm35local.models.memory import CELL_STEP
from mm35local.models.placement import Beside, Load, Share, can_place_layers, place_layers, place_tensors
from mm35local.models.speed import CpuPart, decode_tokens_per_second, prefill_tokens_per_second
from mm35local.models.split import Split, allowed_splits, check_split

_RAM_SHARE = 0.5
"""Of the RAM that is left after the weights, KV may take half: the machine has other programs to run."""
_AUTOMATIC_KV = ("f16", "q8_0")
"""Coarser KV answers worse: only on demand."""
_PRODUCTS_BATCH = 256
"""Rows of a step without flash attention on a CPU: as fast as 512, and the scores take half the memory."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asks for; None leaves it to the plan."""

    n_ctx: int | None = None
    kv_type: str | None = None
    split: Split | None = None
    use_gpu: bool | None = None
    n_batch: int = 512
    num_slots: int = 8
    flash_attention: bool | None = None
    """None: by the flash kernel, but as matrix products where a CPU computes one conversation at a time."""
    vision_bytes: int = 0
    """The vision tower with its largest image: `Projector.needed_bytes`."""
    draft: Geometry | None = None
    """A small model that guesses ahead."""

    @property
    def has_flash(self) -> bool:
        return self.flash_attention is not False


@dataclass(frozen=True, slots=True)
class Plan:
    """How to load one file. `shares` has one entry a card of `gpus`, also where it stays empty."""

    geometry: Geometry
    n_ctx: int
    kv_type: str
    split: Split
    n_batch: int
    flash_attention: bool
    gpus: tuple[Gpu, ...]
    shares: tuple[Share, ...]
    num_cpu_layers: int
    """Layers computed by the CPU from RAM."""
    ram_weight_bytes: int
    """What the CPU computes with; the token embedding of a GPU plan is looked up, not computed with."""
    ram_kv_bytes: int
    compute_bytes: int
    """One device's compute buffer."""
    kv_layer_bytes: int
    decode: float
    decode_full: float
    """Tokens/s of one stream, with empty and with full cells; 0: not known."""
    prefill: float
    beside: Beside

    @property
    def n_gpu_layers(self) -> int:
        """For llama.cpp: layers on cards, and the head as one more."""
        layers = len(self.geometry.layer_bytes)
        return layers + 1 - self.num_cpu_layers if self.shares else 0

    @property
    def tensor_split(self) -> tuple[float, ...]:
        return tuple(share.split for share in self.shares) if len(self.shares) > 1 else ()

    @property
    def gpu_bytes(self) -> int:
        return sum(share.num_bytes for share in self.shares)

    @property
    def weight_bytes(self) -> int:
        return self.ram_weight_bytes + sum(share.weight_bytes for share in self.shares)

    @property
    def kv_bytes(self) -> int:
        return self.kv_layer_bytes * len(self.geometry.layer_bytes)

    @property
    def ram_bytes(self) -> int:
        """RAM of the engine's process; mapped weights of layers that went to a card are not counted."""
        if not self.shares:
            buffers = self.compute_bytes + memory.HOST_RESERVE_BYTES
            return self.ram_weight_bytes + self.ram_kv_bytes + self.beside.ram_bytes + buffers
        embedding = self.geometry.embedding_bytes
        buffers = (self.compute_bytes if self.num_cpu_layers else 0) + memory.HOST_RESERVE_BYTES
        return embedding + self.ram_weight_bytes + self.ram_kv_bytes + self.beside.ram_bytes + buffers

    @property
    def decode_weight_bytes(self) -> int:
        """Read for every token: all but the token embedding, of which one row is looked up."""
        looked_up = 0 if self.shares or self.geometry.is_tied else self.geometry.embedding_bytes
        return self.weight_bytes - looked_up

    @property
    def buffer_bytes(self) -> tuple[tuple[str, int], ...]:
        """(kind, bytes) of llama.cpp's own buffers where the layers live: on all cards together, or in RAM."""
        if not self.shares:
            return (("model", self.ram_weight_bytes), ("KV", self.ram_kv_bytes), ("compute", self.compute_bytes))
        weights, kv = (sum(getattr(share, name) for share in self.shares) for name in ("weight_bytes", "kv_bytes"))
        num_used = sum(share.split > 0 for share in self.shares)
        return (("model", weights), ("KV", kv), ("compute", self.compute_bytes * num_used))

    @property
    def needed_bytes(self) -> int:
        """Of the memory it mainly lives in: the cards', or RAM."""
        return self.gpu_bytes or self.ram_bytes


@dataclass(frozen=True, slots=True)
class _Settled:
    """A wish with its open ends closed."""

    wish: Wish
    n_ctx: int
    kv_type: str
    split: Split
    machine: Machine


def make_plan(geometry: Geometry, machine: Machine, wish: Wish | None = None) -> Plan:
    """The best plan for one file: on cards if all of it fits there, else partly, else in RAM.

    Raises DoesNotFit with the sums, or UsageError for a context, KV type or split that cannot be.
    """
    wish = wish or Wish()
    _check(geometry, machine, wish)
    for candidate in _plans(geometry, machine, wish):
        return candidate
    raise _does_not_fit(geometry, machine, wish)


def smaller_plans(geometry: Geometry, machine: Machine, wish: Wish, failed: Plan) -> Iterator[Plan]:
    """What to try after `failed` could not be loaded: a simpler split, a smaller batch, less context, in that order."""
    if failed.split is Split.TENSOR:
        yield from _try(geometry, machine, replace(wish, split=Split.LAYER, n_ctx=failed.n_ctx, kv_type=failed.kv_type))
    if failed.n_batch > 128:
        yield from _try(geometry, machine, replace(wish, n_batch=128, n_ctx=failed.n_ctx, kv_type=failed.kv_type))
    n_ctx = failed.n_ctx // 2
    while n_ctx >= LEAST_CTX:
        yield from _try(geometry, machine, replace(wish, n_batch=128, n_ctx=n_ctx, kv_type=failed.kv_type))
        n_ctx //= 2


def _try(geometry: Geometry, machine: Machine, wish: Wish) -> Iterator[Plan]:
    try:
        yield make_plan(geometry, machine, wish)
    except (DoesNotFit, UsageError):
        return


def _plans(geometry: Geometry, machine: Machine, wish: Wish) -> Iterator[Plan]:
    """In order of preference; the first is taken."""
    if machine.gpus and wish.use_gpu is not False:
        found = [plan for kv_type in _kv_types(wish) if (plan := _on_gpus(geometry, machine, wish, kv_type))]
        enough = min(GOOD_CTX, geometry.shape.n_ctx_train)
        yield from (plan for plan in found if plan.n_ctx >= enough)
        yield from sorted(found, key=lambda plan: -plan.n_ctx)
        partly = [plan for kv_type in _kv_types(wish) for plan in _offloaded(geometry, machine, wish, kv_type)]
        yield from sorted(partly, key=lambda plan: -plan.decode)
    if wish.use_gpu is not True:
        yield from _one_conversation(geometry, machine, wish)
        for kv_type in _kv_types(wish):
            yield from _in_ram(geometry, machine, wish, kv_type)


def _check(geometry: Geometry, machine: Machine, wish: Wish) -> None:
    n_ctx_train = geometry.shape.n_ctx_train
    if wish.n_ctx is not None and not 1 <= wish.n_ctx <= n_ctx_train:
        raise UsageError(f"--ctx {wish.n_ctx}: this model's context is 1 to {n_ctx_train} tokens", "choose one within")
    for kv_type in _kv_types(wish):
        memory.kv_bytes(geometry.shape, kv_type, CELL_STEP)
    check_split(
        wish.split,
        geometry.shape,
        len(machine.gpus),
        flash_attention=wish.has_flash,
        kv_type=wish.kv_type or "f16",
    )
    if wish.split in (Split.ROW, Split.TENSOR) and machine.has_remote:
        raise UsageError(f"--split {wish.split} cuts matrices, which no network is quick enough for", "--split layer")


def _kv_types(wish: Wish) -> tuple[str, ...]:
    if wish.kv_type is not None:
        return (wish.kv_type,)
    return _AUTOMATIC_KV if wish.has_flash else ("f16",)


def _on_gpus(geometry: Geometry, machine: Machine, wish: Wish, kv_type: str) -> Plan | None:
    splits = (wish.split,) if wish.split else _splits(geometry, machine)
    found = [plan for split in splits if (plan := _split_over(geometry, machine, wish, kv_type, split))]
    # The fastest split is worth a little context, not a quarter of it.
    longest = max((plan.n_ctx for plan in found), default=0)
    return next((plan for plan in found if plan.n_ctx >= 0.75 * longest), None)


def _splits(geometry: Geometry, machine: Machine) -> tuple[Split, ...]:
    return allowed_splits(geometry.shape, len(machine.gpus), has_remote=machine.has_remote)


def _split_over(geometry: Geometry, machine: Machine, wish: Wish, kv_type: str, split: Split) -> Plan | None:
    gpus = machine.gpus
    if split is Split.NONE:
        gpus = (max(gpus, key=lambda gpu: gpu.free_bytes),)
    is_cut = split in (Split.ROW, Split.TENSOR)

    def fits(n_ctx: int) -> bool:
        load = gpu_load(geometry, wish, kv_type, n_ctx, split, gpus)
        return bool(place_tensors(load, gpus)) if is_cut else can_place_layers(load, gpus)

    n_ctx = wish.n_ctx if wish.n_ctx is not None else longest_ctx(geometry.shape.n_ctx_train, fits)
    if n_ctx is None or not fits(n_ctx):
        return None
    load = gpu_load(geometry, wish, kv_type, n_ctx, split, gpus)
    shares = place_tensors(load, gpus) if is_cut else place_layers(load, gpus)
    return _settle(_Settled(wish, n_ctx, kv_type, split, machine), load, gpus, shares) if shares else None


def gpu_load(geometry: Geometry, wish: Wish, kv_type: str, n_ctx: int, split: Split, gpus: Sequence[Gpu]) -> Load:
    """What each of `gpus` must hold beside its layers, for that context."""
    shape = geometry.shape
    compute = _compute_bytes(geometry, wish, kv_type, n_ctx)
    if split is Split.LAYER:
        compute += (memory.NUM_PIPELINE_COPIES - 1) * memory.mask_bytes(n_ctx, _rows(wish, n_ctx))
    pool = memory.gpu_pool_bytes(shape, kv_type, n_ctx, wish.n_batch)
    overhead = compute + pool + memory.CUDA_CONTEXT_BYTES + memory.GPU_RESERVE_BYTES
    return Load(geometry, memory.kv_bytes(shape, kv_type, n_ctx), overhead, place_beside(wish, n_ctx, gpus))


def place_beside(wish: Wish, n_ctx: int, gpus: Sequence[Gpu]) -> Beside:
    """On the card of this machine with most room, of those that the model is on; else in RAM."""
    ours = [index for index, gpu in enumerate(gpus) if not gpu.link]
    needed = wish.vision_bytes + draft_bytes(
        wish.draft, n_ctx, wish.n_batch, wish.num_slots, flash_attention=wish.has_flash
    )
    if not ours:
        return Beside(None, 0, needed)
    looked_up = wish.draft.embedding_bytes if wish.draft and not wish.draft.is_tied else 0
    return Beside(max(ours, key=lambda index: gpus[index].free_bytes), needed - looked_up, looked_up)


def _offloaded(geometry: Geometry, machine: Machine, wish: Wish, kv_type: str) -> Iterator[Plan]:
    """As many of the last layers on the cards as fit, the first ones in RAM: slow, so the context is kept short."""
    n_ctx = wish.n_ctx or min(4 * LEAST_CTX, geometry.shape.n_ctx_train)
    if wish.split in (Split.ROW, Split.TENSOR):
        return
    load = gpu_load(geometry, wish, kv_type, n_ctx, Split.LAYER, machine.gpus)
    for first in range(1, len(geometry.layer_bytes)):
        shares = place_layers(load, machine.gpus, first)
        if shares is None:
            continue
        split = Split.LAYER if len(machine.gpus) > 1 else Split.NONE
        plan = _settle(_Settled(wish, n_ctx, kv_type, split, machine), load, machine.gpus, shares, first)
        if plan.ram_bytes <= machine.ram_free_bytes:
            yield plan
        return


def _one_conversation(geometry: Geometry, machine: Machine, wish: Wish) -> Iterator[Plan]:
    """In RAM by matrix products, where that takes nothing from the context.

    llama.cpp's flash kernel takes rows one by one on a CPU: products answer up to several times as fast deep in a
    context, and drafts pay (`bench.attention`, `bench.speculate`). But they pass over everybody's cells.
    """
    if wish.flash_attention is not None or wish.num_slots > 1 or wish.kv_type not in (None, "f16"):
        return
    longest = max((plan.n_ctx for plan in _in_ram(geometry, machine, wish, "f16")), default=0)
    products = _in_ram(geometry, machine, replace(wish, flash_attention=False), "f16")
    yield from (plan for plan in products if plan.n_ctx >= longest > 0)


def _in_ram(geometry: Geometry, machine: Machine, wish: Wish, kv_type: str) -> Iterator[Plan]:
    """KV and buffers in half of the RAM that is left after the weights, if that is enough."""
    if not wish.has_flash:
        wish = replace(wish, n_batch=min(wish.n_batch, _PRODUCTS_BATCH))

    def at(n_ctx: int) -> Plan:
        compute = _compute_bytes(geometry, wish, kv_type, n_ctx)
        kv_layer_bytes = memory.kv_bytes(geometry.shape, kv_type, n_ctx)
        load = Load(geometry, kv_layer_bytes, compute, place_beside(wish, n_ctx, ()))
        settled = _Settled(wish, n_ctx, kv_type, Split.NONE, machine)
        return _settle(settled, load, (), (), len(geometry.layer_bytes) + 1)

    def fits(n_ctx: int, share: float) -> bool:
        room = machine.ram_free_bytes - geometry.num_bytes
        return at(n_ctx).ram_bytes - geometry.num_bytes <= share * room

    for share in (_RAM_SHARE, 1.0):
        if wish.n_ctx is not None:
            n_ctx = wish.n_ctx if fits(wish.n_ctx, share) else None
        else:
            n_ctx = longest_ctx(geometry.shape.n_ctx_train, partial(fits, share=share))
        if n_ctx is not None:
            yield at(n_ctx)
            return


def _settle(
    settled: _Settled, load: Load, gpus: tuple[Gpu, ...], shares: tuple[Share, ...], num_cpu_layers: int = 0
) -> Plan:
    geometry, wish, split = load.geometry, settled.wish, settled.split
    of_layers = min(num_cpu_layers, len(geometry.layer_bytes))
    ram_weights = sum(geometry.layer_bytes[:of_layers]) if shares else geometry.num_bytes
    ram_kv = load.kv_layer_bytes * of_layers
    is_cut = split in (Split.ROW, Split.TENSOR)
    read_from_ram = ram_weights - (0 if shares or geometry.is_tied else geometry.embedding_bytes)
    row_bytes = 4 * geometry.shape.n_embd
    cpu_share = 1.0 if not shares else ram_weights / max(1, ram_weights + sum(share.weight_bytes for share in shares))

    def decode(kv_share: float) -> float:
        cpu = CpuPart(read_from_ram + round(ram_kv * kv_share), of_layers, settled.machine.num_decode_threads)
        return decode_tokens_per_second(
            shares, gpus, is_tensor_split=is_cut, cpu=cpu, kv_share=kv_share, row_bytes=row_bytes
        )

    return Plan(
        geometry,
        settled.n_ctx,
        settled.kv_type,
        split,
        wish.n_batch,
        wish.has_flash,
        gpus,
        shares,
        num_cpu_layers,
        ram_weights,
        ram_kv,
        _compute_bytes(geometry, wish, settled.kv_type, settled.n_ctx),
        load.kv_layer_bytes,
        decode(0.0),
        decode(1.0),
        prefill_tokens_per_second(
            geometry.num_matrix_weights,
            shares,
            gpus,
            is_tensor_split=is_cut,
            cpu_share=cpu_share,
            num_threads=settled.machine.num_batch_threads,
            row_bytes=row_bytes,
        ),
        load.beside,
    )


def _compute_bytes(geometry: Geometry, wish: Wish, kv_type: str, n_ctx: int) -> int:
    flash, n_seq = wish.has_flash, memory.num_sequences(wish.num_slots)
    return memory.compute_bytes(geometry.shape, kv_type, n_ctx, wish.n_batch, flash_attention=flash, n_seq=n_seq)


def _rows(wish: Wish, n_ctx: int) -> int:
    return memory.reserved_rows(n_ctx, wish.n_batch, memory.num_sequences(wish.num_slots))


def _does_not_fit(geometry: Geometry, machine: Machine, wish: Wish) -> DoesNotFit:
    """The sums of the smallest thing tried."""
    kv_type, n_ctx = _kv_types(wish)[-1], wish.n_ctx or min(LEAST_CTX, geometry.shape.n_ctx_train)
    kv = memory.kv_bytes(geometry.shape, kv_type, n_ctx) * geometry.shape.n_layer
    if machine.gpus and wish.use_gpu is not False:
        split = wish.split or _splits(geometry, machine)[-1]
        load = gpu_load(geometry, wish, kv_type, n_ctx, split, machine.gpus)
        weights = sum(geometry.layer_bytes) + geometry.head_bytes
        others = load.device_bytes * len(machine.gpus) + load.beside.card_bytes
        free, place = machine.gpu_free_bytes, f"{len(machine.gpus)} GPU"
    else:
        weights, free, place = geometry.num_bytes, 0 if wish.use_gpu else machine.ram_free_bytes, "RAM"
        compute = _compute_bytes(geometry, wish, kv_type, n_ctx)
        others = compute + place_beside(wish, n_ctx, ()).ram_bytes + memory.HOST_RESERVE_BYTES
    sums = f"weights {weights / GIB:.1f} + KV {kv / GIB:.1f} ({n_ctx:,} tokens, {kv_type}) + buffers {others / GIB:.1f}"
    return DoesNotFit(
        geometry.name, weights + kv + others, free, f"{sums} GiB in {place}: choose a smaller quant, KV type or --ctx"
    )

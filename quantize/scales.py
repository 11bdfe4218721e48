"""What the codes of an FP8 weight are multiplied by: one number for the whole tensor, or one for each block of it.

Blocks follow the hub's convention: `quantization_config.weight_block_size` [rows, columns] in the config, beside the
weight a matrix of [ceil(rows / block rows), ceil(columns / block columns)] scales; w = fp8 * scale of its block.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint
from quantize.json_file import read_object
from quantize.names import ACTIVATION_SCALES, WEIGHT_SCALES
from quantize.shard import StoredTensor

FP8 = "F8_E4M3"
_WEIGHT_DTYPES = (FP8, "BF16", "F16", "F32")
_MAX_BYTES = 128 << 20
"""Of a shard's scales: ten times what blocks of 128 x 128 take beside 50 GB of weights."""
_SCALE_BYTES = {"BF16": 2, "F16": 2, "F32": 4}


@dataclass(frozen=True, slots=True, eq=False)
class BlockScales:
    """float32 [block rows of the matrix, block columns of it]."""

    values: NDArray[np.float32]
    block: tuple[int, int]

    def apply(self, rows: NDArray[np.float32], first_row: int) -> None:
        """Multiply [n, row_length] in place: rows `first_row` and on of the matrix, codes decoded without a scale."""
        height, width = self.block
        at = 0
        while at < len(rows):
            band = (first_row + at) // height
            end = min(len(rows), (band + 1) * height - first_row)
            rows[at:end] *= np.repeat(self.values[band], width)[: rows.shape[1]]
            at = end

    def of_row(self, row: int) -> BlockScales:
        """For this one row as a matrix of its own."""
        band = row // self.block[0]
        return BlockScales(self.values[band : band + 1], self.block)

    def __repr__(self) -> str:
        """Tells one from another, for fingerprints."""
        return f"{self.block} {hashlib.sha256(self.values.tobytes()).hexdigest()}"


Scale = float | BlockScales


@dataclass(frozen=True, slots=True)
class WeightScales:
    """Finds the scale that belongs to a weight."""

    by_name: Mapping[str, StoredTensor]
    """All tensors of the checkpoint by canonical name."""
    block: tuple[int, int] | None

    def of(self, stored: StoredTensor, module: str) -> Scale:
        """1.0 for weights that are not FP8. Raises CheckpointError naming the tensor."""
        if stored.dtype not in _WEIGHT_DTYPES:
            raise _wrong(stored, f"expected one of {', '.join(_WEIGHT_DTYPES)}, found {stored.dtype}")
        if stored.dtype != FP8:
            return 1.0
        scales = [self.by_name[name] for leaf in WEIGHT_SCALES if (name := f"{module}.{leaf}") in self.by_name]
        if len(scales) != 1:
            found = "none" if not scales else " and ".join(scale.name for scale in scales)
            raise _wrong(stored, f"FP8 needs one scale ({', '.join(WEIGHT_SCALES)}) beside it, found {found}")
        return self._read(stored, scales[0])

    def _read(self, weight: StoredTensor, scale: StoredTensor) -> Scale:
        grid = self._grid(weight)
        is_single = math.prod(scale.shape) == 1
        if scale.dtype not in _SCALE_BYTES or not (is_single or (grid and scale.shape == grid)):
            wanted = f"one, or {list(grid)} for blocks of {list(self.block or ())}," if grid else "one"
            raise _wrong(scale, f"expected {wanted} BF16, F16 or F32 number, found {scale.dtype} {list(scale.shape)}")
        values = _positive(scale)
        if is_single:
            return float(values[0])
        assert self.block is not None
        return BlockScales(values.reshape(scale.shape), self.block)

    def _grid(self, weight: StoredTensor) -> tuple[int, ...] | None:
        if self.block is None or len(weight.shape) != len(self.block):
            return None
        return tuple(-(-size // step) for size, step in zip(weight.shape, self.block, strict=True))


def read_weight_scales(checkpoint: Checkpoint, by_name: Mapping[str, StoredTensor]) -> WeightScales:
    """Raises CheckpointError for a block size that is none."""
    path = checkpoint.folder / checkpoint.layout.config_name
    quantization = read_object(path).get("quantization_config")
    block = quantization.get("weight_block_size") if isinstance(quantization, dict) else None
    if block is None:
        return WeightScales(by_name, None)
    is_pair = isinstance(block, list) and len(block) == 2 and all(type(size) is int and size > 0 for size in block)
    if not is_pair:
        raise CheckpointError(str(path), f"expected a weight_block_size of two positive numbers, found {block!r:.80}")
    return WeightScales(by_name, (block[0], block[1]))


def scale_tensors(tensors: Iterable[StoredTensor]) -> list[StoredTensor]:
    """Those that hold scales, of whatever; what a shard without weights is still asked for. Raises CheckpointError."""
    leaves = (*WEIGHT_SCALES, *ACTIVATION_SCALES)
    scales = [tensor for tensor in tensors if tensor.num_bytes and tensor.name.rpartition(".")[2] in leaves]
    if sum(tensor.num_bytes for tensor in scales) > _MAX_BYTES:
        raise _wrong(scales[0], f"the scales of this shard take more than {_MAX_BYTES} bytes")
    return scales


def _positive(stored: StoredTensor) -> NDArray[np.float32]:
    """float32, flat. Its size was held against the file's when the header was read."""
    raw = stored.first_bytes(stored.num_bytes)
    if len(raw) < stored.num_bytes:
        raise _wrong(stored, "the file was cut short meanwhile")
    if stored.dtype == "BF16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, "<f2" if stored.dtype == "F16" else "<f4").astype(np.float32)
    is_wrong = ~(np.isfinite(values) & (values > 0))
    if is_wrong.any():
        raise _wrong(stored, f"expected a positive scale, found {values[is_wrong][0]}")
    return values


def _wrong(stored: StoredTensor, problem: str) -> CheckpointError:
    return CheckpointError(str(stored.path), problem, tensor=stored.name)

"""A GGUF of any dense geometry with random quantised blocks, as fast as the disk takes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mm35local.models.ggml_types import GGML_TYPES
from mm35local.models.mixes import MIXES, Shape
from quantize.gguf_file import GgufFile, TensorSpec, lay_out
from quantize.metadata import Metadata

_ARCHITECTURE = "mistral3"
_IDS = {type_.name: number for number, type_ in GGML_TYPES.items()}
_POOL_BYTES = 32 << 20
_SCALES = {
    "Q4_K": ((0, 3.9e-5), (2, 2.9e-4)),
    "Q5_K": ((0, 1.9e-5), (2, 2.9e-4)),
    "Q6_K": ((208, 7.3e-6),),
    "IQ4_XS": ((0, 7.7e-6),),
    "Q8_0": ((0, 1.35e-4),),
}
"""(offset in the block, F16 scale): weights of mean 0 and deviation 0.01 when all other bits are random. The K types'
minimum is 7.5 or 15.5 times the scale, the mean of their 4 or 5 bits."""


def write_sparse_gguf(path: Path, shape: Shape, quant: str) -> Path:
    """The header and a hole where the weights belong: enough to map it and see what is allocated."""
    with closing(GgufFile(path, lay_out(_ARCHITECTURE, _metadata(shape), list(_tensors(shape, quant))))) as file:
        file.begin()
        file.publish()
    return path


def write_random_gguf(folders: Sequence[Path], shape: Shape, quant: str) -> Path:
    """One part a folder, about equal; links in the first folder bring them together. The path of the first part."""
    specs = list(_tensors(shape, quant))
    parts = _cut(specs, len(folders))
    names = [f"{quant}-{number:05}-of-{len(parts):05}.gguf" for number in range(1, len(parts) + 1)]
    pools = {name: _pool(name) for name in {GGML_TYPES[spec.ggml_type].name for spec in specs} - {"F32"}}
    for number, (folder, part, name) in enumerate(zip(folders, parts, names, strict=True)):
        metadata = _metadata(shape) if number == 0 else {}
        split: Metadata = {
            "split.no": np.uint16(number),
            "split.count": np.uint16(len(parts)),
            "split.tensors.count": np.int32(len(specs)),
        }
        _write(folder / name, {**metadata, **(split if len(parts) > 1 else {})}, part, pools)
        if number:
            (folders[0] / name).symlink_to(folder / name)
    return folders[0] / names[0]


def _write(
    path: Path, metadata: Metadata, specs: Sequence[TensorSpec], pools: dict[str, npt.NDArray[np.uint8]]
) -> None:
    with closing(GgufFile(path, lay_out(_ARCHITECTURE, metadata, specs))) as file:
        file.begin()
        for number, spec in enumerate(specs):
            name = GGML_TYPES[spec.ggml_type].name
            if name == "F32":
                file.write(number, 0, memoryview(np.ones(spec.shape, np.float32).tobytes()))
                continue
            pool, start = pools[name], number * GGML_TYPES[spec.ggml_type].block_bytes
            for offset in range(0, spec.num_bytes, len(pool) - start):
                end = min(len(pool), start + spec.num_bytes - offset)
                file.write(number, offset, pool.data[start:end])
        file.publish()


def _pool(type_name: str) -> npt.NDArray[np.uint8]:
    """Random blocks with finite scales; tensors are read from it at different starts."""
    size = GGML_TYPES[_IDS[type_name]].block_bytes
    blocks = np.random.default_rng(35).integers(0, 256, (_POOL_BYTES // size, size), np.uint8)
    for offset, scale in _SCALES[type_name]:
        blocks[:, offset : offset + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks.reshape(-1)


def _cut(specs: Sequence[TensorSpec], num_parts: int) -> list[list[TensorSpec]]:
    total, done = sum(spec.num_bytes for spec in specs), 0
    parts: list[list[TensorSpec]] = [[] for _ in range(num_parts)]
    for spec in specs:
        parts[min(num_parts - 1, done * num_parts // total)].append(spec)
        done += spec.num_bytes
    return parts


def _tensors(shape: Shape, quant: str) -> Iterator[TensorSpec]:
    """As llama.cpp's own mix types them; `models.mixes` is held against libllama by a test."""
    mix, n_layer, n_embd = MIXES[quant], shape.n_layer, shape.n_embd
    n_q, n_kv = shape.n_head * shape.head_dim, shape.n_head_kv * shape.head_dim
    yield _matrix("token_embd", mix.base, shape.n_vocab, n_embd)
    for layer in range(n_layer):
        of_v = mix.better if mix.better_v(layer, n_layer) else mix.base
        of_down = mix.better if mix.better_down(layer, n_layer) else mix.base
        block = f"blk.{layer}"
        yield _norm(f"{block}.attn_norm", n_embd)
        yield _matrix(f"{block}.attn_q", mix.base, n_q, n_embd)
        yield _matrix(f"{block}.attn_k", mix.base, n_kv, n_embd)
        yield _matrix(f"{block}.attn_v", of_v, n_kv, n_embd)
        yield _matrix(f"{block}.attn_output", mix.base, n_embd, n_q)
        yield _norm(f"{block}.ffn_norm", n_embd)
        yield _matrix(f"{block}.ffn_gate", mix.base, shape.n_ff, n_embd)
        yield _matrix(f"{block}.ffn_up", mix.base, shape.n_ff, n_embd)
        yield _matrix(f"{block}.ffn_down", of_down, n_embd, shape.n_ff)
    yield _norm("output_norm", n_embd)
    yield _matrix("output", mix.head, shape.n_vocab, n_embd)


def _matrix(name: str, type_name: str, num_rows: int, row_length: int) -> TensorSpec:
    type_ = GGML_TYPES[_IDS[type_name]]
    row_bytes = row_length // type_.block_elements * type_.block_bytes
    return TensorSpec(f"{name}.weight", (num_rows, row_length), _IDS[type_name], row_bytes)


def _norm(name: str, length: int) -> TensorSpec:
    return TensorSpec(f"{name}.weight", (length,), 0, 4 * length)


def _metadata(shape: Shape) -> Metadata:
    a = _ARCHITECTURE
    return {
        "general.name": "random",
        f"{a}.context_length": shape.n_ctx_train,
        f"{a}.embedding_length": shape.n_embd,
        f"{a}.block_count": shape.n_layer,
        f"{a}.feed_forward_length": shape.n_ff,
        f"{a}.vocab_size": shape.n_vocab,
        f"{a}.attention.head_count": shape.n_head,
        f"{a}.attention.head_count_kv": shape.n_head_kv,
        f"{a}.attention.key_length": shape.head_dim,
        f"{a}.attention.value_length": shape.head_dim,
        f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{a}.rope.dimension_count": shape.head_dim,
        f"{a}.rope.freq_base": 1e6,
        f"{a}.rope.scaling.type": "yarn",
        f"{a}.rope.scaling.factor": 64.0,
        f"{a}.rope.scaling.original_context_length": 4096,
        "tokenizer.ggml.model": "none",
    }

"""Heads of shards that are still on the hub, read in a few ranges: all is checked before one is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from quantize.head import Head
from quantize.scales import scale_tensors
from quantize.shard import LENGTH_BYTES, KeptBytes, StoredTensor, header_length, parse_tensors

ReadRange = Callable[[int, int], bytes]
"""(first byte, number of bytes) → that many bytes of the shard."""
_FIRST_BYTES = 1 << 20
"""Holds most headers."""
_MAX_GAP = 1 << 20
_MAX_RUN = 16 << 20


def remote_head(shard: Path, identity: str, file_bytes: int, read: ReadRange) -> Head:
    """`shard` is where it will be; `identity` is the hub's name for its content. Raises what `read` does and
    CheckpointError."""
    first = read(0, min(_FIRST_BYTES, file_bytes))
    end = LENGTH_BYTES + header_length(shard, first, file_bytes)
    header = first[LENGTH_BYTES:end]
    if end > len(first):
        header += read(len(first), end - len(first))
    spans: dict[int, bytes] = {}
    for run in _runs(scale_tensors(parse_tensors(shard, header, file_bytes))):
        begin = run[0].offset
        data = read(begin, run[-1].offset + run[-1].num_bytes - begin)
        spans |= {tensor.offset: data[tensor.offset - begin :][: tensor.num_bytes] for tensor in run}
    return Head(shard, header, file_bytes, KeptBytes(identity, spans), is_consumed=False)


def _runs(tensors: Sequence[StoredTensor]) -> Iterator[list[StoredTensor]]:
    """Neighbours in the file, which are in its order, read in one go: a request costs more than some bytes between."""
    run: list[StoredTensor] = []
    for tensor in tensors:
        end = tensor.offset + tensor.num_bytes
        is_near = run and tensor.offset - (run[-1].offset + run[-1].num_bytes) <= _MAX_GAP
        if run and not (is_near and end - run[0].offset <= _MAX_RUN):
            yield run
            run = []
        run.append(tensor)
    if run:
        yield run

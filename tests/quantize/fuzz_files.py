"""Damaged headers of safetensors and GGUF, and heads of shards that are not here: each is read or refused in our own
words, quickly and in little memory.

`python -m tests.quantize.fuzz_files [SECONDS] [SEED]`, 600 by default, a third for each format. Hypothesis makes the
damage; each format runs in a child process whose address space and CPU time are limited, so that an allocation by a
number in the file, a hang and a crash all show, and none takes this process along.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from mm35local.errors import CheckpointError, ModelFileError
from mm35local.models.gguf_header import read_header
from mm35local.models.inspect import inspect_file
from quantize.consume import consumed_head
from quantize.fingerprint import PROBE_BYTES
from quantize.head import SUFFIX, head_path, read_head, write_head
from quantize.shard import read_shard
from tests.models.gguf_bytes import Tensor, gguf, string, text, uint32
from tests.quantize.safetensors_bytes import entry, shard_bytes

_MEMORY_BYTES = 128 << 20
"""That a child may grow by, Hypothesis and the first read of 1 MiB included; the files are of some hundred bytes."""
_SECONDS_EACH = 5
_PER_ROUND, _WARM_UP = 2000, 100
_ANY = tuple(HealthCheck)


@dataclass(slots=True)
class Findings:
    num_read: int = 0
    num_refused: int = 0
    problems: Counter[str] = field(default_factory=Counter)
    """How often each kind of refusal came: its words, without names and numbers."""
    grown_bytes: int = 0
    """Peak memory of the child above what it had before the first file."""

    @property
    def total(self) -> int:
        return self.num_read + self.num_refused


# --- the damage ---

_SHARD = shard_bytes(
    {"__metadata__": {"format": "pt"}, "a": entry(0, 8, [2, 2], "BF16"), "b.c": entry(8, 12, [2, 2], "F8_E4M3")},
    b"x" * 12,
)
_GGUF = gguf(
    [
        text("general.architecture", "mistral3"),
        uint32("mistral3.block_count", 2),
        string("mistral3.rope.scaling.yarn_log_multiplier") + struct.pack("<If", 6, 1.0),
        string("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 3) + string("a") + string("b") + string("<s>"),
        string("tokenizer.ggml.token_type") + struct.pack("<IIQ3i", 9, 5, 3, 1, 1, 3),
        uint32("general.alignment", 32),
        string("flag") + struct.pack("<IB", 7, 1),
    ],
    [Tensor("token_embd.weight", (64, 3), 0, 0), Tensor("output.weight", (256, 2), 12, 768)],
    768 + 288,
)
_WIDE = st.sampled_from([0, 1, 0x7F, 0xFF, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62])
_NUMBERS = _WIDE | st.integers(0, (1 << 64) - 1) | st.sampled_from([1 << 63, (1 << 64) - 1, (1 << 64) - 32])


@st.composite
def _damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """One to four edits: a byte, a number of 4 or 8 bytes, bytes more, bytes less, a piece copied, the end cut off."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at, kind = draw(st.integers(0, max(0, len(raw) - 1))), draw(st.integers(0, 6))
        if kind == 0:
            raw[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif kind == 1:
            raw[at : at + 8] = struct.pack("<Q", draw(_NUMBERS))
        elif kind == 2:
            raw[at : at + 4] = struct.pack("<I", draw(_NUMBERS) & 0xFFFFFFFF)
        elif kind == 3:
            raw[at:at] = draw(st.binary(max_size=12))
        elif kind == 4:
            del raw[at : at + draw(st.integers(1, 12))]
        elif kind == 5:
            raw[at:at] = raw[at : at + draw(st.integers(1, 80))]
        else:
            del raw[at:]
    return bytes(raw)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SIZES = st.lists(st.integers(-1, 9) | _NUMBERS, max_size=3) | _JSON
_DTYPES = st.sampled_from(["U8", "BF16", "F8_E4M3", "F32", "F64"]) | _JSON
_ENTRIES = _JSON | st.fixed_dictionaries({"dtype": _DTYPES, "shape": _SIZES, "data_offsets": _SIZES})
_HEADERS = st.dictionaries(st.text(max_size=4), _ENTRIES, max_size=4)
_SHARDS = _damaged(_SHARD) | st.builds(
    shard_bytes, _HEADERS | st.binary(max_size=40), st.binary(max_size=24), st.none() | _NUMBERS
)

_TENSORS = st.builds(
    Tensor,
    st.text(max_size=6),
    st.lists(st.sampled_from([0, 1, 32, 256]) | _NUMBERS, max_size=5).map(tuple),
    st.integers(0, 45) | _NUMBERS.map(lambda number: number & 0xFFFFFFFF),
    st.sampled_from([0, 32, 64]) | _NUMBERS,
)
_VALUES = st.builds(
    lambda key, kind, payload: string(key) + struct.pack("<I", kind) + payload,
    st.sampled_from(["general.architecture", "general.alignment", "split.no", "k"]) | st.text(max_size=6),
    st.integers(0, 14),
    st.binary(max_size=24) | st.builds(lambda kind, n: struct.pack("<IQ", kind, n), st.integers(0, 13), _NUMBERS),
)
_GGUFS = _damaged(_GGUF) | st.builds(
    gguf, st.lists(_VALUES, max_size=4), st.lists(_TENSORS, max_size=4), st.integers(0, 400)
)


def _head_bytes() -> bytes:
    """Of a shard that was consumed."""
    with tempfile.TemporaryDirectory() as folder:
        shard = Path(folder) / "x.safetensors"
        shard.write_bytes(_SHARD)
        write_head(consumed_head(shard, read_shard(shard)))
        return head_path(shard).read_bytes()


_HEAD = _head_bytes()
_FORM = json.loads(_HEAD)
_FIELDS = {
    "format": st.just(1) | _JSON,
    "file_bytes": st.just(_FORM["file_bytes"]) | st.integers(0, 400) | _NUMBERS | _JSON,
    "is_consumed": st.booleans() | _JSON,
    "identity": st.text(max_size=4) | _JSON,
    "header": st.just(_FORM["header"]) | _HEADERS.map(json.dumps) | st.text(max_size=20) | _JSON,
    "kept": st.just(_FORM["kept"])
    | st.dictionaries(
        st.integers(-1, 400).map(str) | st.text(max_size=4), st.text(max_size=8) | st.just("eHg="), max_size=3
    )
    | _JSON,
}
_HEADS = _damaged(_HEAD) | st.fixed_dictionaries({}, optional=_FIELDS).map(
    lambda fields: json.dumps(_FORM | fields).encode()
)


# --- the readers ---


def _try_shard(path: Path) -> None:
    """Raises CheckpointError, which names the file. What is read lies inside the file and over nothing else."""
    end = 0
    for tensor in read_shard(path):
        assert tensor.num_bytes == 0 or tensor.offset >= end, "two tensors overlap"
        end = max(end, tensor.offset + tensor.num_bytes)
    assert end <= path.stat().st_size, "a tensor ends beyond the file"


def _try_head(path: Path) -> None:
    """Raises CheckpointError, which names the head. What it tells lies inside the shard that it speaks of."""
    shard = path.with_name(path.name.removesuffix(SUFFIX))
    head = read_head(shard)
    assert head is not None, "it is there"
    for tensor in head.tensors():
        assert tensor.offset + tensor.num_bytes <= head.file_bytes, "a tensor ends beyond the shard"
        with suppress(CheckpointError):  # too little was kept for a check, which asks only when it needs it
            assert len(tensor.first_bytes(PROBE_BYTES)) == min(PROBE_BYTES, tensor.num_bytes)


def _try_gguf(path: Path) -> None:
    """Raises ModelFileError, which names file and offset."""
    for tensor in read_header(path).tensors:
        assert tensor.num_bytes <= path.stat().st_size, "a tensor is larger than the file"
    inspect_file(path)


_FORMATS: dict[str, tuple[st.SearchStrategy[bytes], Callable[[Path], None], str]] = {
    "safetensors": (_SHARDS, _try_shard, ".safetensors"),
    "heads": (_HEADS, _try_head, f".safetensors{SUFFIX}"),
    "gguf": (_GGUFS, _try_gguf, ".gguf"),
}


def _one_file(attempt: Callable[[Path], None], path: Path, data: bytes, findings: Findings) -> None:
    path.write_bytes(data)
    try:
        attempt(path)
        findings.num_read += 1
    except (CheckpointError, ModelFileError) as error:
        _check_refusal(error, path, len(data))
        findings.num_refused += 1
        findings.problems[_kind(error.problem)] += 1


def _check_refusal(refusal: CheckpointError | ModelFileError, path: Path, file_bytes: int) -> None:
    """It names the file, says what to do, and in a GGUF that is no stub where the damage lies."""
    assert str(path) in refusal.message, "it does not name the file"
    assert refusal.hint, "it does not say what to do"
    if isinstance(refusal, ModelFileError) and file_bytes >= len(b"GGUF"):
        assert refusal.offset is not None, f"it gives no offset: {refusal.message}"


def _kind(problem: str) -> str:
    """The longest run of plain words, enough to tell refusals apart."""
    words = "".join(letter if letter.isascii() and letter.isalpha() else " " for letter in problem).split()
    return " ".join(words[-3:])


# --- the child ---


def _run_child(format_: str, seconds: float, least: int, first_seed: int) -> Findings:
    """In the child itself: until the time is over and `least` files were tried. AssertionError or worse ends it."""
    files, attempt, suffix = _FORMATS[format_]
    findings, end, number = Findings(), time.monotonic() + seconds, first_seed

    def is_wanted() -> bool:
        return findings.total < least or time.monotonic() < end

    def check(data: bytes) -> None:
        """A file that takes longer than its time, the CPU's, ends the child by SIGPROF: a busy machine is no hang."""
        if is_wanted():
            signal.setitimer(signal.ITIMER_PROF, _SECONDS_EACH)
            _one_file(attempt, path, data, findings)
            signal.setitimer(signal.ITIMER_PROF, 0)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"x{suffix}"
        _round(files, number, _WARM_UP, lambda data: _one_file(attempt, path, data, Findings()))
        before = _peak_bytes()
        _limit(seconds)
        while is_wanted():
            number += 1
            _round(files, number, _PER_ROUND, check)
        findings.grown_bytes = _peak_bytes() - before
    return findings


def _round(files: st.SearchStrategy[bytes], number: int, size: int, check: Callable[[bytes], None]) -> None:
    @seed(number)
    @settings(max_examples=size, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=_ANY)
    @given(data=files)
    def one(data: bytes) -> None:
        check(data)

    one()


def _limit(seconds: float) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + _MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 60, int(seconds) + 60))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# --- the parent ---


def fuzz(format_: str, *, seconds: float = 0.0, least: int = 0, first_seed: int = 0) -> Findings:
    """Raises AssertionError with the child's last words if it crashed, hung, or met an error that is not ours."""
    command = [sys.executable, "-m", __spec__.name, "--child", format_, *map(str, (seconds, least, first_seed))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 300)
    assert done.returncode == 0, f"{format_}: exit status {done.returncode}\n{done.stderr[-4000:]}"
    told = json.loads(done.stdout)
    return Findings(told["read"], told["refused"], Counter(told["problems"]), told["grown_bytes"])


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        found = _run_child(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
        told = {"read": found.num_read, "refused": found.num_refused, "grown_bytes": found.grown_bytes}
        print(json.dumps(told | {"problems": found.problems}))
        return
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 600.0
    first_seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for format_ in _FORMATS:
        found = fuzz(format_, seconds=seconds / len(_FORMATS), first_seed=first_seed)
        print(
            f"{format_}: {found.total} files in {seconds / len(_FORMATS):.0f} s: {found.num_refused} refused in "
            f"{len(found.problems)} ways, {found.num_read} read; memory grew by {found.grown_bytes >> 10} KiB"
        )


if __name__ == "__main__":
    main()

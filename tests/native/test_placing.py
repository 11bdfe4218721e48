"""What was planned against what llama.cpp allocates, and corrected keys against right files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGUFReader

from bench.random_gguf import write_sparse_gguf
from mm35local.models.faults import find_faults
from mm35local.models.geometry import from_header
from mm35local.models.gguf_header import read_header
from mm35local.models.gpus import Machine
from mm35local.models.memory import num_sequences
from mm35local.models.mixes import Shape
from mm35local.models.plan import Wish, make_plan
from mm35local.native.batch import Batch
from mm35local.native.buffers import BufferLog
from mm35local.native.context import CellFormat, Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing

MIB = 1 << 20
SMALL_STEPS = ((256, 1), (300, 8), (1024, 32))
"""(n_ctx, slots) whose rows llama.cpp rounds up to whole rows a sequence."""

_DRY = """
import json, sys
from pathlib import Path
from mm35local.native.buffers import BufferLog
from mm35local.native.context import CellFormat, Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing
buffers = BufferLog()
library = Library(lambda line: print(buffers.read(line), file=sys.stderr))
model = Model(library, Path(sys.argv[1]), Placing(is_dry=True))
cells = CellFormat(sys.argv[3])
Context(library, model, n_ctx=int(sys.argv[2]), num_sequences=32, n_batch=512, num_threads=1, num_batch_threads=1,
        cells=cells)
print(json.dumps(buffers.entries))
"""


def pocket(folder: Path) -> Path:
    return folder / "Mistral-Medium-3.5-pocket-Q4_K_M.gguf"


@pytest.fixture(params=["smollm2", "pocket"])
def path(request: pytest.FixtureRequest, smollm2_path: Path, pocket_gguf: Path) -> Path:
    return smollm2_path if request.param == "smollm2" else pocket(pocket_gguf)


@pytest.fixture(scope="session")
def wide_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of the 128B's width, without weights: 3.6 GiB that are mapped and never read."""
    shape = Shape(2, 12288, 28672, 96, 8, 128, 131072, 262144)
    return write_sparse_gguf(tmp_path_factory.mktemp("wide") / "wide.gguf", shape, "Q4_K_M")


@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
@pytest.mark.parametrize("n_ctx", [1024, 4096])
def test_allocated_as_planned(path: Path, kv_type: str, n_ctx: int) -> None:
    check_allocated(path, kv_type, n_ctx, use_mmap=False)


@pytest.mark.parametrize("kv_type", ["f16", "q8_0"])
@pytest.mark.parametrize("n_ctx", [1024, 16384])
def test_allocated_as_planned_at_full_width(wide_path: Path, kv_type: str, n_ctx: int) -> None:
    check_allocated(wide_path, kv_type, n_ctx, use_mmap=True)


@pytest.mark.parametrize(("n_ctx", "num_slots"), SMALL_STEPS)
def test_allocated_as_planned_where_rows_are_rounded_up(path: Path, n_ctx: int, num_slots: int) -> None:
    """In models this small the allocator's gaps can be a row's width: up to 1 MiB is let pass."""
    check_allocated(path, "f16", n_ctx, use_mmap=False, num_slots=num_slots, slack=MIB)


@pytest.mark.parametrize(("n_ctx", "num_slots"), SMALL_STEPS)
def test_allocated_as_planned_at_full_width_where_rows_are_rounded_up(
    wide_path: Path, n_ctx: int, num_slots: int
) -> None:
    check_allocated(wide_path, "q8_0", n_ctx, use_mmap=True, num_slots=num_slots)


def check_allocated(
    path: Path, kv_type: str, n_ctx: int, *, use_mmap: bool, num_slots: int = 8, slack: float = 0.02 * MIB
) -> None:
    """Every kind of buffer within 2 % of the plan; `pytest -rP` shows the table."""
    wish = Wish(n_ctx=n_ctx, kv_type=kv_type, num_slots=num_slots)
    plan = make_plan(from_header(read_header(path)), Machine((), 64 << 30), wish)
    buffers = BufferLog()
    library = Library(lambda line: print(buffers.read(line)))
    model = Model(library, path, Placing(use_mmap=use_mmap))
    context = Context(
        library,
        model,
        n_ctx=plan.n_ctx,
        num_sequences=num_sequences(num_slots),
        n_batch=plan.n_batch,
        num_threads=1,
        num_batch_threads=1,
        cells=CellFormat(plan.kv_type, plan.flash_attention),
    )
    context.close()
    model.close()
    library.close()
    print(f"{path.name}, {n_ctx} tokens, {kv_type}, {num_slots} slots")
    for kind, planned in plan.buffer_bytes:
        print(f"  {kind:<8} planned {planned / MIB:9.2f} MiB, allocated {buffers.total(kind) / MIB:9.2f}")
        assert buffers.total(kind) == pytest.approx(planned, rel=0.02, abs=slack)


def test_a_dry_load_in_a_child_tells_the_compute_buffer(path: Path) -> None:
    plan = make_plan(from_header(read_header(path)), Machine((), 64 << 30), Wish(n_ctx=4096, kv_type="q8_0"))
    done = subprocess.run(
        [sys.executable, "-c", _DRY, str(path), "4096", "q8_0"], capture_output=True, text=True, check=True
    )
    sizes = {kind: num_bytes for _, kind, num_bytes in json.loads(done.stdout)}
    assert sizes["model"] == sizes["KV"] == 0
    assert sizes["compute"] == pytest.approx(plan.compute_bytes, rel=0.02)


def test_a_buffer_line() -> None:
    log = BufferLog()
    for line in (
        "load_tensors:   CPU_Mapped model buffer size =    92.10 MiB",
        "llama_kv_cache:      CUDA0 KV buffer size =    90.00 MiB",
        "nothing of the kind",
    ):
        assert log.read(line) == line
    assert log.entries == (("CPU_Mapped", "model", round(92.1 * MIB)), ("CUDA0", "KV", 90 * MIB))


def logits(path: Path, overrides: tuple[tuple[str, float | str], ...] = ()) -> npt.NDArray[np.float32]:
    """Of the last of 64 tokens."""
    library = Library(lambda line: None)
    model = Model(library, path, Placing(overrides=overrides))
    context = Context(library, model, n_ctx=256, num_sequences=1, n_batch=64, num_threads=1, num_batch_threads=1)
    batch = Batch(64)
    row = batch.add(0, 0, range(1000, 1064), wants_logits=True)
    assert context.decode(batch) == 0
    result = context.logits(row).copy()
    context.close()
    model.close()
    library.close()
    return result


def test_a_broken_yarn_key_is_cured_by_its_override(pocket_gguf: Path, tmp_path: Path) -> None:
    right = pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(right.read_bytes())
    reader = GGUFReader(broken, "r+")
    reader.get_field("mistral3.rope.scaling.yarn_log_multiplier").parts[-1][0] = 1.0
    reader.data.flush()
    del reader
    faults = find_faults(read_header(broken))
    assert [fault.found for fault in faults] == [1.0]
    expected = logits(right)
    assert np.abs(logits(broken) - expected).max() > 0.01
    cured = logits(broken, tuple((fault.key, fault.right) for fault in faults))
    np.testing.assert_array_equal(cured, expected)


def test_a_wrong_pre_type_is_cured_by_its_override(pocket_gguf: Path) -> None:
    library = Library(lambda line: None)
    sample = "}\n\n//"  # one piece for tekken, two for Llama 3
    ids = []
    for overrides in ((), (("tokenizer.ggml.pre", "pixtral"),), (("tokenizer.ggml.pre", "tekken"),)):
        model = Model(library, pocket(pocket_gguf), Placing(overrides=overrides))
        ids.append(model.tokenize(sample))
        model.close()
    library.close()
    assert ids[0] == ids[2] != ids[1]

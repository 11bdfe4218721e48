"""`make oracle`: the converter and the native room against transformers and against llama.cpp's own quantiser.

Logits of the pocket checkpoint at positions 0 to 16k (so that YaRN's factor shows) and behind an image, as
transformers computes them from the safetensors and as our room does from the GGUF; then every quant's tensors against
`llama_model_quantize`, byte for byte. Exit code 1 if anything is further off than the limits here.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.oracle_report import Findings, Row, tell
from mm35local.native.batch import Batch, EmbeddingBatch
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.native.model import Model, Placing
from mm35local.native.vision import VisionEncoder
from mm35local.types import Image, ImageGrid
from quantize.convert import convert
from quantize.recipe import FTYPES
from quantize.vision import write_mmproj
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.gguf_tensors import read_tensors
from tests.quantize.llama_probe import LlamaProbe

Floats = npt.NDArray[np.float32]

_BUCKETS = ((0, 256), (256, 1024), (1024, 4096), (4096, 8192), (8192, 16384))
_PER_BUCKET = 32
_N_BATCH = 512
_BOS, _INST, _INST_END, _IMG, _IMG_BREAK, _IMG_END = 1, 3, 4, 10, 12, 13
_FIRST_TEXT_ID = 1000
_IMAGE_SIZE = (140, 84)
"""Whole cells, so that no side resizes."""
_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
_YARN = "mistral3.rope.scaling.yarn_log_multiplier"
_QUANTS = ("Q4_K_M", "Q4_K_S", "IQ4_XS", "Q5_K_M", "Q6_K", "Q8_0")


@dataclass(frozen=True, slots=True)
class Case:
    ids: npt.NDArray[np.int64]
    wanted: npt.NDArray[np.int64]
    rgb: npt.NDArray[np.uint8] | None = None
    """u8[height, width, 3]; `ids` then hold its [IMG] and [IMG_BREAK] from position 2 on."""


def text_case(n_vocab: int) -> Case:
    """Random ordinary tokens over the whole range of positions."""
    rng = np.random.default_rng(35)
    ids = rng.integers(_FIRST_TEXT_ID, n_vocab, _BUCKETS[-1][1])
    ids[0] = _BOS
    return Case(ids, np.concatenate([np.linspace(a, b - 1, _PER_BUCKET, dtype=np.int64) for a, b in _BUCKETS]))


def image_case(n_vocab: int) -> Case:
    """An image between the beginning and some text; the text's positions are looked at."""
    rng = np.random.default_rng(36)
    width, height = _IMAGE_SIZE
    columns, rows = ImageGrid().cells(width, height)
    image = ([_IMG] * columns + [_IMG_BREAK]) * rows
    image[-1] = _IMG_END
    text = [*rng.integers(_FIRST_TEXT_ID, n_vocab, 62), _INST_END]
    ids = np.array([_BOS, _INST, *image, *text], np.int64)
    return Case(ids, np.arange(1 + len(image), len(ids)), rng.integers(0, 256, (height, width, 3), np.uint8))


def reference(python: Path, checkpoint: Path, case: Case, folder: Path) -> Floats:
    """f32[k, n_vocab] by transformers, in a process of the virtual environment that has torch."""
    arrays = {"ids": case.ids, "wanted": case.wanted}
    if case.rgb is not None:
        normal = (case.rgb.astype(np.float32) / 255 - _MEAN) / _STD
        arrays["pixels"] = np.ascontiguousarray(normal.transpose(2, 0, 1))
    np.savez(folder / "case.npz", allow_pickle=False, **arrays)
    out = folder / "logits.npy"
    subprocess.run([python, "-m", "bench.oracle_reference", checkpoint, folder / "case.npz", out], check=True)
    found: Floats = np.load(out)
    return found


@contextmanager
def _loaded(
    gguf: Path, n_ctx: int, overrides: tuple[tuple[str, float | str], ...]
) -> Iterator[tuple[Library, Model, Context]]:
    library = Library(lambda line: None)
    model = Model(library, gguf, Placing(overrides=overrides))
    context = Context(
        library, model, n_ctx=n_ctx, num_sequences=1, n_batch=_N_BATCH, num_threads=2, num_batch_threads=2
    )
    try:
        yield library, model, context
    finally:
        context.close()
        model.close()
        library.close()


def ours(gguf: Path, case: Case, mmproj: Path | None = None, yarn: float = 0.0) -> Floats:
    """f32[k, n_vocab] by the native room; `yarn` is what the YaRN key says."""
    with _loaded(gguf, len(case.ids) + _N_BATCH, ((_YARN, yarn),)) as (library, model, context):
        found, at = [], 0
        if mmproj is not None and case.rgb is not None:
            _decode(context, case.ids[:2], 0)
            at = 2 + _decode_image(library, model, context, mmproj, case.rgb)
        for position in case.wanted:
            while at <= position:
                end = min(at + _N_BATCH, int(position) + 1)
                row = _decode(context, case.ids[at:end], at)
                at = end
            found.append(context.logits(row).copy())
        return np.stack(found)


def _decode(context: Context, ids: Sequence[int] | npt.NDArray[np.int64], position: int) -> int:
    batch = Batch(_N_BATCH)
    row = batch.add(0, position, [int(token) for token in ids], wants_logits=True)
    code = context.decode(batch)
    assert code == 0, f"llama_decode returned {code}"
    return row


def _decode_image(library: Library, model: Model, context: Context, mmproj: Path, rgb: npt.NDArray[np.uint8]) -> int:
    height, width, _ = rgb.shape
    columns, rows = ImageGrid().cells(width, height)
    encoder = VisionEncoder(library, mmproj, model, gpu=None, num_threads=2, max_image_tokens=ImageGrid().max_cells)
    try:
        embeddings = encoder.encode(Image(width, height, rgb.tobytes(), (columns + 1) * rows - 1))
    finally:
        encoder.close()
    code = context.decode(EmbeddingBatch(0, 2, embeddings))
    assert code == 0, f"llama_decode returned {code}"
    return len(embeddings)


def compare(what: str, case: Case, expected: Floats, found: Floats) -> list[Row]:
    """A row per bucket of positions that the case looks at."""
    log_p, log_q = _log_softmax(expected), _log_softmax(found)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    delta = np.abs(expected - found).max(axis=1)
    rows = []
    for first, end in _BUCKETS:
        inside = (case.wanted >= first) & (case.wanted < end)
        if inside.any():
            rows.append(
                Row(what, f"{first}-{end - 1}", *map(float, (delta[inside].max(), kl[inside].mean(), kl[inside].max())))
            )
    return rows


def _log_softmax(logits: Floats) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def byte_identity(checkpoint: Path, f32: Path, folder: Path) -> dict[str, tuple[int, int]]:
    """Per quant (tensors that equal llama.cpp's own in type, shape and bytes, tensors in all)."""
    same = {}
    with LlamaProbe() as probe:
        for quant in _QUANTS:
            mine = convert(checkpoint, folder / "mine", [quant]).files[0].path
            theirs = folder / f"theirs-{quant}.gguf"
            assert probe.ask("quantize", source=str(f32), target=str(theirs), ftype=FTYPES[quant]) == 0
            expected, found = read_tensors(theirs), read_tensors(mine)
            equal = sum(found.get(name) == tensor for name, tensor in expected.items())
            same[quant] = (equal, max(len(expected), len(found)))
    return same


def measure(python: Path, folder: Path) -> Findings:
    """Text and image on both layouts, the YaRN mistake, and every quant."""
    hf, native = write_pocket(folder / "pocket")
    n_vocab = PocketConfig().n_vocab
    files = {
        "hf": convert(hf, folder / "hf", ["F32", "BF16"]).files,
        "native": convert(native, folder / "native", ["F32"]).files,
    }
    text, image = text_case(n_vocab), image_case(n_vocab)
    expected_text, expected_image = (reference(python, hf, case, folder) for case in (text, image))
    close = []
    for layout, converted in files.items():
        for file in converted:
            close += compare(f"text, {layout}, {file.quant}", text, expected_text, ours(file.path, text))
        for kind in ("F16", "BF16", "Q8_0"):
            mmproj = write_mmproj(hf if layout == "hf" else native, folder / layout, kind).path
            found = ours(converted[0].path, image, mmproj)
            close += compare(f"image, {layout}, F32 + mmproj {kind}", image, expected_image, found)
    wrong = compare("text, hf, F32, YaRN key 1.0", text, expected_text, ours(files["hf"][0].path, text, yarn=1.0))
    return Findings(close, wrong, byte_identity(native, files["hf"][0].path, folder))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.oracle", description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(".venv-oracle/bin/python"), help="the one with torch")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings = measure(arguments.python, Path(folder))
    tell(findings)
    return int(not findings.is_right)


if __name__ == "__main__":
    sys.exit(main())

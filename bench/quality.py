"""What a quant costs: `python -m bench.quality [--cases N]` on the trained pocket model.

Every quant is converted from the committed release and held against the BF16 GGUF on held-out dialogues: perplexity,
KL divergence (mean, 99th percentile) and top-1 agreement over the assistant's tokens, each mean with its standard
error over dialogues, and how many of each family's questions it answers right, greedy.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from base64 import b64decode
from collections import Counter
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown

from bench.results_file import RESULTS, machine
from mm35local.chat.dialect import Dialect, load_dialect
from mm35local.chat.messages import Conversation, ImageAt, Message, Role
from mm35local.engine.api import EngineConfig, EngineState, Failed, Tokens
from mm35local.engine.client import EngineClient
from mm35local.models.gguf_header import read_header
from mm35local.native.batch import Batch
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.server.pixels import read_pixels
from mm35local.types import ImageGrid, Prompt, SamplingParams
from quantize.convert import convert
from quantize.vision import write_mmproj
from tests.pocket.training.case import Case
from tests.pocket.training.encode import Encoder, Sample
from tests.pocket.training.families import FAMILIES, held_out_cases
from tests.pocket.training.released import RELEASE

REFERENCE = "BF16"
QUANTS = (REFERENCE, "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS")
_BY_BITS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M")
DOCUMENT = Path(__file__).parents[1] / "docs" / "quality.md"
_N_CTX = 6144
_NUM_ROWS = 64
_LONGEST_REPLY = 96
_LONGEST_PROMPT = 1000
"""For the divergence; the answers are asked for at any length."""
Logs = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over dialogues and its standard error."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        array = np.asarray(values)
        return cls(float(array.mean()), float(array.std(ddof=1) / np.sqrt(len(array))))

    def __str__(self) -> str:
        return f"{self.mean:.5f} ± {self.error:.5f}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """Of one quant from the reference, over the assistant's tokens of the held-out dialogues."""

    log_perplexity: Estimate
    kl: Estimate
    kl_p99: float
    agreement: Estimate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=24, help="held-out cases of each family")
    arguments = parser.parse_args()
    encoder = Encoder(RELEASE / "tekken.json")
    cases = [case for family in FAMILIES for case in held_out_cases(family, arguments.cases)]
    with tempfile.TemporaryDirectory() as folder:
        files = {file.quant: file.path for file in convert(RELEASE, Path(folder), QUANTS).files}
        mmproj = write_mmproj(RELEASE, Path(folder)).path
        dialect = load_dialect(read_header(files[REFERENCE]).metadata, REFERENCE, has_vision=True)
        prompts = [_prompt(case, encoder, dialect) for case in cases]
        samples = [encoder.sample(case) for case in cases if not case.images]
        short = [sample for sample in samples if sample.num_prompt < _LONGEST_PROMPT]
        following = [np.asarray([sample.ids[row + 1] for row in _target_rows(sample)]) for sample in short]
        reference = _logs(files[REFERENCE], short)
        divergences, passed = {}, {}
        for quant, path in files.items():
            divergences[quant] = _divergence(reference, _logs(path, short), following)
            replies = asyncio.run(_replies(path, mmproj, prompts))
            passed[quant] = Counter(
                case.family for case, ids in zip(cases, replies, strict=True) if case.passes(encoder.reply(list(ids)))
            )
        sizes = {quant: path.stat().st_size for quant, path in files.items()}
    asked = Counter(case.family for case in cases)
    _write(divergences, passed, asked, sizes)


# --- logits ---


def _logs(path: Path, samples: Sequence[Sample]) -> list[Logs]:
    """Per sample the log-probabilities that predict each of the assistant's tokens, f32[num_targets, n_vocab]."""
    library = Library(lambda line: None)
    model = Model(library, path)
    context = Context(
        library, model, n_ctx=_N_CTX, num_sequences=_NUM_ROWS, n_batch=_NUM_ROWS, num_threads=1, num_batch_threads=1
    )
    batch = Batch(_NUM_ROWS)
    try:
        return [_sample_logs(context, batch, sample) for sample in samples]
    finally:
        context.close()
        model.close()


def _sample_logs(context: Context, batch: Batch, sample: Sample) -> Logs:
    context.seq_rm(0, 0)
    rows = set(_target_rows(sample))
    kept: list[Logs] = []
    for first in range(0, len(sample.ids) - 1, _NUM_ROWS):
        batch.clear()
        positions = range(first, min(first + _NUM_ROWS, len(sample.ids) - 1))
        for position in positions:
            batch.add(0, position, [sample.ids[position]], wants_logits=position in rows)
        code = context.decode(batch)
        assert code == 0, f"llama_decode gave {code}"
        kept += [context.logits(p - first).astype(np.float32) for p in positions if p in rows]
    return _log_softmax(np.stack(kept))


def _target_rows(sample: Sample) -> list[int]:
    """Positions whose next token the assistant wrote."""
    return [i for i in range(len(sample.ids) - 1) if sample.is_target[i + 1]]


def _log_softmax(logits: Logs) -> Logs:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)), np.float32)


def _divergence(
    reference: Sequence[Logs], quantised: Sequence[Logs], following: Sequence[NDArray[np.int64]]
) -> Divergence:
    """KL(reference || quantised) in nats; `following` are the ids that did follow."""
    losses, means, agreements, every = [], [], [], []
    for base, logs, ids in zip(reference, quantised, following, strict=True):
        kl = (np.exp(base) * (base - logs)).sum(axis=-1)
        every.append(kl)
        means.append(float(kl.mean()))
        losses.append(float(-logs[np.arange(len(ids)), ids].mean()))
        agreements.append(float((base.argmax(-1) == logs.argmax(-1)).mean()))
    p99 = float(np.percentile(np.concatenate(every), 99))
    return Divergence(Estimate.of(losses), Estimate.of(means), p99, Estimate.of(agreements))


# --- answers ---


def _prompt(case: Case, encoder: Encoder, dialect: Dialect) -> Prompt:
    """Text as training encoded it; a question about an image as the server renders it, from pixels to rows."""
    if not case.images:
        sample = encoder.sample(case)
        return Prompt(sample.ids[: sample.num_prompt])
    ((picture, question),) = (message["content"] for message in case.messages)
    image = read_pixels(b64decode(picture["image_url"]["url"].partition(",")[2]), ImageGrid(), "image")
    message = Message(Role.USER, question["text"], images=(ImageAt(0, image),))
    ids = dialect.render(Conversation((message,), datetime.now(UTC)))
    return Prompt(tuple(token for token in ids if isinstance(token, int)), (image,))


async def _replies(path: Path, mmproj: Path, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """Greedy answers through the real engine, one after another: answers side by side would round differently."""
    log = path.with_suffix(".log")
    engine = EngineClient(EngineConfig(model_path=path, mmproj_path=mmproj, log_path=log, n_ctx=_N_CTX))
    await engine.start()
    try:
        while engine.status.state is EngineState.LOADING:
            await asyncio.sleep(0.01)
        return [await _reply(engine, prompt) for prompt in prompts]
    finally:
        await engine.aclose()


async def _reply(engine: EngineClient, prompt: Prompt) -> tuple[int, ...]:
    ids: list[int] = []
    async with aclosing(engine.generate(prompt, SamplingParams(temperature=0, max_tokens=_LONGEST_REPLY))) as events:
        async for event in events:
            if isinstance(event, Tokens):
                ids += event.token_ids
            elif isinstance(event, Failed):
                raise event.error
    return tuple(ids)


# --- the tables ---


def _write(
    divergences: dict[str, Divergence], passed: dict[str, Counter[str]], asked: Counter[str], sizes: dict[str, int]
) -> None:
    text = _document(divergences, passed, asked, sizes)
    DOCUMENT.write_text(text, "utf-8")
    rows = {
        quant: {
            "bytes": sizes[quant],
            "kl_mean": d.kl.mean,
            "kl_error": d.kl.error,
            "kl_p99": d.kl_p99,
            "log_perplexity": d.log_perplexity.mean,
            "top1_agreement": d.agreement.mean,
            "passed": passed[quant],
        }
        for quant, d in divergences.items()
    }
    document = {"name": "quality", "machine": machine(), "asked": asked, "quants": rows}
    (RESULTS / "quality.json").write_text(json.dumps(document, indent=2) + "\n")
    Console().print(Markdown(text))


def _order(divergences: dict[str, Divergence]) -> list[str]:
    """A sentence for each pair of neighbours whose means stand against the number of their bits."""
    lines = []
    for better, worse in pairwise(_BY_BITS):
        one, other = divergences[better], divergences[worse]
        if one.kl.mean > other.kl.mean:
            sigma = (one.kl.mean - other.kl.mean) / np.hypot(one.kl.error, other.kl.error)
            tail = f"99th percentiles are {one.kl_p99:.5f} and {other.kl_p99:.5f}"
            lines += [
                f"The mean of {better} lies above that of {worse} by {sigma:.1f} standard errors; their {tail}.",
                "",
            ]
    return lines


def _document(
    divergences: dict[str, Divergence], passed: dict[str, Counter[str]], asked: Counter[str], sizes: dict[str, int]
) -> str:
    lines = [
        "# What a quant costs",
        "",
        "Written by `python -m bench.quality` from the trained pocket model (tests/pocket/trained): every quant",
        f"against the BF16 GGUF over the assistant's tokens of held-out texts (below {_LONGEST_PROMPT} tokens);",
        "± is the standard error over dialogues.",
        "",
        "| quant | MB | perplexity | KL divergence, mean | KL, 99th percentile | top-1 agreement |",
        "|---|---|---|---|---|---|",
    ]
    for quant, d in divergences.items():
        perplexity = (
            f"{np.exp(d.log_perplexity.mean):.5f} ± {np.exp(d.log_perplexity.mean) * d.log_perplexity.error:.5f}"
        )
        lines.append(f"| {quant} | {sizes[quant] / 1e6:.2f} | {perplexity} | {d.kl} | {d.kl_p99:.5f} | {d.agreement} |")
    lines += [
        "",
        *_order(divergences),
        "Answers that are right, greedy, through the engine, images through the F16 projector:",
        "",
        f"| family | asked | {' | '.join(passed)} |",
    ]
    lines.append("|---|---|" + "---|" * len(passed))
    for family, count in asked.items():
        lines.append(f"| {family} | {count} | {' | '.join(str(right[family]) for right in passed.values())} |")
    lines.append(f"| all | {asked.total()} | {' | '.join(str(right.total()) for right in passed.values())} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

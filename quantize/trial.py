"""`python -m quantize.trial FILE`: loads a GGUF with llama.cpp and continues a short prompt, in a process of its own.

Prints the token ids as JSON. A file that makes ggml end the process ends this one only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from mm35local.errors import ConversionError, Mm35Error
from mm35local.native.batch import Batch
from mm35local.native.context import Context
from mm35local.native.library import Library
from mm35local.native.model import Model

_PROMPT = "The capital of France is"
_NUM_TOKENS = 8
_N_CTX = 256
_LAST_WORDS = 500


def try_file(path: Path) -> tuple[int, ...]:
    """The ids that follow a short prompt at temperature 0. Raises ConversionError with the child's last words."""
    command = [sys.executable, "-m", "quantize.trial", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        told = done.stderr.strip()[-_LAST_WORDS:] or f"it ended with code {done.returncode}"
        raise ConversionError(f"llama.cpp cannot run {path}: {told}", "convert again; if it stays so, report it")
    return tuple(json.loads(done.stdout))


def generate(path: Path) -> list[int]:
    """Raises LoadFailed, or ConversionError for logits that are no numbers."""
    library = Library(lambda line: None)
    model = Model(library, path)
    num_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    context = Context(
        library,
        model,
        n_ctx=_N_CTX,
        num_sequences=1,
        n_batch=_N_CTX,
        num_threads=num_threads,
        num_batch_threads=num_threads,
    )
    ids = model.tokenize(_PROMPT) or [0]
    num_prompt = len(ids)
    batch = Batch(_N_CTX)
    row = batch.add(0, 0, ids, wants_logits=True)
    while len(ids) < num_prompt + _NUM_TOKENS:
        code = context.decode(batch)
        if code != 0 or not np.isfinite(context.logits(row)).all():
            raise ConversionError(f"{path}: llama_decode gave code {code} or logits that are no numbers", "report it")
        ids.append(int(context.logits(row).argmax()))
        batch.clear()
        row = batch.add(0, len(ids) - 1, ids[-1:], wants_logits=True)
    context.close()
    model.close()
    library.close()
    return ids[num_prompt:]


if __name__ == "__main__":
    try:
        print(json.dumps(generate(Path(sys.argv[1]))))
    except Mm35Error as error:
        sys.exit(str(error))

"""llama.cpp in a process of its own, because ggml ends the process when it is unhappy.

`python -m tests.quantize.llama_probe` reads one JSON command a line and answers each with one JSON line.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Self

from tests.quantize import mtmd_probe


class LlamaProbe:
    """The parent's end."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "tests.quantize.llama_probe"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pipe(self._process.stdin).close()
        self._process.wait(30)
        self._pipe(self._process.stdout).close()

    def ask(self, verb: str, **arguments: Any) -> Any:
        pipe = self._pipe(self._process.stdin)
        pipe.write(json.dumps({"verb": verb, "arguments": arguments}) + "\n")
        pipe.flush()
        answer = self._pipe(self._process.stdout).readline()
        assert answer, f"llama.cpp died of {verb} with code {self._process.wait(30)}"
        return json.loads(answer)

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


@contextmanager
def _model(path: str, vocab_only: bool) -> Iterator[Any]:
    from llama_cpp import llama_cpp

    params = llama_cpp.llama_model_default_params()
    params.vocab_only = vocab_only
    params.check_tensors = True
    params.use_extra_bufts = False  # AMX tiles end the process where a virtual machine only shows them
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    try:
        yield model
    finally:
        llama_cpp.llama_model_free(model)


def quantize(
    source: str,
    target: str,
    ftype: int,
    overrides: list[tuple[str, int]] | None = None,
    imatrix: dict[str, list[float]] | None = None,
) -> int:
    """llama.cpp's own quantiser; 0 is success."""
    from llama_cpp import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = ftype
    params.nthread = 2
    rules = [llama_cpp.llama_model_tensor_override(pattern.encode(), kind) for pattern, kind in overrides or ()]
    params.tt_overrides = (llama_cpp.llama_model_tensor_override * (len(rules) + 1))(*rules)
    entries = [
        llama_cpp.llama_model_imatrix_data(name.encode(), (ctypes.c_float * len(values))(*values), len(values))
        for name, values in (imatrix or {}).items()
    ]
    if entries:
        params.imatrix = (llama_cpp.llama_model_imatrix_data * (len(entries) + 1))(*entries)
    return int(llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params)))


def logits(path: str, token_ids: list[int]) -> list[list[float]]:
    """Logits after each of `token_ids`, by one decode."""
    from llama_cpp import llama_cpp

    with _model(path, False) as model:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = 512
        params.n_threads = params.n_threads_batch = 2
        context = llama_cpp.llama_init_from_model(model, params)
        assert context
        batch = llama_cpp.llama_batch_init(len(token_ids), 0, 1)
        batch.n_tokens = len(token_ids)
        for position, token in enumerate(token_ids):
            batch.token[position], batch.pos[position] = token, position
            batch.n_seq_id[position], batch.seq_id[position][0], batch.logits[position] = 1, 0, 1
        code = llama_cpp.llama_decode(context, batch)
        assert code == 0, f"llama_decode returned {code}"
        n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        rows = [llama_cpp.llama_get_logits_ith(context, index)[:n_vocab] for index in range(len(token_ids))]
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)
        return rows


def tokenize(path: str, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, special tokens not parsed, no BOS."""
    from llama_cpp import llama_cpp

    with _model(path, True) as model:
        vocab = llama_cpp.llama_model_get_vocab(model)
        results = []
        for text in texts:
            raw = text.encode()
            tokens = (llama_cpp.llama_token * (len(raw) + 1))()
            count = llama_cpp.llama_tokenize(vocab, raw, len(raw), tokens, len(tokens), False, False)
            assert count >= 0
            results.append(tokens[:count])
        return results


def image_tokens(path: str, mmproj: str, sizes: list[tuple[int, int]]) -> list[int]:
    with _model(path, False) as model:
        return mtmd_probe.image_tokens(model, mmproj, sizes)


def image_embeddings(path: str, mmproj: str, size: tuple[int, int], n_embd: int) -> list[list[float]]:
    with _model(path, False) as model:
        return mtmd_probe.image_embeddings(model, mmproj, size, n_embd)


def facts(path: str) -> dict[str, Any]:
    """What llama.cpp itself believes about the model."""
    from llama_cpp import llama_cpp

    with _model(path, True) as model:
        vocab = llama_cpp.llama_model_get_vocab(model)
        template = llama_cpp.llama_model_chat_template(model, None)
        return {
            "n_vocab": llama_cpp.llama_vocab_n_tokens(vocab),
            "bos": llama_cpp.llama_vocab_bos(vocab),
            "eos": llama_cpp.llama_vocab_eos(vocab),
            "pad": llama_cpp.llama_vocab_pad(vocab),
            "add_bos": llama_cpp.llama_vocab_get_add_bos(vocab),
            "add_eos": llama_cpp.llama_vocab_get_add_eos(vocab),
            "is_control": [llama_cpp.llama_vocab_is_control(vocab, token) for token in range(1001)],
            "template": template.decode() if template else None,
        }


def _serve() -> None:
    from llama_cpp import llama_cpp, mtmd_cpp

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    mtmd_cpp.mtmd_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    verbs: dict[str, Callable[..., Any]] = {
        "quantize": quantize,
        "logits": logits,
        "tokenize": tokenize,
        "facts": facts,
        "image_tokens": image_tokens,
        "image_embeddings": image_embeddings,
    }
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(verbs[command["verb"]](**command["arguments"])), flush=True)


if __name__ == "__main__":
    _serve()

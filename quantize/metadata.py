"""The keys of the GGUF: sizes, rope, tokenizer, template and provenance, all from the checkpoint's own files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import numpy as np

import mm35local
from quantize.hyperparameters import Hyperparameters
from quantize.imatrix import Imatrix
from quantize.model_card import ModelCard
from quantize.recipe import ARCHITECTURE, FTYPES
from quantize.vocabulary import Vocabulary

MetadataValue = str | bool | int | float | list[str] | list[int] | list[float] | np.uint16 | np.int32
Metadata = dict[str, MetadataValue]

_QUANTIZATION_VERSION = 2


def common_metadata(
    params: Hyperparameters, vocabulary: Vocabulary, card: ModelCard, chat_template: str | None
) -> Metadata:
    """Every key that does not depend on the quant."""
    metadata: Metadata = {
        **provenance(card, "model"),
        **_sizes(params),
        **_rope(params),
        **_tokenizer(vocabulary),
    }
    return metadata | {"tokenizer.chat_template": chat_template} if chat_template else metadata


def provenance(card: ModelCard, kind: str) -> Metadata:
    """Whose weights these are and what wrote the file; `kind` is GGUF's general.type. Empty strings are left out."""
    metadata: Metadata = {
        "general.type": kind,
        "general.name": card.name,
        "general.license": card.license,
        "general.license.name": card.license_name,
        "general.license.link": card.license_link,
        "general.quantized_by": "mm35local",
        "general.quantization_version": _QUANTIZATION_VERSION,
        "mm35local.version": mm35local.__version__,
        "mm35local.source.repo": card.repo,
        "mm35local.source.revision": card.revision,
    }
    return {key: value for key, value in metadata.items() if value != ""}


def quant_metadata(quant_name: str, tensor_types: Sequence[str] = (), imatrix: Imatrix | None = None) -> Metadata:
    """The recipe stands there in the words of the command line, an importance matrix with its SHA-256."""
    words = [f"--to {quant_name}", *(f"--tensor-type {shlex.quote(rule)}" for rule in tensor_types)]
    if imatrix is not None:
        words.append(f"--imatrix {shlex.quote(imatrix.file)}#sha256={imatrix.sha256}")
    return {"general.file_type": FTYPES[quant_name], "mm35local.recipe": " ".join(words)}


def _sizes(params: Hyperparameters) -> Metadata:
    return {
        f"{ARCHITECTURE}.context_length": params.n_ctx,
        f"{ARCHITECTURE}.embedding_length": params.n_embd,
        f"{ARCHITECTURE}.block_count": params.num_layers,
        f"{ARCHITECTURE}.feed_forward_length": params.n_ff,
        f"{ARCHITECTURE}.vocab_size": params.n_vocab,
        f"{ARCHITECTURE}.attention.head_count": params.n_head,
        f"{ARCHITECTURE}.attention.head_count_kv": params.n_head_kv,
        f"{ARCHITECTURE}.attention.key_length": params.head_dim,
        f"{ARCHITECTURE}.attention.value_length": params.head_dim,
        f"{ARCHITECTURE}.attention.layer_norm_rms_epsilon": params.rms_norm_eps,
        f"{ARCHITECTURE}.attention.temperature_scale": params.rope.temperature_scale,
    }


def _rope(params: Hyperparameters) -> Metadata:
    rope = params.rope
    return {
        f"{ARCHITECTURE}.rope.dimension_count": params.head_dim,
        f"{ARCHITECTURE}.rope.freq_base": rope.theta,
        f"{ARCHITECTURE}.rope.scaling.type": "yarn",
        f"{ARCHITECTURE}.rope.scaling.factor": rope.factor,
        f"{ARCHITECTURE}.rope.scaling.original_context_length": rope.original_n_ctx,
        f"{ARCHITECTURE}.rope.scaling.yarn_beta_fast": rope.beta_fast,
        f"{ARCHITECTURE}.rope.scaling.yarn_beta_slow": rope.beta_slow,
        f"{ARCHITECTURE}.rope.scaling.yarn_log_multiplier": rope.log_multiplier,
    }


def _tokenizer(vocabulary: Vocabulary) -> Metadata:
    ids = {"bos": "<s>", "eos": "</s>", "unknown": "<unk>", "padding": "<pad>"}
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "tekken",
        "tokenizer.ggml.tokens": vocabulary.tokens,
        "tokenizer.ggml.token_type": vocabulary.token_types,
        "tokenizer.ggml.merges": vocabulary.merges,
        **{f"tokenizer.ggml.{key}_token_id": vocabulary.special_ids[token] for key, token in ids.items()},
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
    }

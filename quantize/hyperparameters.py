"""The sizes of the text decoder, out of config.json (HF) or params.json (native); both give the same object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint, Layout
from quantize.json_file import read_object
from quantize.yarn import log_multiplier

_MAX_LAYERS = 512
"""llama.cpp's LLAMA_MAX_LAYERS; it aborts the process above."""
_Size = Annotated[int, Field(ge=1, lt=1 << 31)]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Form = TypeVar("_Form", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Rope:
    theta: float
    factor: float
    original_n_ctx: int
    beta_fast: float
    beta_slow: float
    log_multiplier: float
    temperature_scale: float


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    num_layers: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_vocab: int
    n_ctx: int
    rms_norm_eps: float
    is_tied: bool
    """The output matrix is the embedding; there is no lm_head."""
    rope: Rope


class _Yarn(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)
    factor: _Positive
    original_n_ctx: _Size = Field(alias="original_max_position_embeddings")


class _HfYarn(_Yarn):
    rope_type: str = Field(validation_alias=AliasChoices("rope_type", "type"), pattern="^yarn$")
    theta: _Positive = Field(alias="rope_theta")
    beta_fast: _Positive
    beta_slow: _Positive
    mscale_all_dim: float | None = None
    llama_4_scaling_beta: float = 0.0


class _HfText(BaseModel):
    num_layers: int = Field(alias="num_hidden_layers", ge=1, le=_MAX_LAYERS)
    n_embd: _Size = Field(alias="hidden_size")
    n_ff: _Size = Field(alias="intermediate_size")
    n_head: _Size = Field(alias="num_attention_heads")
    n_head_kv: _Size = Field(alias="num_key_value_heads")
    head_dim: _Size
    n_vocab: _Size = Field(alias="vocab_size")
    n_ctx: _Size = Field(alias="max_position_embeddings")
    rms_norm_eps: _Positive
    yarn: _HfYarn = Field(alias="rope_parameters")


class _HfConfig(BaseModel):
    model_type: str = Field(pattern="^mistral3$")
    tie_word_embeddings: bool = False
    text: _HfText = Field(alias="text_config")


class _NativeYarn(_Yarn):
    beta_fast: _Positive = Field(alias="beta")
    beta_slow: _Positive = Field(alias="alpha")
    apply_scale: bool = True


class _Llama4Scaling(BaseModel):
    beta: float = 0.0


class _NativeParams(BaseModel):
    num_layers: int = Field(alias="n_layers", ge=1, le=_MAX_LAYERS)
    n_embd: _Size = Field(alias="dim")
    n_ff: _Size = Field(alias="hidden_dim")
    n_head: _Size = Field(alias="n_heads")
    n_head_kv: _Size = Field(alias="n_kv_heads")
    head_dim: _Size
    n_vocab: _Size = Field(alias="vocab_size")
    n_ctx: _Size = Field(validation_alias=AliasChoices("max_position_embeddings", "max_seq_len"))
    rms_norm_eps: _Positive = Field(alias="norm_eps")
    theta: _Positive = Field(alias="rope_theta")
    is_tied: bool = Field(False, alias="tied_embeddings")
    yarn: _NativeYarn
    llama_4_scaling: _Llama4Scaling | None = None


def read_hyperparameters(checkpoint: Checkpoint) -> tuple[Hyperparameters, tuple[str, ...]]:
    """(sizes, warnings for the user). Raises CheckpointError naming the file and the field."""
    path = checkpoint.folder / checkpoint.layout.config_name
    params, warnings = _from_hf(path) if checkpoint.layout is Layout.HF else _from_native(path)
    if params.n_head % params.n_head_kv or params.head_dim % 2:
        raise CheckpointError(
            str(path), f"{params.n_head} heads, {params.n_head_kv} KV heads of {params.head_dim} do not fit together"
        )
    return params, warnings


def _from_hf(path: Path) -> tuple[Hyperparameters, tuple[str, ...]]:
    config = parse_form(_HfConfig, read_object(path), path)
    text, yarn = config.text, config.text.yarn
    try:
        multiplier, warning = log_multiplier(
            yarn.factor, yarn.original_n_ctx, yarn.mscale_all_dim, _apply_scale_beside(path)
        )
    except ValueError as error:
        raise CheckpointError(str(path), str(error)) from error
    rope = Rope(
        yarn.theta, yarn.factor, yarn.original_n_ctx, yarn.beta_fast, yarn.beta_slow, multiplier,
        yarn.llama_4_scaling_beta,
    )  # fmt: skip
    return _assemble(text, config.tie_word_embeddings, rope), (warning,) if warning else ()


def _from_native(path: Path) -> tuple[Hyperparameters, tuple[str, ...]]:
    params = parse_form(_NativeParams, read_object(path), path)
    yarn = params.yarn
    multiplier, _ = log_multiplier(yarn.factor, yarn.original_n_ctx, None, yarn.apply_scale)
    scaling = params.llama_4_scaling or _Llama4Scaling()
    rope = Rope(
        params.theta, yarn.factor, yarn.original_n_ctx, yarn.beta_fast, yarn.beta_slow, multiplier, scaling.beta
    )
    return _assemble(params, params.is_tied, rope), ()


def _apply_scale_beside(config: Path) -> bool | None:
    """What params.json says where both layouts stand in one folder."""
    path = config.with_name(Layout.NATIVE.config_name)
    return parse_form(_NativeParams, read_object(path), path).yarn.apply_scale if path.is_file() else None


def _assemble(form: _HfText | _NativeParams, is_tied: bool, rope: Rope) -> Hyperparameters:
    return Hyperparameters(
        form.num_layers, form.n_embd, form.n_ff, form.n_head, form.n_head_kv, form.head_dim, form.n_vocab, form.n_ctx,
        form.rms_norm_eps, is_tied, rope,
    )  # fmt: skip


def parse_form(form: type[_Form], value: dict[str, Any], path: Path) -> _Form:
    """`value` of `path` as `form`. Raises CheckpointError naming the first field that is wrong."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(str(path), f"{field}: {first['msg']}") from error

"""The sizes of the vision tower and the projector, out of config.json (HF) or params.json (native).

Whatever libmtmd's pixtral graph fixes in code is checked here, so that a projector it would compute wrongly is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, Field

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint, Layout
from quantize.hyperparameters import parse_form
from quantize.json_file import read_object

_Size = Annotated[int, Field(ge=1, lt=1 << 16)]
_MTMD_ROPE_THETA = 10_000.0
"""clip.cpp sets it for pixtral and reads no key."""
_Theta = Annotated[float, Field(ge=_MTMD_ROPE_THETA, le=_MTMD_ROPE_THETA)]


@dataclass(frozen=True, slots=True)
class VisionParams:
    num_layers: int
    n_embd: int
    n_ff: int
    n_head: int
    image_size: int
    """Longest edge in pixels."""
    patch_size: int
    merge_size: int
    """A square of so many patches a side becomes one token."""
    n_embd_text: int

    @property
    def head_dim(self) -> int:
        return self.n_embd // self.n_head


class _Tower(BaseModel):
    num_layers: int = Field(alias="num_hidden_layers", ge=1, le=512)
    n_embd: _Size = Field(alias="hidden_size")
    n_ff: _Size = Field(alias="intermediate_size")
    n_head: _Size = Field(alias="num_attention_heads")
    head_dim: _Size | None = None
    num_channels: Literal[3] = 3
    image_size: int = Field(ge=1, le=8192)
    patch_size: int = Field(ge=1, le=1024)


class _HfRope(BaseModel):
    theta: _Theta = Field(alias="rope_theta")


class _HfTower(_Tower):
    model_type: Literal["pixtral"]
    hidden_act: Literal["silu"] = "silu"
    rope_theta: _Theta = _MTMD_ROPE_THETA
    rope: _HfRope | None = Field(None, alias="rope_parameters")


class _HfText(BaseModel):
    n_embd: _Size = Field(alias="hidden_size")


class _HfConfig(BaseModel):
    text: _HfText = Field(alias="text_config")
    tower: _HfTower = Field(alias="vision_config")
    merge_size: int = Field(alias="spatial_merge_size", ge=1, le=16)
    feature_layer: Literal[-1] = Field(-1, alias="vision_feature_layer")
    projector_act: Literal["gelu"] = Field("gelu", alias="projector_hidden_act")
    has_bias: Literal[False] = Field(False, alias="multimodal_projector_bias")


class _NativeTower(_Tower):
    image_size: int = Field(validation_alias=AliasChoices("max_image_size", "image_size"), ge=1, le=8192)
    merge_size: int = Field(alias="spatial_merge_size", ge=1, le=16)
    rope_theta: _Theta = _MTMD_ROPE_THETA
    projector: Literal["patch_merge"] = Field(alias="mm_projector_id")
    has_norm: Literal[True] = Field(alias="add_pre_mm_projector_layer_norm")
    has_bias: Literal[False] = Field(False, alias="adapter_bias")


class _NativeParams(BaseModel):
    n_embd: _Size = Field(alias="dim")
    tower: _NativeTower = Field(alias="vision_encoder")


def read_vision_params(checkpoint: Checkpoint) -> VisionParams:
    """Raises CheckpointError naming the file and the field."""
    path = checkpoint.folder / checkpoint.layout.config_name
    value = read_object(path)
    if checkpoint.layout is Layout.HF:
        config = parse_form(_HfConfig, value, path)
        return _assemble(config.tower, config.merge_size, config.text.n_embd, path)
    params = parse_form(_NativeParams, value, path)
    return _assemble(params.tower, params.tower.merge_size, params.n_embd, path)


def _assemble(tower: _Tower, merge_size: int, n_embd_text: int, path: Path) -> VisionParams:
    head_dim = tower.head_dim or tower.n_embd // tower.n_head
    if head_dim * tower.n_head != tower.n_embd or head_dim % 4:
        raise CheckpointError(
            str(path), f"{tower.n_head} vision heads of {head_dim} do not fit {tower.n_embd} with 2-D rope"
        )
    return VisionParams(
        tower.num_layers, tower.n_embd, tower.n_ff, tower.n_head, tower.image_size, tower.patch_size, merge_size,
        n_embd_text,
    )  # fmt: skip

"""models.toml as checked data: which models there are, in which variants, and where each file comes from."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from mm35local.errors import UnknownModel, UsageError


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class WheelOrigin(_Frozen):
    """The GGUF is a member of a wheel in the Python package registry."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class HubOrigin(_Frozen):
    """The GGUF is a file of a hub repository."""

    kind: Literal["hub"]
    repo: str


class ConvertOrigin(_Frozen):
    """`mm35 quantize` makes the GGUF from this checkpoint."""

    kind: Literal["convert"]
    repo: str


Origin = Annotated[WheelOrigin | HubOrigin | ConvertOrigin, Field(discriminator="kind")]


class Sampling(_Frozen):
    """The makers' sampling defaults at one reasoning effort."""

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)


class ShapeFields(_Frozen):
    """The decoder's dimensions, for planning a file that is not here: `mixes.Shape` without the context."""

    n_layer: PositiveInt
    n_embd: PositiveInt
    n_ff: PositiveInt
    n_head: PositiveInt
    n_head_kv: PositiveInt
    head_dim: PositiveInt
    n_vocab: PositiveInt


class Variant(_Frozen):
    """One file of a model."""

    quant: str
    bytes: PositiveInt
    file: str = Field(pattern=r"^[^/\\]+\.gguf$")
    origin: Origin


class Entry(_Frozen):
    """One model; `sampling` is keyed by reasoning effort, `kv_bytes_per_token` by KV type."""

    title: str
    source: str
    licence: str
    rank: int
    n_ctx_train: PositiveInt
    kv_bytes_per_token: Mapping[str, PositiveInt]
    sampling: Mapping[Literal["none", "high"], Sampling]
    variants: tuple[Variant, ...] = Field(min_length=1)
    shape: ShapeFields | None = None

    @cached_property
    def smallest(self) -> Variant:
        return min(self.variants, key=lambda variant: variant.bytes)

    def variant(self, quant: str) -> Variant:
        """The variant of that quant, in any spelling of case. Raises UsageError."""
        for variant in self.variants:
            if variant.quant.lower() == quant.lower():
                return variant
        known = ", ".join(variant.quant for variant in self.variants)
        raise UsageError(f"{self.title} has no variant {quant!r}", f"known variants: {known}")


class Catalog(_Frozen):
    models: Mapping[str, Entry]

    def best_first(self) -> Iterator[tuple[str, Entry]]:
        yield from sorted(self.models.items(), key=lambda item: -item[1].rank)

    def entry(self, model_id: str) -> Entry:
        """Raises UnknownModel, which lists what there is."""
        if model_id not in self.models:
            raise UnknownModel(model_id, tuple(self.models))
        return self.models[model_id]


def load_catalog(user_file: Path) -> Catalog:
    """The shipped models.toml with `user_file` (may be absent) on top. Raises UsageError naming the field."""
    tables = _read(_shipped_file())
    if user_file.is_file():
        for model_id, fields in _read(user_file).items():
            tables[model_id] = {**tables.get(model_id, {}), **fields}
    try:
        return Catalog.model_validate({"models": tables})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"models.toml, {where}: {first['msg']}", f"correct {user_file}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        models = tomllib.loads(path.read_text(encoding="utf-8")).get("models", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}", "correct the file, or remove it") from error
    if not isinstance(models, dict) or not all(isinstance(fields, dict) for fields in models.values()):
        raise UsageError(f"{path}: expected tables named [models.NAME]", "correct the file, or remove it")
    return models


def _shipped_file() -> Path:
    package = Path(__file__).parents[1]
    inside = package / "models.toml"
    # In a checkout the file stands beside the package; the wheel carries it inside.
    return inside if inside.is_file() else package.parent / "models.toml"

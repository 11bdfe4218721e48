"""The file of the vision part ("mmproj") that belongs to a model: the one that is named, or the one beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from mm35local.errors import ModelFileError
from mm35local.models.gguf_header import GgufHeader, read_header
from mm35local.models.memory import image_bytes
from mm35local.types import ImageGrid

_PATTERN = "*mmproj*.gguf"
_KIND = "pixtral"
_TOWER_EMBD = 1664
"""Of Mistral Medium 3.5's tower."""
_LEAST_COMMON_LETTERS = 8
"""So far must file names agree where the names inside do not."""


@dataclass(frozen=True, slots=True)
class Projector:
    path: Path
    num_bytes: int
    image_bytes: int
    """Of the buffer that its largest image is encoded in."""
    grid: ImageGrid

    @property
    def needed_bytes(self) -> int:
        """Of the card or the RAM that it lives in."""
        return self.num_bytes + self.image_bytes


def read_projector(path: Path, model: GgufHeader | None) -> Projector:
    """Raises ModelFileError where `path` is no vision part, or not one of this model; `None`: that is not here."""
    header = read_header(path)
    problem = _problem(header, model) if model else _kind_problem(header)
    if problem is not None:
        raise ModelFileError(str(path), problem, "name the mmproj file that was made with the model")
    return _projector(header)


def find_projector(model: GgufHeader) -> Projector | None:
    """The best of those beside the model: of its name inside, then of the likest file name, then the largest."""
    found = list(_beside(model))
    if not found:
        return None
    best = max(found, key=lambda h: (_is_namesake(h, model), _num_common_letters(h, model), h.file_bytes))
    return _projector(best)


def _beside(model: GgufHeader) -> Iterator[GgufHeader]:
    for path in sorted(model.path.parent.glob(_PATTERN)):
        if path == model.path or not path.is_file():
            continue
        try:
            header = read_header(path)
        except ModelFileError:
            continue  # somebody else's, or half a download: nobody asked for it by name
        if _problem(header, model) is None and _may_belong(header, model):
            yield header


def _kind_problem(header: GgufHeader) -> str | None:
    kind = header.metadata.get("clip.projector_type")
    if header.architecture != "clip" or kind != _KIND:
        return f"expected a vision part of type {_KIND}, found {kind or header.architecture or 'something else'}"
    return None


def _problem(header: GgufHeader, model: GgufHeader) -> str | None:
    if (problem := _kind_problem(header)) is not None:
        return problem
    width = header.metadata.get("clip.vision.projection_dim")
    if width != model.number("embedding_length"):
        return f"it makes embeddings of width {width}, the model takes {model.number('embedding_length')}"
    return None


def _may_belong(header: GgufHeader, model: GgufHeader) -> bool:
    names = {header.metadata.get("general.name"), model.metadata.get("general.name")}
    is_told = None not in names
    return not is_told or _is_namesake(header, model) or _num_common_letters(header, model) >= _LEAST_COMMON_LETTERS


def _is_namesake(header: GgufHeader, model: GgufHeader) -> bool:
    one, other = (_letters(str(each.metadata.get("general.name", ""))) for each in (header, model))
    return bool(one) and one == other


def _letters(name: str) -> str:
    return "".join(filter(str.isalnum, name.casefold()))


def _num_common_letters(header: GgufHeader, model: GgufHeader) -> int:
    pairs = zip(header.path.name.casefold(), model.path.name.casefold(), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _projector(header: GgufHeader) -> Projector:
    def number(key: str, default: int) -> int:
        value = header.metadata.get(f"clip.vision.{key}", default)
        if not isinstance(value, int) or not 0 < value < 1 << 16:
            raise ModelFileError(str(header.path), f"clip.vision.{key} is {value!r}: expected a small positive number")
        return value

    patch, merged, side = number("patch_size", 14), number("spatial_merge_size", 1), number("image_size", 1540)
    n_embd = number("embedding_length", _TOWER_EMBD)
    num_bytes = image_bytes((side // patch) ** 2, n_embd, number("feed_forward_length", 4 * n_embd))
    return Projector(header.path, header.file_bytes, num_bytes, ImageGrid(patch * merged, side))

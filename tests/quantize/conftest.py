"""llama.cpp's own tools in a child process, and copies of the pocket checkpoint to damage."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from quantize.convert import convert
from tests.quantize.llama_probe import LlamaProbe
from tests.quantize.processes import Processes


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaProbe]:
    with LlamaProbe() as probe:
        yield probe


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with Processes() as processes:
        yield processes


@pytest.fixture(scope="session")
def pocket_f32(pocket_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The F32 GGUF of the pocket model, converted from hf/."""
    out = tmp_path_factory.mktemp("pocket_f32")
    return convert(pocket_checkpoint / "hf", out, ["F32"]).files[0].path


@pytest.fixture
def hf_copy(pocket_checkpoint: Path, tmp_path: Path) -> Path:
    """An HF checkpoint of one's own, to damage."""
    return Path(shutil.copytree(pocket_checkpoint / "hf", tmp_path / "checkpoint"))

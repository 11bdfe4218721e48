"""Fixtures that every room may use: the real model that travels in a package wheel, and the pocket model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from mm35local import paths
from mm35local.models.catalog import load_catalog
from mm35local.models.download import download, locate
from quantize.convert import convert
from tests.pocket import write_pocket

if TYPE_CHECKING:
    from mm35local.native.library import Library
    from mm35local.native.model import Model

os.environ.setdefault("MM35_KV_STORE_SIZE", "0")  # a test that finds what an earlier run computed proves nothing

# A busy machine is no failure; pytest's own timeout ends what hangs.
settings.register_profile("house", deadline=None)
# The gate asks the same of every commit: a property's new find belongs to `make test`, not to who happens to land.
settings.register_profile("gate", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("MM35_HYPOTHESIS", "house"))


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct Q4_1, fetched once into the user's model folder as `make chat` does."""
    variant = load_catalog(paths.user_catalog_file()).entry("smollm2-135m").variant("Q4_1")
    return locate(variant, paths.models_dir()) or download(variant, paths.models_dir(), lambda done, total: None)


@pytest.fixture(scope="session")
def pocket_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with hf/ and native/, the same miniature in both layouts. Shared: copy before damaging."""
    out = tmp_path_factory.mktemp("pocket")
    write_pocket(out)
    return out


@pytest.fixture(scope="session")
def pocket_gguf(pocket_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Mistral-Medium-3.5-pocket-{Q4_K_M,Q5_K_M,Q8_0}.gguf, converted from hf/."""
    out = tmp_path_factory.mktemp("pocket_gguf")
    convert(pocket_checkpoint / "hf", out, ["Q4_K_M", "Q5_K_M", "Q8_0"])
    return out


def pytest_unconfigure() -> None:
    """llama_cpp opens two files at import and leaves them to the interpreter, which complains after the last test."""
    utils = sys.modules.get("llama_cpp._utils")
    for name in ("outnull_file", "errnull_file"):
        if utils is not None:
            getattr(utils, name).close()


@pytest.fixture(scope="module")
def library() -> Iterator[Library]:
    from mm35local.native.library import Library

    library = Library(lambda line: None)
    yield library
    library.close()


@pytest.fixture(scope="module")
def smollm2(library: Library, smollm2_path: Path) -> Iterator[Model]:
    """The real model, loaded in this process."""
    from mm35local.native.model import Model

    model = Model(library, smollm2_path)
    yield model
    model.close()

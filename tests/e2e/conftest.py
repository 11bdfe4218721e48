"""The trained miniature as a user would have it: quantised, its vision part beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.serving import mm35
from tests.pocket.training.released import RELEASE


@pytest.fixture(scope="session")
def seeing_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Q8_0; the mmproj file lies in the same folder."""
    out = tmp_path_factory.mktemp("seeing")
    done = mm35("quantize", str(RELEASE), "--to", "Q8_0", "--mmproj", "f16", "-o", str(out))
    assert done.returncode == 0, done.stderr
    return next(path for path in out.glob("*.gguf") if "mmproj" not in path.name)

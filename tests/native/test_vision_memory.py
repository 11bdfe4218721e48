"""The buffer that an image is encoded in, planned against what libmtmd reserves for its first one."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.errors import LoadFailed
from mm35local.models.memory import image_bytes
from mm35local.native.buffers import BufferLog
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.native.vision import VisionEncoder
from quantize.convert import convert
from quantize.vision import write_mmproj
from tests.pocket import PocketConfig, write_pocket

_CONFIG = PocketConfig(num_layers=1, num_ranks=300, vision_layers=1, vision_embd=832, vision_ff=4096, vision_heads=8)
"""Half the width of Mistral Medium 3.5's tower."""
_FIRST_PATCHES = 32**2
"""libmtmd's own choice."""


def test_an_image_takes_a_little_less_than_planned(tmp_path: Path) -> None:
    checkpoint, _ = write_pocket(tmp_path / "pocket", config=_CONFIG)
    [file] = convert(checkpoint, tmp_path, ["Q8_0"]).files
    mmproj = write_mmproj(checkpoint, tmp_path).path
    buffers, lines = BufferLog(), list[str]()
    library = Library(lambda line: lines.append(buffers.read(line)))
    model = Model(library, file.path)
    with pytest.raises(LoadFailed, match=r"GPU 99, and llama\.cpp finds \d+"):
        VisionEncoder(library, mmproj, model, gpu=99, num_threads=1, max_image_tokens=1024)
    VisionEncoder(library, mmproj, model, gpu=None, num_threads=1, max_image_tokens=1024).close()
    model.close()
    library.close()
    planned = image_bytes(_FIRST_PATCHES, _CONFIG.vision_embd, _CONFIG.vision_ff)
    assert 0.9 * planned < buffers.total("vision compute") < planned

"""Row ends of an image, in memory that held NaN before: libmtmd alone leaves NaN there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from quantize.vision import write_mmproj

_CHILD = """
import ctypes, sys
import numpy as np
from pathlib import Path
from mm35local.native.library import Library
from mm35local.native.model import Model
from mm35local.native.vision import VisionEncoder
from mm35local.types import Image

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.mallopt(-3, 1 << 30), libc.mallopt(-1, 2**31 - 1)  # freed memory stays in the process, dirty
library = Library(lambda line: None)
model = Model(library, Path(sys.argv[1]))
block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(256 << 20)))
ctypes.memset(block, 255, 256 << 20)
libc.free(block)
encoder = VisionEncoder(library, Path(sys.argv[2]), model, gpu=None, num_threads=2, max_image_tokens=3025)
rows = encoder.encode(Image(140, 84, bytes(140 * 84 * 3), 17))
assert np.isfinite(rows).all(), np.flatnonzero(~np.isfinite(rows).all(axis=1))
assert (rows[5] == rows[11]).all() and (rows[5] != rows[4]).any()
print(rows.shape)
"""


def test_row_ends_do_not_depend_on_what_the_memory_held(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    mmproj = write_mmproj(pocket_checkpoint / "hf", tmp_path).path
    model = pocket_gguf / "Mistral-Medium-3.5-pocket-Q8_0.gguf"
    done = subprocess.run([sys.executable, "-c", _CHILD, model, mmproj], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(17, 256)\n"), done.stderr

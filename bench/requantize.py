"""A GGUF file with weights of another type: `python -m bench.requantize FILE Q4_0 -o OUT`.

For measuring how fast something is, not how good: what a type lost stays lost. SmolLM2 comes in Q4_1, which llama.cpp
multiplies row by row on x86. Q4_0 it repacks for several rows at once, as it does Q4_K, in which the 128B is served and
whose blocks of 256 do not fit SmolLM2's rows of 576.
"""

from __future__ import annotations

import argparse
import ctypes
import os
from pathlib import Path

from llama_cpp import llama_cpp

from quantize.recipe import FTYPES


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("file", type=Path)
    arguments.add_argument("type", choices=FTYPES)
    arguments.add_argument("-o", "--output", type=Path, required=True)
    asked = arguments.parse_args()
    requantize(asked.file, asked.type, asked.output)


def requantize(source: Path, name: str, target: Path) -> None:
    """What llama-quantize does, on all cores of this process. Raises RuntimeError."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.allow_requantize = True
    params.ftype, params.nthread = FTYPES[name], len(os.sched_getaffinity(0))
    code = llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params))
    if code:
        raise RuntimeError(f"llama_model_quantize gave {code} for {name}")


if __name__ == "__main__":
    main()

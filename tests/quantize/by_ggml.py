"""Imported before the converter, it hides llvmlite: ggml quantises, and no time goes into compiling."""

from __future__ import annotations

import sys

sys.modules["llvmlite"] = None  # type: ignore[assignment]

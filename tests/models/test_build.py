from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.models import build
from mm35local.models.build import architectures, cuda_build, has_llamafile, links_nccl


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("llama.cpp 1 (CUDA : ARCHS = 750,800,900 | USE_GRAPHS = 1 | CPU : AVX2 = 1)", ("7.5", "8.0", "9.0")),
        ("llama.cpp 1 (CUDA : ARCHS = 1200 | CPU : AVX2 = 1)", ("12.0",)),
        ("llama.cpp 1 (CPU : AVX2 = 1)", ()),
        ("", ()),
    ],
)
def test_architectures_in_llama_cpps_words(told: str, expected: tuple[str, ...]) -> None:
    assert architectures(told) == expected


@pytest.mark.parametrize(
    ("told", "expected"),
    [("(CPU : AVX2 = 1 | LLAMAFILE = 1 | OPENMP = 1)", True), ("(CPU : AVX2 = 1)", False), ("", False)],
)
def test_llamafile_in_llama_cpps_words(told: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_told", lambda: told)
    assert has_llamafile() is expected


def test_a_library_that_needs_nccl(tmp_path: Path) -> None:
    path = tmp_path / "libggml-cuda.so"
    for content, expected in ((b"\0libcudart.so.13\0libnccl.so.2\0", True), (b"\0libcudart.so.13\0", False)):
        path.write_bytes(content)
        assert links_nccl(path) == expected


def test_this_build() -> None:
    import llama_cpp

    has_cuda = any(Path(llama_cpp.__file__).parent.glob("lib/libggml-cuda.so*"))
    assert (cuda_build() is not None) == has_cuda

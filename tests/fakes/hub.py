"""A stand-in for the hub on loopback: the part of its HTTP that huggingface_hub and our range reads need."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"


@dataclass(slots=True)
class FakeHub:
    repos: Mapping[str, Mapping[str, Path]]
    """Files by name, of each repository."""
    gated: Sequence[str] = ()
    revisions: list[str] = field(default_factory=lambda: [REVISION])
    """The last is what `main` is; all have the same files."""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    """Names of the files that were sent whole, or to their end."""
    parts: list[tuple[str, int]] = field(default_factory=list)
    """(name, bytes) of parts that were sent."""


@contextmanager
def fake_hub(
    repos: Mapping[str, Mapping[str, Path]], gated: Sequence[str] = (), root: str = "127.0.0.1"
) -> Iterator[FakeHub]:
    hub = FakeHub(repos, gated)
    server = ThreadingHTTPServer((root, 0), partial(_Answers, hub))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    hub.url = f"http://{root}:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Answers(BaseHTTPRequestHandler):
    def __init__(self, hub: FakeHub, *arguments: Any) -> None:
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        match = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+)(?:/(tree|revision|resolve)/([^/]+)(?:/(.+))?)?", path)
        repo = match[1] if match else ""
        if match is None or repo not in self.hub.repos:
            self._refuse(
                403 if repo in self.hub.gated else 404, "GatedRepo" if repo in self.hub.gated else "RepoNotFound"
            )
        elif match[3] not in (None, "main", *self.hub.revisions):
            self._refuse(404, "RevisionNotFound")
        elif match[2] == "resolve":
            self._send_file(repo, match[4] or "", self._commit(match[3]), with_body)
        else:
            self._send_json(self._about(repo, self._commit(match[3]), match[2] == "tree"), with_body)

    def _commit(self, revision: str | None) -> str:
        return self.hub.revisions[-1] if revision in (None, "main") else str(revision)

    def _about(self, repo: str, commit: str, is_tree: bool) -> object:
        files = self.hub.repos[repo]
        if is_tree:
            return [
                {"type": "file", "path": name, "size": path.stat().st_size, "oid": "0"} for name, path in files.items()
            ]
        siblings = [{"rfilename": name} for name in files]
        return {"id": repo, "sha": commit, "siblings": siblings, "private": False, "tags": []}

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: object, with_body: bool) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _send_file(self, repo: str, name: str, commit: str, with_body: bool) -> None:
        if name not in self.hub.repos[repo]:
            self._refuse(404, "EntryNotFound")
            return
        data = self.hub.repos[repo][name].read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        begin, end = 0, len(data)
        if wanted:
            begin, end = int(wanted[1]), min(end, int(wanted[2] or end) + 1)
        if with_body:
            is_part = bool(wanted and wanted[2])
            self.hub.parts.append((name, end - begin)) if is_part else self.hub.asked.append(name)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        self.end_headers()
        if with_body:
            self.wfile.write(data[begin:end])

"""Files from the hub through huggingface_hub: resumable, in the hub's own cache, its errors explained.

The library draws its own progress bar on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import (
    HfApi,
    constants,
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    http_stream_backoff,
    tqdm,
)

from mm35local.errors import DownloadError

_PARTIAL_CONTENT = 206
_GATEWAY_ERRORS = (502, 503, 504)
_PATIENCE_SECONDS = 4.0
_HttpError: type[Exception] = HfHubHTTPError.__mro__[1]
"""Of the HTTP library that this version of huggingface_hub builds on, which says so where a host is not reached."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    num_bytes: int
    etag: str
    """Names the content: the SHA-256 of what is large."""


def download_file(
    repo: str,
    file: str,
    endpoint: str | None = None,
    revision: str | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> Path:
    """The path of `file` in the hub's cache, fetched where it is not there. Raises DownloadError.

    `endpoint` is for a mirror; None takes the library's default and HF_ENDPOINT. With `on_bytes`, which gets the bytes
    that came, the library draws no bar.
    """
    bar = _counting_bar(on_bytes) if on_bytes else None
    with _explained(repo, file):
        return Path(hf_hub_download(repo, file, endpoint=endpoint, revision=revision, tqdm_class=bar))


def _counting_bar(on_bytes: Callable[[int], None]) -> type[Any]:
    class Bar(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options | {"disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            on_bytes(int(n or 0))
            return None

    return Bar


def file_facts(repo: str, file: str, revision: str, endpoint: str | None = None) -> FileFacts:
    """Raises DownloadError."""
    with _explained(repo, file):
        found = get_hf_file_metadata(hf_hub_url(repo, file, revision=revision, endpoint=endpoint), endpoint=endpoint)
    if found.size is None or not found.etag:
        raise DownloadError(f"the hub does not tell size and content of {repo}/{file}", "try again")
    return FileFacts(found.size, found.etag)


def read_range(repo: str, file: str, revision: str, begin: int, num_bytes: int, endpoint: str | None = None) -> bytes:
    """`num_bytes` of a file on the hub, from `begin` on, without keeping them. Raises DownloadError."""
    url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
    headers = build_hf_headers() | {"Range": f"bytes={begin}-{begin + num_bytes - 1}"}
    with _explained(repo, file), http_stream_backoff("GET", url, headers=headers, follow_redirects=True) as response:
        hf_raise_for_status(response)
        if response.status_code != _PARTIAL_CONTENT:
            raise DownloadError(f"the hub gives no parts of {repo}/{file}", "download it whole, then give the folder")
        data = bytearray()
        for part in response.iter_bytes():
            data += part
            if len(data) > num_bytes:
                break
    if len(data) != num_bytes:
        raise DownloadError(f"expected {num_bytes} bytes of {repo}/{file}, the hub gave {len(data)}", "try again")
    return bytes(data)


def check_reachable(endpoint: str | None = None) -> None:
    """Raises DownloadError, within `_PATIENCE_SECONDS` or so, where nobody answers: the library itself tries for half a
    minute, which is for a download that is under way. Where the hub must not be asked nothing is."""
    if constants.HF_HUB_OFFLINE:
        return
    url = endpoint or constants.ENDPOINT
    try:
        answer = get_session().head(url, timeout=_PATIENCE_SECONDS)
    except (_HttpError, OSError) as error:
        raise _unreachable(url, str(error) or type(error).__name__) from error
    if answer.status_code in _GATEWAY_ERRORS:
        raise _unreachable(url, f"it answers {answer.status_code}")


def _unreachable(url: str, why: str) -> DownloadError:
    return DownloadError(f"the hub, {url}, cannot be reached: {why}", "check the network and the proxy; then try again")


def latest_revision(repo: str, endpoint: str | None = None) -> str | None:
    """What the hub has now; None where it must not be asked. Raises DownloadError."""
    if constants.HF_HUB_OFFLINE:
        return None
    with _explained(repo, "its newest revision"):
        return HfApi(endpoint=endpoint).model_info(repo).sha


def cached_folder(repo: str, revision: str | None = None) -> Path | None:
    """What the hub's cache has of `revision`, or of the last one that was asked for by no name."""
    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=[], local_files_only=True))
    except LocalEntryNotFoundError:
        return None


def cached_revisions(repo: str) -> list[Path]:
    """The folders that the hub's cache has of `repo`, one for each revision, newest first."""
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots"
    return sorted(folder.glob("*/"), key=lambda path: path.stat().st_mtime, reverse=True)


def download_folder(
    repo: str, patterns: Sequence[str], endpoint: str | None = None, revision: str | None = None
) -> Path:
    """The folder in the hub's cache that holds the files of `repo` that match one of `patterns`. Raises DownloadError.

    What is there already is not fetched again, and a file that was cut off goes on.
    """
    with _explained(repo, "its files"):
        return Path(snapshot_download(repo, allow_patterns=list(patterns), endpoint=endpoint, revision=revision))


def list_files(repo: str, endpoint: str | None = None, revision: str | None = None) -> list[str]:
    """The names of the files in `repo`; of those in the cache where the hub must not be asked. Raises DownloadError."""
    if constants.HF_HUB_OFFLINE:
        folder = download_folder(repo, [], endpoint, revision)
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    with _explained(repo, "its list of files"):
        return HfApi(endpoint=endpoint).list_repo_files(repo, revision=revision)


@contextmanager
def _explained(repo: str, what: str) -> Iterator[None]:
    """The library's errors in our words."""
    try:
        yield
    except GatedRepoError as error:
        raise DownloadError(
            f"{repo} asks for its licence to be accepted first",
            "accept it on the model's page, create a token there, and set HF_TOKEN",
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(
            f"the hub knows no repository {repo}, or hides it", "check the name; set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:  # before EntryNotFoundError, its base
        raise DownloadError(
            f"the hub cannot be reached for {repo}, {what}", "check the network; then try again"
        ) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{repo} has no file {what}", "look at the repository's files") from error
    except (HfHubHTTPError, OSError) as error:
        raise DownloadError(f"{repo}, {what}: {error}", "try again: the download goes on where it stopped") from error
    except _HttpError as error:
        raise DownloadError(
            f"the hub cannot be reached for {repo}, {what}: {error}",
            "check the network; then try again: a download goes on where it stopped",
        ) from error

"""Files from the hub through huggingface_hub: resumable, in the hub's own cache, its errors explained.

The library draws its own progress bar on stderr.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from mm35local.errors import DownloadError


def download_file(repo: str, file: str, endpoint: str | None = None, revision: str | None = None) -> Path:
    """The path of `file` in the hub's cache, fetched where it is not there. Raises DownloadError.

    `endpoint` is for a mirror; None takes the library's default and HF_ENDPOINT.
    """
    with _explained(repo, file):
        return Path(hf_hub_download(repo, file, endpoint=endpoint, revision=revision))


def download_folder(repo: str, patterns: Sequence[str], endpoint: str | None = None) -> Path:
    """The folder in the hub's cache that holds the files of `repo` that match one of `patterns`. Raises DownloadError.

    What is there already is not fetched again, and a file that was cut off goes on.
    """
    with _explained(repo, "its files"):
        return Path(snapshot_download(repo, allow_patterns=list(patterns), endpoint=endpoint))


def list_files(repo: str, endpoint: str | None = None) -> list[str]:
    """The names of the files in `repo`; of those in the cache where the hub must not be asked. Raises DownloadError."""
    if constants.HF_HUB_OFFLINE:
        folder = download_folder(repo, [], endpoint)
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    with _explained(repo, "its list of files"):
        return HfApi(endpoint=endpoint).list_repo_files(repo)


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
            f"the hub cannot be reached for {repo}/{what}", "check the network; then try again"
        ) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{repo} has no file {what}", "look at the repository's files") from error
    except (HfHubHTTPError, OSError) as error:
        raise DownloadError(f"{repo}/{what}: {error}", "try again: the download goes on where it stopped") from error

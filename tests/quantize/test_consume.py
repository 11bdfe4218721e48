"""A consumed checkpoint: shards go one by one, nothing that was made differs, and no moment to die loses anything."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.errors import CheckpointError, ConversionError, UsageError
from quantize.checkpoint import open_checkpoint
from quantize.consume import ShardSupply, consumed_head
from quantize.convert import Options
from quantize.disk import Step, disk_needs, peak
from quantize.head import head_path, read_head, write_head
from quantize.make import make
from quantize.plan import plan_everything
from quantize.source import Source
from quantize.verify import verify
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.consuming import QUANTS, convert_and_consume, convert_and_keep, die_at
from tests.quantize.processes import Processes

_CONFIG = PocketConfig(num_layers=3, num_ranks=300, num_hf_shards=4)
_NUM_KILLS = 8


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Both layouts, in several shards each, with a small vocabulary. Copy before consuming."""
    hf, native = write_pocket(tmp_path_factory.mktemp("quick"), config=_CONFIG)
    return {"hf": hf, "native": native}


@pytest.fixture(scope="module")
def reference(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a conversion that keeps its source leaves, manifests and all."""
    out = tmp_path_factory.mktemp("reference")
    convert_and_keep(checkpoints["hf"], out)
    return _files(out)


@pytest.fixture
def source(checkpoints: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoints["hf"], tmp_path / "source"))


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _ggufs(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in _files(folder).items() if name.endswith(".gguf")}


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _assert_consumed(source: Path, out: Path, reference: dict[str, bytes]) -> None:
    assert _files(out) == reference
    assert _shards(source) == []
    assert len(list(source.glob("*.safetensors.head"))) == _CONFIG.num_hf_shards


@pytest.mark.parametrize("layout", ["hf", "native"])
@pytest.mark.parametrize("mmproj", ["F16", None])
def test_the_outputs_are_those_of_a_kept_source(
    checkpoints: dict[str, Path], reference: dict[str, bytes], tmp_path: Path, layout: str, mmproj: str | None
) -> None:
    source = Path(shutil.copytree(checkpoints[layout], tmp_path / "source"))
    vision = {name for name in _names_of_vision(source)} if mmproj is None else set()
    small = {path.name: path.read_bytes() for path in source.iterdir() if path.suffix != ".safetensors"}
    seen: list[tuple[int, int]] = []
    files = convert_and_consume(source, tmp_path / "out", mmproj=mmproj, on_progress=lambda *step: seen.append(step))
    wanted = {name: data for name, data in reference.items() if mmproj or "mmproj" not in name}
    assert {name: data for name, data in wanted.items() if name.endswith(".gguf")} == _ggufs(tmp_path / "out")
    assert len(files) == len(_ggufs(tmp_path / "out"))
    assert {path.name for path in _shards(source)} == vision
    assert small.items() <= _files(source).items()
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1][0] == seen[-1][1]


def _names_of_vision(source: Path) -> Iterator[str]:
    """ShardSupply that nothing but vision tensors stand in: without an mmproj no output needs them."""
    by_shard: dict[str, list[str]] = {}
    for tensor in open_checkpoint(source).tensors.values():
        by_shard.setdefault(tensor.path.name, []).append(tensor.name)
    words = ("vision_", "multi_modal", "patch_merger", "pre_mm")
    for shard, names in by_shard.items():
        if all(name.removeprefix("model.").startswith(words) for name in names):
            yield shard


def test_a_consumed_checkpoint_is_planned_as_before(source: Path, tmp_path: Path) -> None:
    before = plan_everything(source, tmp_path / "out", QUANTS, "F16", Options())
    tensors = open_checkpoint(source).tensors
    convert_and_consume(source, tmp_path / "out")
    after = plan_everything(source, tmp_path / "out", QUANTS, "F16", Options())
    assert open_checkpoint(source).tensors == tensors
    assert [output.fingerprint for output in after.outputs] == [output.fingerprint for output in before.outputs]
    (source / "model.safetensors.index.json").unlink()
    assert open_checkpoint(source).tensors == tensors


def test_the_same_command_again_keeps_everything(source: Path, reference: dict[str, bytes], tmp_path: Path) -> None:
    convert_and_consume(source, tmp_path / "out")
    assert all(file.is_kept for file in convert_and_consume(source, tmp_path / "out"))
    _assert_consumed(source, tmp_path / "out", reference)


def test_a_source_whose_outputs_are_whole_is_consumed_at_once(
    source: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    convert_and_keep(source, tmp_path / "out")
    assert all(file.is_kept for file in convert_and_consume(source, tmp_path / "out"))
    _assert_consumed(source, tmp_path / "out", reference)


@pytest.mark.parametrize("quants", [("Q8_0",), QUANTS])
def test_disk_never_takes_more_than_was_planned(source: Path, tmp_path: Path, quants: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    plan = plan_everything(source, out, quants, "F16", Options())
    [need] = disk_needs(plan.jobs, out, ShardSupply(Source(source), plan.jobs, is_consuming=True))
    without = sum(output.num_bytes for output in plan.outputs)
    taken: list[int] = []

    def look(done_bytes: int, total_bytes: int) -> None:
        folders = [folder for folder in (source, out) if folder.exists()]
        taken.append(sum(path.stat().st_blocks * 512 for folder in folders for path in folder.iterdir()))

    look(0, 0)
    convert_and_consume(source, out, quants, on_progress=look)
    slack = 1 << 20  # headers, and the last block of each file
    assert max(taken) - taken[0] <= need.num_bytes + slack
    assert need.num_bytes < without


@given(steps=st.lists(st.builds(Step, *[st.integers(0, 100)] * 3), max_size=8))
def test_the_peak_is_the_highest_level(steps: list[Step]) -> None:
    levels = [
        sum(step.fetched + step.written for step in steps[: number + 1]) - sum(step.freed for step in steps[:number])
        for number in range(len(steps))
    ]
    assert peak(steps) == max([0, *levels])


_MOMENTS = [
    *[
        (f"{when} {step}", number)
        for step in ("write_head", "_delete")
        for when, number in (("before", 1), ("after", 2))
    ],
    ("after sync_folder", 1),
    ("after sync_folder", 5),
    ("before read_header", 2),
    ("per cent", 3),
    ("per cent", 50),
    ("per cent", 100),
]


@pytest.mark.parametrize(("moment", "number"), _MOMENTS)
def test_killed_at_a_chosen_moment(
    source: Path,
    reference: dict[str, bytes],
    processes: Processes,
    tmp_path: Path,
    moment: str,
    number: int,
) -> None:
    process = processes.start(die_at, source, tmp_path / "out", moment, number)
    process.join()
    assert process.exitcode == -9
    convert_and_consume(source, tmp_path / "out")
    _assert_consumed(source, tmp_path / "out", reference)


def test_killed_at_random_moments(
    checkpoints: dict[str, Path],
    reference: dict[str, bytes],
    processes: Processes,
    tmp_path: Path,
) -> None:
    """Again and again, to the end and from the start."""
    shutil.copytree(checkpoints["hf"], tmp_path / "warm")
    begin = time.monotonic()
    processes.start(convert_and_consume, tmp_path / "warm", tmp_path / "warm-out").join()
    seconds, moments = time.monotonic() - begin, random.Random(4)
    num_kills = num_whole = num_between = 0
    while num_kills < _NUM_KILLS:
        source, out = tmp_path / f"source{num_whole}", tmp_path / f"out{num_whole}"
        if not source.exists():
            shutil.copytree(checkpoints["hf"], source)
        process = processes.start(convert_and_consume, source, out)
        process.join(moments.uniform(0, seconds))
        if process.is_alive():
            process.kill()
            num_kills += 1
        process.join()
        assert process.exitcode in {0, -9}
        num_between += 0 < len(_shards(source)) < _CONFIG.num_hf_shards
        if process.exitcode == 0:
            _assert_consumed(source, out, reference)
            num_whole += 1
    convert_and_consume(source, out)
    _assert_consumed(source, out, reference)
    assert num_between > 0


def _interrupted(source: Path, out: Path, percent: int) -> None:
    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if 100 * done_bytes > percent * total_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_and_consume(source, out, on_progress=interrupt)
    assert 0 < len(_shards(source)) < _CONFIG.num_hf_shards


def test_without_the_flag_what_is_gone_is_still_not_needed(
    source: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    _interrupted(source, tmp_path / "out", 70)
    left = _shards(source)
    convert_and_keep(source, tmp_path / "out")
    assert _files(tmp_path / "out") == reference
    assert _shards(source) == left


@pytest.mark.parametrize("force", [False, True])
def test_a_consumed_shard_that_is_needed_again_is_named(source: Path, tmp_path: Path, force: bool) -> None:
    """And the outputs that are there stay as they are."""
    convert_and_consume(source, tmp_path / "out")
    before = _files(tmp_path / "out")
    quants = QUANTS if force else ("Q6_K",)
    plan = plan_everything(source, tmp_path / "out", quants, None, Options())
    with pytest.raises(CheckpointError, match="was consumed") as caught:
        make(plan.jobs, force=force)
    with pytest.raises(CheckpointError, match="was consumed"):
        convert_and_consume(source, tmp_path / "out", quants, mmproj=None, force=force)
    assert "download the shard again" in caught.value.hint
    assert caught.value.tensor
    assert _files(tmp_path / "out") == before


def test_a_shard_that_came_back_may_be_converted_and_consumed_again(
    checkpoints: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    convert_and_consume(source, tmp_path / "out", ["Q8_0"])
    for shard in _shards(checkpoints["hf"]):
        shutil.copyfile(shard, source / shard.name)
    convert_and_consume(source, tmp_path / "out", ["Q6_K"], mmproj=None)
    convert_and_keep(checkpoints["hf"], tmp_path / "kept", ["Q6_K"], None)
    assert _ggufs(tmp_path / "kept").items() <= _ggufs(tmp_path / "out").items()


def test_other_weights_under_an_old_name_are_another_conversion(
    checkpoints: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    """The head of a consumed shard does not speak for a shard that stands beside it."""
    convert_and_consume(source, tmp_path / "out", ["Q8_0"], mmproj=None)
    other = write_pocket(tmp_path / "other", 1, _CONFIG)[0]
    for shard in _shards(other):
        shutil.copyfile(shard, source / shard.name)
    with pytest.raises(UsageError, match="another conversion"):
        convert_and_consume(source, tmp_path / "out", ["Q8_0"], mmproj=None)
    assert len(_shards(source)) == _CONFIG.num_hf_shards


def test_a_bad_output_keeps_the_shards(source: Path, tmp_path: Path) -> None:
    """One bit of a finished file turned, which its size does not tell: the source is all there is left."""
    convert_and_keep(source, tmp_path / "out")
    path = next((tmp_path / "out").glob("*Q8_0.gguf"))
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)
    last = _shards(source)[-1]
    with pytest.raises(ConversionError, match="not as it was written"):
        convert_and_consume(source, tmp_path / "out")
    assert last in _shards(source)


def test_links_out_of_the_folder_are_refused_before_anything_is_written(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in checkpoints["hf"].iterdir():
        (source / path.name).symlink_to(path)
    with pytest.raises(UsageError, match="is a link to") as caught:
        convert_and_consume(source, tmp_path / "out")
    assert "ORG/NAME" in caught.value.hint
    assert not (tmp_path / "out").exists()
    assert len(_shards(checkpoints["hf"])) == _CONFIG.num_hf_shards


def test_a_second_name_of_a_shard_frees_nothing_and_stays(
    checkpoints: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    plan = plan_everything(source, tmp_path / "out", QUANTS, "F16", Options())
    [alone] = disk_needs(plan.jobs, tmp_path / "out", ShardSupply(Source(source), plan.jobs, is_consuming=True))
    for shard in _shards(source):
        os.link(shard, tmp_path / shard.name)
    [linked] = disk_needs(plan.jobs, tmp_path / "out", ShardSupply(Source(source), plan.jobs, is_consuming=True))
    assert alone.num_bytes < linked.num_bytes
    convert_and_consume(source, tmp_path / "out")
    for shard in _shards(checkpoints["hf"]):
        assert (tmp_path / shard.name).read_bytes() == shard.read_bytes()


def test_a_damaged_head_is_named(source: Path, tmp_path: Path) -> None:
    convert_and_consume(source, tmp_path / "out")
    head = next(source.glob("*.head"))
    for text in ("{", "{}", head.read_text().replace('"format": 1', '"format": 2')):
        head.write_text(text)
        with pytest.raises(CheckpointError) as caught:
            plan_everything(source, tmp_path / "out", QUANTS, "F16", Options())
        assert caught.value.file == str(head)


@settings(max_examples=60)
@given(data=st.data())
def test_a_head_damaged_anywhere_is_no_other_error(
    checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Each byte of it may be another: what is read then is refused in words, or is harmless."""
    shard = tmp_path_factory.mktemp("head") / _shards(checkpoints["hf"])[0].name
    shutil.copyfile(_shards(checkpoints["hf"])[0], shard)
    write_head(consumed_head(shard, []))
    shard.unlink()
    text = bytearray(head_path(shard).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    head_path(shard).write_bytes(text)
    with suppress(CheckpointError):
        head = read_head(shard)
        assert head is not None
        for tensor in head.tensors():
            assert tensor.offset + tensor.num_bytes <= head.file_bytes
            assert len(tensor.first_bytes(8)) <= 8


def test_the_proof_against_the_source_is_made_before_it_goes(
    checkpoints: dict[str, Path], source: Path, tmp_path: Path
) -> None:
    """The same distances as with the source at hand; also of an output that an earlier run has finished."""
    convert_and_keep(source, tmp_path / "out", ["Q8_0"], None)
    convert_and_consume(source, tmp_path / "out", is_proof=True)
    convert_and_keep(checkpoints["hf"], tmp_path / "kept")
    gone = plan_everything(source, tmp_path / "out", QUANTS, "F16", Options())
    here = plan_everything(checkpoints["hf"], tmp_path / "kept", QUANTS, "F16", Options())
    for job_gone, job_here in zip(gone.jobs[1:], here.jobs[1:], strict=True):
        for output_gone, output_here in zip(job_gone.outputs, job_here.outputs, strict=True):
            report = verify(job_gone.decoder, output_gone)
            assert report.num_unmeasured == 0
            assert report.tensors == verify(job_here.decoder, output_here).tensors


def test_a_proof_after_consuming_says_what_is_unknown(source: Path, tmp_path: Path) -> None:
    convert_and_consume(source, tmp_path / "out", ["Q8_0"], mmproj=None)
    [job] = plan_everything(source, tmp_path / "out", ["Q8_0"], None, Options()).jobs
    report = verify(job.decoder, job.outputs[0])
    assert report.num_unmeasured == len(job.decoder.tensors)
    assert report.worst() == []
    assert len(report.generated) == 8


def test_heads_are_small(source: Path, tmp_path: Path) -> None:
    sizes = {shard.name: shard.stat().st_size for shard in _shards(source)}
    convert_and_consume(source, tmp_path / "out")
    for name, num_bytes in sizes.items():
        assert head_path(source / name).stat().st_size < max(num_bytes // 10, 60_000)

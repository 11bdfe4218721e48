"""The whole way: both layouts to the same bytes, exact floats, and no failure loses what is durable."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors import safe_open

from mm35local.errors import CheckpointError, ConversionError, Mm35Error, UsageError
from quantize.convert import convert, plan_conversion
from quantize.disk import Need, check_space
from quantize.fp8 import E4M3_TABLE
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.safetensors_bytes import read_header, shard_bytes

_QUANTS = ("Q4_K_M", "Q5_K_M", "Q8_0")
_LAST_SHARD = "model-00003-of-00003.safetensors"


def _floats(shard: Any, name: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    """FP8 codes times scale, as the definition says; safetensors' numpy side has neither dtype."""
    header, data = shard
    entry = header[name]
    begin, end = entry["data_offsets"]
    if entry["dtype"] == "BF16":
        return (np.frombuffer(data[begin:end], "<u2").astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    codes = np.frombuffer(data[begin:end], np.uint8).reshape(entry["shape"])
    return E4M3_TABLE[codes] * _floats(shard, f"{name}_scale_inv").item()


def test_both_layouts_give_identical_files(pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path) -> None:
    result = convert(pocket_checkpoint / "native", tmp_path, _QUANTS)
    assert [file.quant for file in result.files] == list(_QUANTS)
    for file in result.files:
        assert file.path.read_bytes() == (pocket_gguf / file.path.name).read_bytes()
        assert file.num_bytes == file.path.stat().st_size
    config = PocketConfig()
    assert result.num_tensors == 9 * config.num_layers + 3
    assert result.num_skipped == 9 * config.vision_layers + 2 + 4
    assert result.skipped_bytes > 0


def test_several_outputs_at_once_are_those_one_by_one(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    one = convert(pocket_checkpoint / "hf", tmp_path, ["q4_k_m", "Q4_K_M"], num_threads=1)
    assert [file.path.name for file in one.files] == ["Mistral-Medium-3.5-pocket-Q4_K_M.gguf"]
    assert one.files[0].path.read_bytes() == (pocket_gguf / one.files[0].path.name).read_bytes()


def test_f32_is_code_times_scale_exactly(pocket_checkpoint: Path, pocket_f32: Path) -> None:
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(pocket_f32).tensors}
    shard = read_header(pocket_checkpoint / "hf" / _LAST_SHARD)
    block, prefix = "model.language_model.layers.2", "blk.2"
    pairs = {"mlp.down_proj": "ffn_down", "self_attn.v_proj": "attn_v", "input_layernorm": "attn_norm"}
    for source, target in pairs.items():
        np.testing.assert_array_equal(tensors[f"{prefix}.{target}.weight"], _floats(shard, f"{block}.{source}.weight"))
    half_split = _floats(shard, f"{block}.self_attn.q_proj.weight")
    head, pair, head_dim = 5, 7, 32
    rows = tensors[f"{prefix}.attn_q.weight"]
    np.testing.assert_array_equal(rows[head * head_dim + 2 * pair], half_split[head * head_dim + pair])
    np.testing.assert_array_equal(rows[head * head_dim + 2 * pair + 1], half_split[head * head_dim + 16 + pair])


def test_shards_may_split_a_weight_from_its_scale(hf_copy: Path, pocket_gguf: Path, tmp_path: Path) -> None:
    """And may use the other spellings: here transformers 5's names and re-uploads' scale names."""
    (hf_copy / "model.safetensors.index.json").unlink()
    for number, path in enumerate(sorted(hf_copy.glob("*.safetensors"))):
        header, data = read_header(path)
        renamed = {
            name.replace("model.language_model.", "language_model.model.")
            .replace("lm_head", "language_model.lm_head")
            .replace("weight_scale_inv", "weight_scale")
            .replace("activation_scale", "input_scale"): entry
            for name, entry in header.items()
        }
        scales = {name: entry for name, entry in renamed.items() if name.endswith("_scale")}
        others = {name: entry for name, entry in renamed.items() if name not in scales}
        path.unlink()
        (hf_copy / f"model-a{number}.safetensors").write_bytes(shard_bytes(others, data))
        (hf_copy / f"model-b{number}.safetensors").write_bytes(shard_bytes(scales, data))
    [file] = convert(hf_copy, tmp_path / "out", ["Q4_K_M"]).files
    assert file.path.read_bytes() == (pocket_gguf / file.path.name).read_bytes()


def test_blocks_smaller_than_a_tensor_and_uneven(tmp_path: Path) -> None:
    """Matrices of more than a block, with a remainder: 1.5 M elements, heads of 128 rows."""
    config = PocketConfig(num_layers=1, n_embd=1024, n_ff=1536, n_head=12, n_head_kv=4, head_dim=128, num_ranks=600)
    write_pocket(tmp_path / "p", 3, config)
    files = [convert(tmp_path / "p" / layout, tmp_path / layout, ["F32"]).files[0] for layout in ("hf", "native")]
    assert files[0].path.read_bytes() == files[1].path.read_bytes()
    tensors = {tensor.name: tensor.data for tensor in GGUFReader(files[0].path).tensors}
    shard = read_header(next((tmp_path / "p" / "hf").glob("model-00003*")))
    np.testing.assert_array_equal(
        tensors["blk.0.attn_output.weight"], _floats(shard, "model.language_model.layers.0.self_attn.o_proj.weight")
    )


def test_progress_counts_every_source_byte_once(pocket_checkpoint: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], on_progress=lambda *step: seen.append(step))
    done = [step[0] for step in seen]
    assert done == sorted(set(done))
    assert done[-1] == result.source_bytes
    assert {step[1] for step in seen} == {result.source_bytes}


def test_a_plan_tells_names_and_bytes_and_writes_nothing(pocket_checkpoint: Path, tmp_path: Path) -> None:
    plan = plan_conversion(pocket_checkpoint / "hf", tmp_path / "out", ["Q4_K_M", "F16"])
    assert list(tmp_path.iterdir()) == []
    result = convert(pocket_checkpoint / "hf", tmp_path / "out", ["Q4_K_M", "F16"])
    planned = [(file.path, file.layout.num_bytes) for output in plan.outputs for file in output.files]
    assert planned == [(file.path, file.path.stat().st_size) for file in result.files]


def test_existing_outputs_are_only_replaced_by_force(pocket_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "Mistral-Medium-3.5-pocket-Q8_0.gguf"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already") as caught:
        convert(pocket_checkpoint / "hf", tmp_path, ["Q4_K_M", "Q8_0"])
    assert "--force" in caught.value.hint
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_text() == "mine"
    convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], force=True)
    assert path.read_bytes()[:4] == b"GGUF"


@pytest.mark.parametrize(("quants", "problem"), [(["Q4_K_X"], "unknown quant 'Q4_K_X'"), ([], "no quant given")])
def test_unknown_quants_are_usage_errors(
    pocket_checkpoint: Path, tmp_path: Path, quants: list[str], problem: str
) -> None:
    with pytest.raises(UsageError, match=problem) as caught:
        convert(pocket_checkpoint / "hf", tmp_path / "out", quants)
    assert "Q4_K_M" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_the_known_bad_rope_is_corrected_with_a_warning(hf_copy: Path, tmp_path: Path) -> None:
    config = json.loads((hf_copy / "config.json").read_text())
    config["text_config"]["rope_parameters"]["mscale_all_dim"] = 1.0
    (hf_copy / "config.json").write_text(json.dumps(config))
    (hf_copy / "chat_template.jinja").unlink()
    warnings: list[str] = []
    result = convert(hf_copy, tmp_path / "out", ["Q8_0"], on_warning=warnings.append)
    assert tuple(warnings) == result.warnings
    assert ["yarn_log_multiplier 0.0" in warnings[0], "mistral-common generates" in warnings[1]] == [True, True]
    fields = GGUFReader(result.files[0].path).fields
    assert fields["mistral3.rope.scaling.yarn_log_multiplier"].contents() == 0.0
    assert "[MODEL_SETTINGS]" in fields["tokenizer.chat_template"].contents()


def _edit_header(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    header, data = read_header(path)
    edit(header)
    path.write_bytes(shard_bytes(header, data))


def _overlap(header: dict[str, Any]) -> None:
    header["model.language_model.layers.1.mlp.up_proj.weight"]["data_offsets"] = header[
        "model.language_model.layers.1.mlp.gate_proj.weight"
    ]["data_offsets"]


_UP = "model.language_model.layers.1.mlp.up_proj.weight"
_DAMAGES: dict[str, tuple[Callable[[Path], object], str, str | None]] = {
    "missing shard": (lambda folder: (folder / _LAST_SHARD).unlink(), _LAST_SHARD, None),
    "truncated shard": (
        lambda folder: (folder / _LAST_SHARD).write_bytes((folder / _LAST_SHARD).read_bytes()[:-1]),
        _LAST_SHARD,
        "model.vision_tower.transformer.layers.1.ffn_norm.weight",
    ),
    "overlap": (lambda folder: _edit_header(folder / _LAST_SHARD, _overlap), _LAST_SHARD, _UP),
    "giant header": (
        lambda folder: (folder / _LAST_SHARD).write_bytes(b"\xff" * 8 + (folder / _LAST_SHARD).read_bytes()[8:]),
        _LAST_SHARD,
        None,
    ),
    "wrong shape": (
        lambda folder: _edit_header(folder / _LAST_SHARD, lambda header: header[_UP].update(shape=[256, 768])),
        _LAST_SHARD,
        _UP,
    ),
    "no vocabulary": (lambda folder: (folder / "tekken.json").unlink(), "tekken.json", None),
    "no config": (lambda folder: (folder / "config.json").write_text("{"), "config.json", None),
}


@pytest.mark.parametrize("damage", _DAMAGES)
def test_a_damaged_checkpoint_is_refused_before_anything_is_written(hf_copy: Path, tmp_path: Path, damage: str) -> None:
    apply, file, tensor = _DAMAGES[damage]
    apply(hf_copy)
    with pytest.raises(CheckpointError) as caught:
        convert(hf_copy, tmp_path / "out", _QUANTS)
    assert (Path(caught.value.file).name, caught.value.tensor) == (file, tensor)
    assert caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("removed", "problem"),
    [(".weight_scale_inv", "FP8 needs one scale"), (".weight", "no shard holds what becomes blk.1.ffn_up.weight")],
)
def test_a_missing_tensor_is_named(hf_copy: Path, tmp_path: Path, removed: str, problem: str) -> None:
    (hf_copy / "model.safetensors.index.json").unlink()
    _edit_header(hf_copy / _LAST_SHARD, lambda header: header.pop(_UP.removesuffix(".weight") + removed))
    with pytest.raises(CheckpointError, match=problem):
        convert(hf_copy, tmp_path / "out", _QUANTS)


def test_an_unknown_tensor_is_named(hf_copy: Path, tmp_path: Path) -> None:
    (hf_copy / "model.safetensors.index.json").unlink()
    _edit_header(hf_copy / _LAST_SHARD, lambda header: header.update(mystery=header.pop(_UP)))
    with pytest.raises(CheckpointError, match="tensor mystery: unknown tensor"):
        convert(hf_copy, tmp_path / "out", _QUANTS)


def test_a_weight_that_is_no_number_is_found_while_streaming(hf_copy: Path, tmp_path: Path) -> None:
    header, data = read_header(hf_copy / _LAST_SHARD)
    damaged = bytearray(data)
    damaged[header[_UP]["data_offsets"][0] + 1000] = 0x7F
    (hf_copy / _LAST_SHARD).write_bytes(shard_bytes(header, bytes(damaged)))
    with pytest.raises(CheckpointError, match="NaN") as caught:
        convert(hf_copy, tmp_path / "out", _QUANTS)
    assert caught.value.tensor == _UP
    assert not list((tmp_path / "out").glob("*.gguf"))


def test_a_shard_that_shrinks_while_streaming(hf_copy: Path, tmp_path: Path) -> None:
    def shrink(done_bytes: int, total_bytes: int) -> None:
        with (hf_copy / _LAST_SHARD).open("r+b") as file:
            file.truncate(1000)

    with pytest.raises(CheckpointError, match="cut short meanwhile"):
        convert(hf_copy, tmp_path / "out", ["Q4_K_M"], num_threads=1, on_progress=shrink)
    assert not list((tmp_path / "out").glob("*.gguf"))


@contextmanager
def _largest_file(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files grow further: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room_at_the_start(pocket_checkpoint: Path, tmp_path: Path) -> None:
    with _largest_file(1 << 20), pytest.raises(ConversionError, match="cannot write") as caught:
        convert(pocket_checkpoint / "hf", tmp_path / "out", _QUANTS)
    assert caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []


def test_no_room_in_the_middle_keeps_what_is_durable(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    with _largest_file(resource.RLIM_INFINITY):

        def fill(done_bytes: int, total_bytes: int) -> None:
            if done_bytes > total_bytes // 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        with pytest.raises(ConversionError, match="File too large") as caught:
            convert(pocket_checkpoint / "hf", tmp_path, _QUANTS, num_threads=1, on_progress=fill)
    assert "goes on" in caught.value.hint
    assert not list(tmp_path.glob("*.gguf"))
    _assert_goes_on(pocket_checkpoint / "hf", tmp_path, pocket_gguf)


def test_a_full_disk_is_seen_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="GiB free") as caught:
        check_space([Need(tmp_path, shutil.disk_usage(tmp_path).free + (1 << 40))])
    assert "-o" in caught.value.hint


def test_an_output_folder_that_is_a_file(pocket_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ConversionError, match="cannot make the folder"):
        convert(pocket_checkpoint / "hf", tmp_path / "out", ["Q8_0"])


def test_an_interrupt_before_anything_is_durable_leaves_nothing(pocket_checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(done_bytes: int, total_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(pocket_checkpoint / "hf", tmp_path / "out", _QUANTS, on_progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_an_interrupt_keeps_what_is_durable(pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path) -> None:
    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(pocket_checkpoint / "hf", tmp_path, _QUANTS, on_progress=interrupt)
    assert not list(tmp_path.glob("*.gguf"))
    _assert_goes_on(pocket_checkpoint / "hf", tmp_path, pocket_gguf)


def _assert_goes_on(source: Path, out: Path, reference: Path) -> None:
    """From the middle, to the same bytes, leaving no trace of the interruption."""
    first: list[tuple[int, int]] = []
    result = convert(source, out, _QUANTS, on_progress=lambda *step: first.append(step))
    done_bytes, total_bytes = first[0]
    assert done_bytes > total_bytes // 3
    for file in result.files:
        assert file.path.read_bytes() == (reference / file.path.name).read_bytes()
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in reference.iterdir())


def test_a_finished_output_is_kept_and_the_others_are_made(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])
    result = convert(pocket_checkpoint / "hf", tmp_path, _QUANTS)
    assert [file.is_kept for file in result.files] == [False, False, True]
    for file in result.files:
        assert file.path.read_bytes() == (pocket_gguf / file.path.name).read_bytes()
        assert hashlib.sha256(file.path.read_bytes()).hexdigest() == file.sha256


def test_names_that_a_killed_run_did_not_give_are_given(
    pocket_gguf: Path, pocket_checkpoint: Path, tmp_path: Path
) -> None:
    [file] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"]).files
    file.path.rename(tmp_path / f"{file.path.name}.partial")
    (tmp_path / f"{file.path.stem}.journal").write_text("left over")
    steps: list[tuple[int, int]] = []
    [again] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], on_progress=lambda *step: steps.append(step)).files
    assert (again.is_kept, again.sha256, steps) == (True, file.sha256, [])
    assert again.path.read_bytes() == (pocket_gguf / again.path.name).read_bytes()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".gguf", ".json"]


def test_an_old_manifest_does_not_vouch_for_a_new_partial_file(pocket_checkpoint: Path, tmp_path: Path) -> None:
    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes // 2:
            raise KeyboardInterrupt

    [file] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"]).files
    file.path.unlink()
    with pytest.raises(KeyboardInterrupt):
        convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], on_progress=interrupt)
    [again] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"]).files
    assert (again.is_kept, again.sha256) == (False, file.sha256)


def test_a_finished_output_that_lost_bytes_is_not_kept(pocket_checkpoint: Path, tmp_path: Path) -> None:
    [file] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"]).files
    with file.path.open("r+b") as damaged:
        damaged.truncate(1000)
    with pytest.raises(UsageError, match="exists already"):
        convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])


def test_other_weights_of_the_same_shape_start_anew(hf_copy: Path, pocket_gguf: Path, tmp_path: Path) -> None:
    """A journal speaks of one source: after the weights changed, nothing of the old file may stay."""

    def interrupt(done_bytes: int, total_bytes: int) -> None:
        if done_bytes > total_bytes // 2:
            raise KeyboardInterrupt

    header, data = read_header(hf_copy / _LAST_SHARD)
    begin = header[_UP]["data_offsets"][0]
    changed = data[:begin] + bytes(10) + data[begin + 10 :]
    (hf_copy / _LAST_SHARD).write_bytes(shard_bytes(header, changed))
    with pytest.raises(KeyboardInterrupt):
        convert(hf_copy, tmp_path / "out", ["Q8_0"], on_progress=interrupt)
    (hf_copy / _LAST_SHARD).write_bytes(shard_bytes(header, data))
    [file] = convert(hf_copy, tmp_path / "out", ["Q8_0"]).files
    assert file.path.read_bytes() == (pocket_gguf / file.path.name).read_bytes()


def test_a_tensor_that_is_not_read_back_as_written_is_made_again(
    pocket_checkpoint: Path, pocket_gguf: Path, tmp_path: Path
) -> None:
    """A bit of the partial file turns while the conversion runs; the check before the rename sees it."""

    def damage(done_bytes: int, total_bytes: int) -> None:
        if done_bytes == total_bytes and not damaged:
            damaged.append(done_bytes)
            with next(tmp_path.glob("*.gguf.partial")).open("r+b") as file:
                file.seek(-1000, 2)
                byte = file.read(1)
                file.seek(-1000, 2)
                file.write(bytes([byte[0] ^ 1]))

    damaged: list[int] = []
    [file] = convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], on_progress=damage).files
    assert damaged
    assert file.path.read_bytes() == (pocket_gguf / file.path.name).read_bytes()


def test_one_output_is_written_by_one_conversion(pocket_checkpoint: Path, tmp_path: Path) -> None:
    def second(done_bytes: int, total_bytes: int) -> None:
        if done_bytes == total_bytes:
            with pytest.raises(ConversionError, match="being written by another conversion"):
                convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"])

    convert(pocket_checkpoint / "hf", tmp_path, ["Q8_0"], num_threads=1, on_progress=second)


@pytest.mark.parametrize("name", ["config.json", "tekken.json", "model.safetensors.index.json", _LAST_SHARD])
def test_random_damage_never_escapes_as_another_error(pocket_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Bytes of the small files and of a shard's header, overwritten at seeded places."""
    generator = np.random.default_rng(len(name))
    original = (pocket_checkpoint / "hf" / name).read_bytes()
    folder = tmp_path / "hf"
    folder.mkdir()
    for path in (pocket_checkpoint / "hf").iterdir():
        (folder / path.name).symlink_to(path)
    (folder / name).unlink()
    num_refused = 0
    for _ in range(15):
        damaged = bytearray(original)
        for position in generator.integers(0, min(len(original), 10_000), 3):
            damaged[position] = generator.integers(0, 256)
        (folder / name).write_bytes(damaged)
        try:
            plan_conversion(folder, tmp_path / "out", ["Q8_0"])
        except Mm35Error:
            num_refused += 1
    assert num_refused > 0


def test_the_pocket_is_readable_by_others(pocket_checkpoint: Path) -> None:
    with safe_open(pocket_checkpoint / "hf" / _LAST_SHARD, "np") as shard:
        assert _UP in shard.keys()  # noqa: SIM118

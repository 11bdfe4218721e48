"""Importance matrices of both formats weigh the columns as llama.cpp does; other files are refused in words."""

from __future__ import annotations

import hashlib
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mm35local.errors import ConversionError, UsageError
from mm35local.models.gguf_header import read_header
from quantize.convert import Options, convert, plan_conversion
from quantize.decoder import Decoder
from quantize.imatrix import read_imatrix
from quantize.recipe import FTYPES
from tests.pocket import PocketConfig, write_pocket
from tests.quantize.gguf_tensors import read_tensors
from tests.quantize.llama_probe import LlamaProbe

_CALLS = 4


@pytest.fixture(scope="module")
def decoder(pocket_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Decoder:
    return plan_conversion(pocket_checkpoint / "hf", tmp_path_factory.mktemp("none"), ["F32"]).decoder


@pytest.fixture(scope="module")
def columns(decoder: Decoder) -> dict[str, NDArray[np.float32]]:
    generator = np.random.default_rng(5)
    return {
        tensor.gguf_name: generator.exponential(size=tensor.row_length).astype(np.float32)
        for tensor in decoder.tensors
        if len(tensor.shape) == 2
    }


def _write_dat(path: Path, columns: dict[str, NDArray[np.float32]]) -> Path:
    text = struct.pack("<i", len(columns))
    for name, values in columns.items():
        text += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", _CALLS, len(values))
        text += (values * np.float32(_CALLS)).tobytes()
    path.write_bytes(text)
    return path


def _write_gguf(path: Path, columns: dict[str, NDArray[np.float32]]) -> Path:
    writer = GGUFWriter(path, "imatrix")
    for name, values in columns.items():
        writer.add_tensor(f"{name}.in_sum2", values * np.float32(_CALLS))
        writer.add_tensor(f"{name}.counts", np.array([_CALLS], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_both_formats_say_the_same(decoder: Decoder, columns: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    for path in (_write_dat(tmp_path / "x.dat", columns), _write_gguf(tmp_path / "x.gguf", columns)):
        found, warnings = read_imatrix(path, decoder)
        assert warnings == ()
        assert found.columns.keys() == columns.keys()
        for name, values in columns.items():
            np.testing.assert_array_equal(found.columns[name], values)


@pytest.mark.parametrize("quant_name", ["IQ3_XXS", "IQ4_XS", "Q4_0"])
def test_mixes_that_look_at_the_matrix_are_llama_cpps(llama: LlamaProbe, tmp_path: Path, quant_name: str) -> None:
    """Eight layers, so that the first eighth of them is one."""
    source = write_pocket(tmp_path / "pocket", config=PocketConfig(num_layers=8, n_ff=256, num_ranks=300))[0]
    whole = convert(source, tmp_path, ["F32"]).files[0].path
    ones = {
        tensor.gguf_name: np.ones(tensor.row_length, np.float32)
        for tensor in plan_conversion(source, tmp_path, ["F32"]).decoder.tensors
        if len(tensor.shape) == 2
    }
    rule, theirs = r"blk\.[05]\.ffn_down", tmp_path / "theirs.gguf"
    options = Options((f"{rule}=Q8_0",), _write_dat(tmp_path / "x.dat", ones))
    ours = convert(source, tmp_path, [quant_name], options).files[0].path
    code = llama.ask(
        "quantize",
        source=str(whole),
        target=str(theirs),
        ftype=FTYPES[quant_name],
        overrides=[(rule, 8)],
        imatrix={name: values.tolist() for name, values in ones.items()},
    )
    assert code == 0
    assert read_tensors(ours) == read_tensors(theirs)
    assert read_tensors(ours)["blk.1.ffn_down.weight"].type_name == quant_name.replace("Q4_0", "Q4_1")


@pytest.mark.parametrize("quant_name", ["Q4_K_M", "IQ2_XS"])
def test_bytes_are_llama_cpps_own(
    llama: LlamaProbe,
    pocket_checkpoint: Path,
    pocket_f32: Path,
    columns: dict[str, NDArray[np.float32]],
    tmp_path: Path,
    quant_name: str,
) -> None:
    """The types of the Q4_K_M mix do not depend on the matrix; for IQ2_XS, whose do, types are fixed by rules."""
    options = Options(
        ("attn|ffn_gate|ffn_up|ffn_down=IQ2_XS",) if quant_name == "IQ2_XS" else (),
        _write_dat(tmp_path / "x.dat", columns),
    )
    ours = convert(pocket_checkpoint / "hf", tmp_path, [quant_name], options).files[0].path
    theirs = tmp_path / "theirs.gguf"
    overrides = [("attn|ffn_gate|ffn_up|ffn_down", 17)] if quant_name == "IQ2_XS" else []
    code = llama.ask(
        "quantize",
        source=str(pocket_f32),
        target=str(theirs),
        ftype=FTYPES[quant_name],
        overrides=overrides,
        imatrix={name: values.tolist() for name, values in columns.items()},
    )
    assert code == 0
    expected, found = read_tensors(theirs), read_tensors(ours)
    rules = "".join(f" --tensor-type '{rule}'" for rule in options.tensor_types)
    digest = hashlib.sha256((tmp_path / "x.dat").read_bytes()).hexdigest()
    recipe = f"--to {quant_name}{rules} --imatrix x.dat#sha256={digest}"
    assert read_header(ours).metadata["mm35local.recipe"] == recipe
    differing = [name for name, tensor in found.items() if tensor != expected[name]]
    assert differing == []
    plain = convert(pocket_checkpoint / "hf", tmp_path / "plain", ["Q4_K_M"]).files[0].path
    assert read_tensors(plain)["blk.1.ffn_up.weight"] != found["blk.1.ffn_up.weight"]


def test_a_quant_that_needs_one_says_so(pocket_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs an importance matrix") as caught:
        convert(pocket_checkpoint / "hf", tmp_path / "out", ["IQ2_XXS"])
    assert "--imatrix" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_names_are_checked(decoder: Decoder, columns: dict[str, NDArray[np.float32]], tmp_path: Path) -> None:
    strange = {**columns, "blk.99.ffn_up.weight": np.ones(256, np.float32)}
    with pytest.raises(ConversionError, match=r"blk\.99\.ffn_up\.weight: unknown here"):
        read_imatrix(_write_dat(tmp_path / "x.dat", strange), decoder)
    short = {**columns, "blk.1.ffn_up.weight": np.ones(32, np.float32)}
    with pytest.raises(ConversionError, match="rows of 32, this model's have 256"):
        read_imatrix(_write_dat(tmp_path / "x.dat", short), decoder)
    partial = {name: values for name, values in columns.items() if name != "blk.1.ffn_up.weight"}
    [warning] = read_imatrix(_write_dat(tmp_path / "x.dat", partial), decoder)[1]
    assert "blk.1.ffn_up.weight" in warning


@given(at=st.integers(0, 60), value=st.binary(min_size=1, max_size=8), cut=st.integers(0, 200))
def test_damage_is_told(
    decoder: Decoder, columns: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory,
    at: int, value: bytes, cut: int,
) -> None:  # fmt: skip
    path = _write_dat(tmp_path_factory.mktemp("damaged") / "x.dat", dict(list(columns.items())[:2]))
    raw = path.read_bytes()
    path.write_bytes((raw[:at] + value + raw[at + len(value) :])[: len(raw) - cut])
    with suppress(ConversionError):
        found, _ = read_imatrix(path, decoder)
        assert all(np.isfinite(values).all() for values in found.columns.values())

"""config.json and params.json say the same, and anything else they say is refused by field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm35local.errors import CheckpointError
from quantize.checkpoint import Checkpoint, Layout
from quantize.hyperparameters import Hyperparameters, read_hyperparameters
from tests.pocket import PocketConfig
from tests.pocket.documents import config_json, params_json


def _read(folder: Path, **files: Any) -> tuple[Hyperparameters, tuple[str, ...]]:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    layout = Layout.HF if "config" in files else Layout.NATIVE
    return read_hyperparameters(Checkpoint(folder, layout, {}))


def _with(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, leaf = path.split(".")
    inner = document
    for parent in parents:
        inner = inner[parent]
    inner[leaf] = value
    return document


def test_both_layouts_say_the_same(tmp_path: Path) -> None:
    config = PocketConfig()
    hf = _read(tmp_path, config=config_json(config))
    (tmp_path / "config.json").unlink()
    assert hf == _read(tmp_path, params=params_json(config))
    assert hf[0].rope.log_multiplier == 0.0
    assert hf[0].n_ctx == 262_144


def test_the_early_config_is_corrected_loudly(tmp_path: Path) -> None:
    broken = _with(config_json(PocketConfig()), "text_config.rope_parameters.mscale_all_dim", 1.0)
    params, warnings = _read(tmp_path, config=broken)
    assert params.rope.log_multiplier == 0.0
    assert "mscale_all_dim 1.0" in warnings[0]
    assert "gibberish" in warnings[0]


def test_params_json_beside_config_json_decides(tmp_path: Path) -> None:
    native = _with(params_json(PocketConfig()), "yarn.apply_scale", False)
    params, warnings = _read(tmp_path, config=config_json(PocketConfig()), params=native)
    assert params.rope.log_multiplier == 1.0
    assert len(warnings) == 1


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        ("model_type", "llama", "model_type"),
        ("text_config.hidden_size", -1, "text_config.hidden_size"),
        ("text_config.num_hidden_layers", 100_000, "text_config.num_hidden_layers"),
        ("text_config.rms_norm_eps", float("nan"), "text_config.rms_norm_eps"),
        ("text_config.rope_parameters", None, "text_config.rope_parameters"),
        ("text_config.rope_parameters.rope_type", "linear", "rope_type"),
        ("text_config.rope_parameters.mscale_all_dim", 0.7, "mscale_all_dim"),
        ("text_config.num_key_value_heads", 3, "KV heads"),
        ("text_config", [], "text_config"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, path: str, value: Any, field: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        _read(tmp_path, config=_with(config_json(PocketConfig()), path, value))
    assert field in caught.value.message
    assert caught.value.file == str(tmp_path / "config.json")


_ODD: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})
)


@settings(max_examples=150, deadline=None)
@given(key=st.sampled_from(sorted(config_json(PocketConfig())["text_config"])), value=_ODD)
def test_any_value_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, key: str, value: Any) -> None:
    folder = tmp_path_factory.getbasetemp()
    try:
        _read(folder, config=_with(config_json(PocketConfig()), f"text_config.{key}", value))
    except CheckpointError as error:
        assert error.file == str(folder / "config.json")  # noqa: PT017

from __future__ import annotations

from pathlib import Path

import pytest

from mm35local.errors import UsageError
from mm35local.settings import Settings, load_settings

ABSENT = Path("/nonexistent/settings.toml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text('port = 9000\nmodel = "from-file"\n')
    return path


def test_defaults_stay_on_loopback() -> None:
    settings = load_settings(ABSENT)
    assert (settings.host, settings.port, settings.model) == ("127.0.0.1", 8080, None)


def test_flags_win_over_environment_over_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM35_MODEL", "from-env")
    assert load_settings(file).port == 9000
    assert load_settings(file).model == "from-env"
    assert load_settings(file, model="from-flag", port=None).model == "from-flag"


def test_a_table_comes_from_the_file_and_as_json_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "settings.toml"
    path.write_text('[chat]\ntheme = "mm35-light"\neffort = "none"\n')
    monkeypatch.setenv("mm35_chat", '{"effort": "high"}')
    chat = load_settings(path).chat
    assert (chat.theme, chat.effort) == ("mm35-light", "high")
    monkeypatch.setenv("mm35_chat", "high")
    with pytest.raises(UsageError, match=r"MM35_\* variables.*chat"):
        load_settings(path)


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(ABSENT).port = 1  # type: ignore[misc]


def test_a_key_is_never_printed() -> None:
    assert "hush" not in repr(load_settings(ABSENT, api_key="hush"))


@pytest.mark.parametrize("flags", [{"port": 0}, {"port": 99999}, {"ctx": 0}, {"parallel": 1000}])
def test_a_wrong_flag_is_named(flags: dict[str, int]) -> None:
    name, value = next(iter(flags.items()))
    with pytest.raises(UsageError, match=f"--{name}: .* found {value}"):
        load_settings(ABSENT, **flags)


def test_a_wrong_variable_or_file_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM35_PORT", "many")
    with pytest.raises(UsageError, match=r"MM35_PORT or port in .*settings\.toml"):
        load_settings(file)
    monkeypatch.delenv("MM35_PORT")
    file.write_text("colour = 'red'")
    with pytest.raises(UsageError, match="colour"):
        load_settings(file)
    file.write_text("port = ")
    with pytest.raises(UsageError, match=r"settings\.toml: Invalid value"):
        load_settings(file)


def test_every_setting_is_documented() -> None:
    assert set(Settings.model_fields) == {
        *("model", "host", "port", "api_key", "api_key_file", "cors", "own_sampling", "thinking_field", "quiet"),
        *(
            "ctx",
            "parallel",
            "threads",
            "kv",
            "kv_store_size",
            "split",
            "speculate",
            "draft",
            "flash_attention",
            "rpc",
            "gpu",
            "chat",
        ),
        *("mmproj", "allow_private_images"),
    }

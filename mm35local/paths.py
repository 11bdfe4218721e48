"""Where things live on disk: one cache, one data, one config and one log folder, as the platform names them."""

from __future__ import annotations

from pathlib import Path

import platformdirs

_APP = "mm35local"


def models_dir() -> Path:
    """Downloaded and converted model files."""
    return platformdirs.user_cache_path(_APP) / "models"


def kv_store_dir() -> Path:
    """States of conversations that left the KV cells."""
    return platformdirs.user_cache_path(_APP) / "kv"


def cpu_kernels_file() -> Path:
    """What was found of this machine's llama.cpp build; may be absent."""
    return platformdirs.user_cache_path(_APP) / "cpu-kernels.json"


def history_file() -> Path:
    """The terminal chat's conversations (SQLite)."""
    return platformdirs.user_data_path(_APP) / "history.sqlite3"


def settings_file() -> Path:
    """The user's settings (TOML); may be absent."""
    return platformdirs.user_config_path(_APP) / "settings.toml"


def user_catalog_file() -> Path:
    """The user's own models.toml, read on top of the shipped one; may be absent."""
    return platformdirs.user_config_path(_APP) / "models.toml"


def log_dir() -> Path:
    """Logs of the server and of the engine's process."""
    return platformdirs.user_log_path(_APP)

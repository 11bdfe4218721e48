"""One frozen Settings from flags, environment (MM35_*) and settings.toml, in that order of precedence.

Only the command line builds it; each room is handed its own small part and never reads the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from mm35local.errors import UsageError

_PREFIX = "MM35_"


class ChatSettings(BaseModel):
    """The terminal chat's own table, `[chat]` in the file; its settings screen writes it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    theme: str = "mm35-dark"
    effort: Literal["none", "high"] | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int | None = Field(default=None, ge=1)
    system: str = ""
    """The system prompt itself."""
    presets: dict[str, str] = Field(default_factory=dict)
    """System prompts by name."""


class Settings(BaseSettings):
    """Every setting with its default; the names are those of settings.toml, `MM35_` + upper case in the environment."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    model: str | None = None
    """A name from models.toml, `name:QUANT`, or a .gguf path; None takes the best that fits."""
    mmproj: Path | None = None
    """The vision part of the model, for images; None takes the one beside the model's file, if there is one."""
    allow_private_images: bool = False
    """Fetch images from addresses of this machine and its network too, when a request points there."""
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=1, le=65535)
    api_key: SecretStr | None = None
    """One key, or several with commas between them: any of them opens the server."""
    api_key_file: Path | None = None
    """More keys, one a line."""
    quiet: bool = False
    """The server tells nothing of single requests on the terminal."""
    own_sampling: bool = False
    """At high effort, the model's own temperature and top_p win over the client's."""
    thinking_field: Literal["reasoning_content", "reasoning", "content"] = "reasoning_content"
    """Where a chat completion carries what was thought; `content` as Mistral's thinking chunks."""
    cors: str = ""
    """Web pages that may use the server, as origins with commas between them; * is all."""
    ctx: int | None = Field(default=None, ge=1)
    """Context in tokens; None takes the longest that fits comfortably."""
    parallel: int = Field(default=8, ge=1, le=64)
    """Conversations answered at the same time."""
    threads: int = Field(default=0, ge=0)
    """CPU threads; 0 lets the engine choose."""
    kv: Literal["f16", "q8_0", "q5_1", "q4_0"] | None = None
    """Type of the KV cells; None takes f16, or q8_0 where that gives too little context."""
    kv_store_size: float = Field(default=4.0, ge=0)
    """GiB on disk for the states of earlier conversations, which survive a restart; 0 keeps none."""
    split: Literal["none", "layer", "row", "tensor"] | None = None
    """How several GPUs share the model; None takes the fastest that fits."""
    speculate: Literal["auto", "ngram", "off"] = "auto"
    """Who guesses tokens ahead, as long as it pays: auto looks them up in the conversation and asks `draft`, ngram only
    looks them up."""
    draft: Path | None = None
    """A small GGUF with the same vocabulary that guesses ahead."""
    flash_attention: bool | None = None
    """False: attention as matrix products, which takes more memory and f16 KV. On a CPU one conversation is answered
    faster then, and many at a time slower; None takes it there if `parallel` is 1, and the flash kernel else."""
    rpc: str = ""
    """`mm35 rpc-worker`s that lend their devices, as HOST:PORT with commas between them."""
    gpu: bool | None = None
    """True or False force the place of the weights; None decides by free memory."""
    chat: ChatSettings = ChatSettings()


def load_settings(file: Path, **flags: Any) -> Settings:
    """Flags that are None count as not given. Raises UsageError naming the setting and its source."""

    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromFile(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        source = f"--{name.replace('_', '-')}" if name in given else f"{_PREFIX}{name.upper()} or {name} in {file}"
        raise UsageError(
            f"{source}: {first['msg']}, found {first['input']!r}", "mm35 serve --help tells what each takes"
        ) from error
    except SettingsError as error:  # of the environment: the file's tables are tables already
        raise UsageError(f"{_PREFIX}* variables: {error}", "a table is written as JSON there") from error
    except ValueError as error:  # tomllib's own complaint
        raise UsageError(f"{file}: {error}", "correct the file, or remove it") from error

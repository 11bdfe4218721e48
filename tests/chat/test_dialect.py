from __future__ import annotations

import subprocess
import sys

import pytest

from mm35local.chat.dialect import load_dialect
from mm35local.chat.template import TemplateDialect
from mm35local.errors import ModelFileError
from tests.fakes.metadata import chatml_metadata, mistral_metadata


def test_a_file_without_template_is_refused() -> None:
    metadata = chatml_metadata()
    del metadata["tokenizer.chat_template"]
    with pytest.raises(ModelFileError, match="no chat template"):
        load_dialect(metadata, "base.gguf")


def test_older_tekken_models_use_their_template() -> None:
    metadata = mistral_metadata() | {"general.architecture": "llama", "tokenizer.chat_template": "{{ bos_token }}"}
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    tokens[32:38] = [f"<SPECIAL_{i}>" for i in range(32, 38)]
    assert isinstance(load_dialect(metadata, "nemo.gguf"), TemplateDialect)


def test_the_door_is_light() -> None:
    code = "import sys, mm35local.chat.dialect; print({'mistral_common', 'jinja2', 'numpy'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"

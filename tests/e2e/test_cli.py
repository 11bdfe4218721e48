"""The command line's manners: quick help, two lines of error, exit codes, output for scripts."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mm35local import __version__
from mm35local.cli.app import application
from mm35local.models.gpus import detect_machine
from tests.e2e.serving import free_port, mm35

HELP_CPU_SECONDS = 0.5
"""A busy machine takes twice what a calm one does."""


def test_help_is_a_page_and_quick() -> None:
    def timed() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([Path(sys.executable).with_name("mm35"), "--help"], capture_output=True, check=True)
        assert b"mm35 chat -p" in done.stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(timed() for _ in range(5)) < HELP_CPU_SECONDS


def test_help_loads_nothing_that_a_command_needs() -> None:
    loaded = _loaded_by("--help")
    assert not {"asyncio", "httpx", "llama_cpp", "numpy", "pydantic", "textual", "uvicorn"} & loaded
    assert {"mm35local.cli.chat", "mm35local.cli.serve"} <= loaded


def test_a_command_loads_no_other_command() -> None:
    files = {"mm35local.cli.serve", "mm35local.cli.models", "mm35local.cli.doctor", "mm35local.cli.bench"}
    assert _loaded_by("models", "--help") & files == {"mm35local.cli.models"}


def test_every_command_is_found_alone() -> None:
    names = {command.name for command in application([]).registered_commands}
    assert len(names) >= 12
    for name in names:
        assert name in {command.name for command in application([str(name)]).registered_commands}
        assert len(application([str(name)]).registered_commands) < 3


def _loaded_by(*arguments: str) -> set[str]:
    program = "import sys\nfrom mm35local.cli.app import run\nrun(sys.argv[1:])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=True, text=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("command", ["chat", "serve", "quantize", "models", "pull"])
def test_every_command_has_help(command: str) -> None:
    done = mm35(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: mm35 {command}" in done.stdout


def test_version() -> None:
    assert mm35("--version").stdout == f"mm35local {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["bogus"], 2, "error: No such command 'bogus'"),
        (["chat", "--bogus"], 2, "error: No such option: --bogus"),
        (["quantize"], 2, "error: Missing argument 'CHECKPOINT'"),
        (["serve", "--port", "many"], 2, "error: Invalid value for '--port'"),
        (["serve", "--port", "0"], 2, "error: --port: "),
        (["chat", "-p", "x", "--effort", "medium"], 2, "error: --effort medium"),
        (["chat", "-p", "-"], 2, "error: the question is empty"),
        (["pull", "gpt-5"], 1, "error: no model or file named 'gpt-5'"),
        (["pull", "mistral-medium-3.5:Q4_K_M"], 1, "error: Mistral-Medium-3.5-128B-Q4_K_M.gguf is not published"),
        (["quantize", "/nonexistent", "--to", "Q4_K_M"], 1, "error: /nonexistent"),
        (["serve", "--model", "smollm2-135m:Q9"], 2, "error: SmolLM2-135M has no variant 'Q9'"),
        (["serve", "smollm2-135m:Q9"], 2, "error: SmolLM2-135M has no variant 'Q9'"),
        (["bench", "smollm2-135m:Q9"], 2, "error: SmolLM2-135M has no variant 'Q9'"),
        (["chat", "smollm2-135m:Q9", "-p", "x"], 2, "error: SmolLM2-135M has no variant 'Q9'"),
        (["serve", "a", "--model", "b"], 2, "error: two models: a and --model b"),
        (["serve", "--kv-store-size", "-1"], 2, "error: --kv-store-size: "),
    ],
)
def test_errors_are_two_lines(arguments: list[str], code: int, error: str, tmp_path: Path) -> None:
    done = mm35(*arguments, env={"MM35_PORT": str(free_port())})
    lines = done.stderr.splitlines()
    assert done.returncode == code
    assert lines[0].startswith(error)
    assert lines[1].startswith("hint: ")
    assert len(lines) == 2
    assert done.stdout == ""


def test_debug_shows_the_traceback() -> None:
    done = mm35("--debug", "pull", "gpt-5")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UnknownModel" in done.stderr


def test_models_as_json() -> None:
    rows = json.loads(mm35("models", "--json").stdout)
    assert {"model", "quant", "bytes", "fits", "path", "origin", "source", "licence", "title"} == set(rows[0])
    assert rows[-1]["model"] == "smollm2-135m"


@pytest.mark.skipif(bool(detect_machine().gpus), reason="this machine has a GPU that llama.cpp can use")
def test_a_gpu_that_is_not_there_is_no_matter_of_bytes() -> None:
    done = mm35("serve", "smollm2-135m", "--gpu", "--port", str(free_port()))
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: --gpu: llama.cpp can use no GPU here")


def test_a_wrong_settings_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "mm35local"
    folder.mkdir()
    (folder / "settings.toml").write_text("port = 'many'\n")
    done = mm35("serve", env={"XDG_CONFIG_HOME": str(tmp_path)})
    assert done.returncode == 2
    assert "settings.toml" in done.stderr.splitlines()[0]

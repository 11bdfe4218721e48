from __future__ import annotations

import json
import socket
from pathlib import Path

import llama_cpp
import pytest

from mm35local import paths
from mm35local.cli.app import run
from mm35local.engine import cpu_kernels
from mm35local.models import build, gpus
from mm35local.models.gpus import Driver, Gpu


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "good.gguf").symlink_to(smollm2_path)
    monkeypatch.setattr(paths, "models_dir", lambda: folder)
    return folder


def found(capsys: pytest.CaptureFixture[str]) -> dict[str, list[dict[str, str]]]:
    by_name: dict[str, list[dict[str, str]]] = {}
    for check in json.loads(capsys.readouterr().out):
        by_name.setdefault(check["name"], []).append(check)
    return by_name


def test_a_healthy_machine(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--offline", "--json"]) == 0
    checks = found(capsys)
    assert set(checks) >= {"build", "cpu", "gpu", "ram", "disk", "model", "port", "files"}
    assert [check["status"] for check in checks["model"]] == ["ok"]
    installed = {path.name for path in Path(llama_cpp.__file__).parent.glob("lib/libggml-*.so")}
    backends = checks["build"][0]["found"].rpartition(": ")[2].split(", ")
    assert ("cuda" in backends, "rpc" in backends) == ("libggml-cuda.so" in installed, "libggml-rpc.so" in installed)


@pytest.mark.parametrize("works", [True, False])
def test_kernels_that_fail_come_with_the_line_that_builds_better_ones(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    monkeypatch.setattr(cpu_kernels, "extra_buffers_work", lambda file: works)
    assert run(["doctor", "--offline", "--json"]) == 0
    (check,) = found(capsys)["cpu"]
    assert check["status"] == ("ok" if works else "warn")
    assert check["cure"].startswith('CXXFLAGS="-fno-tree-dse -fno-dse" CMAKE_ARGS=') is not works
    assert check["cure"].endswith(f"llama-cpp-python=={llama_cpp.__version__}") is not works


@pytest.mark.skipif(gpus.has_backend_library("ggml-cuda"), reason="a GPU's products round by the rows of a step")
@pytest.mark.parametrize("has_llamafile", [True, False])
def test_products_that_round_by_the_rows_of_a_step_are_told(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_llamafile: bool
) -> None:
    monkeypatch.setattr(build, "has_llamafile", lambda: has_llamafile)
    assert run(["doctor", "--offline", "--json"]) == 0
    (check,) = found(capsys)["rounding"]
    assert check["status"] == ("warn" if has_llamafile else "ok")
    assert ("-DGGML_LLAMAFILE=OFF" in check["cure"]) is has_llamafile


def test_a_damaged_file_fails(models: Path, smollm2_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (models / "cut.gguf").write_bytes(smollm2_path.read_bytes()[: 5 << 20])
    assert run(["doctor", "--offline", "--json"]) == 1
    checks = found(capsys)
    assert [check["status"] for check in checks["model"]] == ["fail", "ok"]
    assert "cut short" in checks["model"][0]["found"]


def test_cards_that_the_build_cannot_use(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Gpu("NVIDIA H100 80GB HBM3", 80 << 30, 79 << 30)
    monkeypatch.setattr(gpus, "_nvidia", lambda: ((card,), Driver("580.65", "13.0")))
    monkeypatch.setattr(gpus, "has_cuda_backend", lambda: False)
    assert run(["doctor", "--offline", "--json"]) == 1
    checks = found(capsys)
    assert checks["build"][0]["status"] == "fail"
    assert "-DGGML_CUDA=ON" in checks["build"][0]["cure"]
    assert "--no-binary llama-cpp-python " in checks["build"][0]["cure"], "numpy need not be compiled"
    assert checks["driver"][0]["found"] == "NVIDIA 580.65, up to CUDA 13.0"


def test_a_taken_port_and_lines_for_people(
    models: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("MM35_PORT", str(taken.getsockname()[1]))
        assert run(["doctor", "--offline"]) == 0
    lines = capsys.readouterr().out.splitlines()
    port = next(index for index, line in enumerate(lines) if " port " in line)
    assert lines[port].startswith("warn")
    assert "--port OTHER" in lines[port + 1]

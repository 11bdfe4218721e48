"""Cards as the driver tells of them. NVML is stood in for: no test machine has cards to lose."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pynvml
import pytest

from mm35local.cli.app import run
from mm35local.errors import GpuLost
from mm35local.models import gpus
from mm35local.models.gpus import detect_machine

GIB = 1 << 30
NAMES = ("NVIDIA H100 80GB HBM3", "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 3090")
SIZES = (80, 24, 24)


@pytest.fixture
def three_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle is a number here."""

    def memory(index: int) -> SimpleNamespace:
        return SimpleNamespace(total=SIZES[index] * GIB, free=(SIZES[index] - 1) * GIB)

    def nvlink(index: int, link: int) -> int:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlSystemGetCudaDriverVersion": lambda: 13000,
        "nvmlSystemGetDriverVersion": lambda: "580.65",
        "nvmlDeviceGetCount": lambda: len(NAMES),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetUUID": lambda index: f"GPU-{index}aaa-bbb",
        "nvmlDeviceGetName": lambda index: NAMES[index],
        "nvmlDeviceGetMemoryInfo": memory,
        "nvmlDeviceGetNvLinkState": nvlink,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.setattr(gpus, "has_cuda_backend", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("three_cards")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 ", [1]),
        ("1,7,0", [1]),
        ("1,1,0", [1]),
        ("GPU-2aaa,GPU-0", [2, 0]),
        ("GPU-,0", []),
        ("-1", []),
    ],
)
def test_cards_that_cuda_hides_are_not_planned_with(
    visible: str | None, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [gpu.name for gpu in detect_machine().gpus] == [NAMES[index] for index in expected]


@pytest.mark.usefixtures("three_cards")
def test_a_card_that_vanished_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def lost(index: int) -> object:
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return SimpleNamespace(total=80 * GIB, free=79 * GIB)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", lost)
    with pytest.raises(GpuLost, match="GPU 1 of 3 does not answer: GPU is lost"):
        detect_machine()
    assert run(["plan", "smollm2-135m"]) == 1
    assert capsys.readouterr().err.startswith("error: GPU 1 of 3 does not answer")
    assert run(["doctor", "--offline", "--json"]) == 1
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["build"]["status"] == "fail"
    assert "CUDA_VISIBLE_DEVICES" in checks["build"]["cure"]
    assert {"disk", "port", "files"} <= set(checks)

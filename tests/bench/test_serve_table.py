"""The table of recorded servings: what it says of each round, also of one that failed."""

from __future__ import annotations

import pytest

from bench.serve_table import Rounds, print_table


def _document(**samples: Rounds) -> dict[str, object]:
    row = {
        "workload": "1 stream",
        "figure": "total tok/s",
        "samples": {n.replace("_", "-"): v for n, v in samples.items()},
    }
    return {"model": "some.gguf", "threads": 2, "rows": [row]}


def _cells(capsys: pytest.CaptureFixture[str], **samples: Rounds) -> list[str]:
    print_table(_document(**samples))
    return capsys.readouterr().out.splitlines()[-1].split("total tok/s")[1].split()


def test_a_ratio_is_of_the_same_round(capsys: pytest.CaptureFixture[str]) -> None:
    """On a machine that got half as fast both are twice as quick as the other, whatever the medians say."""
    assert _cells(capsys, mm35local=[200, 100, 98], llama_server=[100, 50, 49]) == ["3", "100", "50", "2"]
    assert _cells(capsys, mm35local=[120, 60, 60, 120], llama_server=[100, 50, 100, 100])[-1] == "1.2"


def test_a_round_that_failed_has_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cells(capsys, mm35local=[None, 60, 60], llama_server=[100, None, 50]) == ["3", "60", "75", "1.2"]


def test_without_a_peer_there_is_no_ratio(capsys: pytest.CaptureFixture[str]) -> None:
    assert _cells(capsys, mm35local=[60.0]) == ["1", "60", "-"]
    assert _cells(capsys, mm35local=[0.5], llama_server=[0.0]) == ["1", "0.5", "0", "-"]

"""Errors cross the process boundary: each must survive pickle with its facts."""

from __future__ import annotations

import pickle

import pytest

from mm35local import errors

SAMPLES = [
    errors.Mm35Error("what", "do"),
    errors.UsageError("what", "do"),
    errors.UnknownModel("x", ("a", "b")),
    errors.ModelFileError("f.gguf", "cut short", "", 12),
    errors.DownloadError("what", "do"),
    errors.DoesNotFit("m", 3 << 30, 2 << 30),
    errors.GpuLost(1, 3, "GPU is lost"),
    errors.CheckpointError("f.safetensors", "broken", "", "w"),
    errors.ConversionError("what", "do"),
    errors.RequestError("what", "field", "code", "do"),
    errors.ContextLengthExceeded(10, 20, 16),
    errors.EngineLoading(0.5),
    errors.EngineOverloaded(3),
    errors.EngineClosing(),
    errors.LoadFailed("f.gguf", "why"),
    errors.RpcError("far:50052", "does not answer"),
    errors.DecodeFailed(-3),
    errors.GrammarFailed("too complex"),
    errors.ImageFailed("too complex"),
    errors.WorkerDied(-9, "GGML_ASSERT"),
    errors.EngineGivenUp(-9, "GGML_ASSERT", 5),
    errors.PortInUse("127.0.0.1", 8080),
    errors.ServerUnreachable("url", "refused"),
    errors.HistoryError("what", "do"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: type(error).__name__)
def test_pickle_keeps_the_facts(error: errors.Mm35Error) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error) != ""


def test_every_error_is_drawn_in_the_tree_and_sampled() -> None:
    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.Mm35Error)
    }
    assert all(name in (errors.__doc__ or "") for name in classes)
    leaves = classes - {"ModelError", "EngineError", "ServerError"}
    assert leaves == {type(sample).__name__ for sample in SAMPLES}


def test_the_numbers_are_named() -> None:
    assert "prompt has 10" in str(errors.ContextLengthExceeded(10, 20, 16))
    assert "3.0 GiB, 2.0 GiB is free" in str(errors.DoesNotFit("m", 3 << 30, 2 << 30))

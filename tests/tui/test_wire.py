from __future__ import annotations

import json

import pytest

from mm35local.errors import ServerError
from mm35local.tui.events import Delta, Ended, ServerState
from mm35local.tui.wire import HealthBody, read_chunk, read_error
from mm35local.types import Usage


def test_a_chunk_with_text_and_an_end() -> None:
    data = b'{"choices":[{"delta":{"content":"a","reasoning_content":null},"finish_reason":"stop"}]}'
    assert read_chunk(data) == [Delta("a"), Ended("stop")]


def test_reasoning_and_unknown_fields() -> None:
    assert read_chunk(b'{"x":1,"choices":[{"delta":{"reasoning_content":"hm","y":[]}}]}') == [Delta("", "hm")]


def test_the_usage_chunk_has_no_choices() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
    assert read_chunk(json.dumps({"choices": [], "usage": usage}).encode()) == [Usage(9, 4, 8)]
    assert read_chunk(b'{"usage":{"prompt_tokens":1,"completion_tokens":2}}') == [Usage(1, 2, 0)]


def test_the_role_chunk_says_nothing() -> None:
    assert read_chunk(b'{"choices":[{"delta":{"role":"assistant","content":""},"finish_reason":null}]}') == []


def test_an_error_in_mid_stream_is_raised() -> None:
    with pytest.raises(ServerError, match="the engine's process ended"):
        read_chunk(b'{"error":{"message":"the engine\'s process ended","type":"server_error","code":null}}')


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'{"choices":3}', b"\xff"])
def test_garbage_is_a_clear_error(data: bytes) -> None:
    with pytest.raises(ServerError, match="no chat chunk"):
        read_chunk(data)


def test_http_errors_say_what_the_server_said() -> None:
    error = read_error(400, b'{"error":{"message":"too long","code":"context_length_exceeded","param":"messages"}}')
    assert error.message == "too long"
    assert "Ctrl+N" in error.hint
    assert "--api-key" in read_error(401, b"").hint
    assert "503" in read_error(503, b"<html>").message
    assert "send the question again" in read_error(503, b"<html>").hint
    refused = read_error(400, b'{"error":{"message":"this model sees no images","code":"no_vision"}}')
    assert "/edit" in refused.hint


def test_health_while_loading_and_failed() -> None:
    loading = HealthBody.model_validate({"server": "mm35local", "status": "loading", "progress": 0.42}).as_health()
    assert (loading.state, loading.progress, loading.error) == (ServerState.LOADING, 0.42, None)
    failed = HealthBody.model_validate({"status": "failed", "error": {"message": "no memory"}}).as_health()
    assert failed.error is not None
    assert failed.error.message == "no memory"

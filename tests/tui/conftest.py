"""What every test of the terminal chat needs: a scripted server on a real port, and patience with a limit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest

from tests.fakes.chat_server import ChatServer


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with ChatServer() as running:
        yield running


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait for `condition` to hold; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)

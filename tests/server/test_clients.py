"""Who counts as one client."""

from __future__ import annotations

import pytest

from tests.server.conftest import Here

HI = [{"role": "user", "content": "Hi"}]
WIRES = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 8},
    "/v1/completions": {"prompt": "Hi"},
}


async def asked_by(here: Here, headers: dict[str, str], path: str = "/v1/chat/completions") -> str:
    assert (await here.client.post(path, json=WIRES[path], headers=headers)).status_code == 200
    return here.engine.records[-1].client


@pytest.mark.parametrize("path", WIRES)
async def test_the_same_key_and_program_is_the_same_client_on_every_wire(here: Here, path: str) -> None:
    headers = {"Authorization": "Bearer sk-one", "User-Agent": "agent/1"}
    assert await asked_by(here, headers, path) == await asked_by(here, headers)


async def test_another_key_or_program_is_another_client_and_no_key_shows(here: Here) -> None:
    asked = [
        {"User-Agent": "agent/1"},
        {"User-Agent": "agent/2"},
        {"User-Agent": "agent/1", "Authorization": "Bearer sk-secret"},
        {"User-Agent": "agent/1", "x-api-key": "sk-secret"},
    ]
    clients = [await asked_by(here, headers) for headers in asked]
    assert len(set(clients)) == len(clients)
    assert not any("secret" in client for client in clients)

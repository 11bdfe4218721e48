from __future__ import annotations

import pytest

from tests.server.conftest import Here, fake_engine, running

KEY = "s3cret-ключ"


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:1", "[::1]:8080", "127.0.0.2:9"])
async def test_names_of_this_machine(here: Here, host: str) -> None:
    assert (await here.client.get("/health", headers={"host": host})).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8080", "127.0.0.1.evil.example", "[::2]", ""])
async def test_other_names_are_refused(here: Here, host: str) -> None:
    reply = await here.client.get("/health", headers={"host": host})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"Bearer {KEY}x", 401),
        (f"bearer {KEY}", 200),
        ("Bearer another", 200),
        (KEY, 401),
        ("Bearer ", 401),
        (None, 401),
    ],
)
async def test_the_key_opens_the_door(header: str | None, status: int) -> None:
    headers = {} if header is None else {b"authorization": header.encode()}
    async with running(fake_engine(), api_keys=["another", KEY]) as here:
        reply = await here.client.get("/v1/models", headers=headers)
        assert reply.status_code == status
        if status == 401:
            assert reply.json()["error"]["code"] == "invalid_api_key"
            assert KEY not in reply.text
        assert (await here.client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 200),
        ("http://localhost:3000", 200),
        ("http://127.0.0.1:5173", 200),
        ("http://[::1]:5173", 200),
        ("vscode-webview://abc", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
    ],
)
async def test_web_pages_of_others_are_refused(here: Here, origin: str | None, status: int) -> None:
    reply = await here.client.get("/v1/models", headers={"origin": origin} if origin else {})
    assert reply.status_code == status
    assert "access-control-allow-origin" not in reply.headers


async def test_a_page_of_this_machine_is_told_how_it_may_read_answers(here: Here) -> None:
    asking = {"origin": "http://localhost:3000", "access-control-request-method": "POST"}
    preflight = await here.client.options("/v1/chat/completions", headers=asking)
    assert preflight.status_code == 403
    assert "--cors http://localhost:3000" in preflight.json()["error"]["message"]


async def test_pages_that_were_allowed_may_ask_before_they_send() -> None:
    page = "https://chat.example"
    async with running(fake_engine(), api_keys=["K"], origins=[page]) as here:
        asking = {
            "origin": page,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key",
        }
        preflight = await here.client.options("/v1/chat/completions", headers=asking)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, page)
        refused = await here.client.get("/v1/models", headers={"origin": page})
        assert (refused.status_code, "Retry-After" in refused.headers["access-control-expose-headers"]) == (401, True)
        other = {"origin": "https://evil.example", "authorization": "Bearer K"}
        assert (await here.client.get("/v1/models", headers=other)).status_code == 403

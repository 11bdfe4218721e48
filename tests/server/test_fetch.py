"""What a request points to is fetched from the internet only, within limits, and over a connection that was checked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import pytest

from mm35local.errors import RequestError
from mm35local.server.fetch import Fetcher, is_public

PUBLIC = "93.184.216.34"


@pytest.mark.parametrize("address", [PUBLIC, "8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_of_the_internet(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.8.8", "0.0.0.0", "10.0.0.1", "172.16.5.4", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "192.0.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "nonsense", "",
    ],
)  # fmt: skip
def test_addresses_of_nobody_on_the_internet(address: str) -> None:
    assert not is_public(address)


@asynccontextmanager
async def web(answers: dict[str, bytes]) -> AsyncGenerator[tuple[int, list[bytes]], None]:
    """A server on loopback: its port, and the requests that came. Paths it does not know are never answered."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            heads.append(head)
            answer = answers.get(head.split()[1].decode())
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], heads


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def moved(to: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {to}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


async def here(host: str, port: int) -> Sequence[str]:
    return ["127.0.0.1"]


async def refusal(fetcher: Fetcher, url: str) -> str:
    with pytest.raises(RequestError) as caught:
        await fetcher.fetch(url, "part")
    assert (caught.value.field, caught.value.code) == ("part", "invalid_image_url")
    return caught.value.message


async def test_a_body_is_fetched_in_the_name_of_its_host() -> None:
    async with web({"/a?b=c": ok(b"hello")}) as (port, heads):
        fetcher = Fetcher(allows_private=True, resolve=here)
        assert await fetcher.fetch(f"http://user:secret@pictures.example:{port}/a?b=c#top", "part") == b"hello"
    assert f"Host: pictures.example:{port}".lower() in heads[0].decode().lower()
    assert b"authorization" not in heads[0].lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "127.1", "0"])
async def test_nothing_is_asked_of_this_machine(host: str) -> None:
    async with web({"/": ok(b"secret")}) as (port, heads):
        message = await refusal(Fetcher(), f"http://{host}:{port}/")
    assert "refused" in message
    assert heads == []


async def test_one_private_address_among_several_is_enough_to_refuse() -> None:
    async def both(host: str, port: int) -> Sequence[str]:
        return [PUBLIC, "127.0.0.1"]

    assert "private network" in await refusal(Fetcher(resolve=both), "http://pictures.example/")


async def test_a_name_is_resolved_once_and_the_address_that_was_looked_at_is_the_one_called() -> None:
    """A second question would get loopback: DNS rebinding."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["192.0.2.1"] if len(asked) == 1 else ["127.0.0.1"]

    async with web({"/": ok(b"secret")}) as (port, heads):
        fetcher = Fetcher(allows_private=True, resolve=rebinding, seconds=0.5)
        await refusal(fetcher, f"http://pictures.example:{port}/")
    assert asked == ["pictures.example"]
    assert heads == []


async def test_a_redirect_to_this_machine_is_refused() -> None:
    """The first step is let through as if its address were public; the second is looked at again."""
    steps = iter([False, True])

    class OnceOpen(Fetcher):
        async def _address(self, host: str, port: int, field: str) -> str:
            return await super()._address(host, port, field) if next(steps) else "127.0.0.1"

    async with web({}) as (inner, inner_heads), web({"/": moved(f"http://127.0.0.1:{inner}/")}) as (port, _):
        assert "private network" in await refusal(OnceOpen(), f"http://pictures.example:{port}/")
    assert inner_heads == []


async def test_redirects_are_followed_and_counted() -> None:
    answers = {"/1": moved("/2"), "/2": moved("3"), "/3": ok(b"there"), "/loop": moved("/loop")}
    async with web(answers) as (port, heads):
        fetcher = Fetcher(allows_private=True)
        assert await fetcher.fetch(f"http://127.0.0.1:{port}/1", "part") == b"there"
        assert "redirects" in await refusal(fetcher, f"http://127.0.0.1:{port}/loop")
    assert len(heads) == 3 + 4


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "http:///x", "gopher://a", "http://", "http://[", ""]
)
async def test_other_urls_are_refused(url: str) -> None:
    await refusal(Fetcher(allows_private=True), url)


@pytest.mark.parametrize("head", [b"Content-Length: 5000\r\n", b"", b"Content-Encoding: identity\r\n"])
async def test_a_body_that_is_too_long_is_not_read_to_its_end(head: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + head + b"Connection: close\r\n\r\n" + bytes(5000)
    async with web({"/": answer}) as (port, _):
        fetcher = Fetcher(allows_private=True, max_bytes=1000)
        assert "longer than" in await refusal(fetcher, f"http://127.0.0.1:{port}/")


async def test_a_compressed_bomb_is_not_unpacked() -> None:
    import gzip

    packed = gzip.compress(bytes(10_000_000))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
    async with web({"/": head + packed}) as (port, _):
        fetcher = Fetcher(allows_private=True, max_bytes=100_000)
        assert "longer than" in await refusal(fetcher, f"http://127.0.0.1:{port}/")


async def test_silence_ends_after_a_while() -> None:
    async with web({}) as (port, _):
        fetcher = Fetcher(allows_private=True, seconds=0.2)
        assert "nothing came" in await refusal(fetcher, f"http://127.0.0.1:{port}/silent")


async def test_errors_of_the_other_side_are_told() -> None:
    async with web({"/": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "/odd": b"what\r\n\r\n"}) as (port, _):
        fetcher = Fetcher(allows_private=True)
        assert "404" in await refusal(fetcher, f"http://127.0.0.1:{port}/")
        assert "could not be fetched" in await refusal(fetcher, f"http://127.0.0.1:{port}/odd")

"""Fetches what a request points to on the web, and nothing of this machine or its network.

Invariant: unless private addresses are allowed, a connection is only made to an address that was looked at. The name
is resolved here, once, and the connection goes to that address: a name that points elsewhere a moment later (DNS
rebinding) changes nothing. Every redirect goes the same way.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import httpx

from mm35local.errors import RequestError

MAX_BYTES = 20 << 20
MAX_REDIRECTS = 3
SECONDS = 15.0
"""For one URL in all, redirects included."""
_STEP_SECONDS = 5.0
_DEFAULT_PORTS = {"http": 80, "https": 443}
_AGENT = "mm35local"

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port to addresses. Raises OSError."""


async def resolve(host: str, port: int) -> Sequence[str]:
    """By the system's resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


@dataclass(frozen=True, slots=True)
class Fetcher:
    allows_private: bool = False
    """Loopback, private, link-local and other addresses that are nobody's on the internet."""
    resolve: Resolve = resolve
    max_bytes: int = MAX_BYTES
    seconds: float = SECONDS

    async def fetch(self, url: str, field: str) -> bytes:
        """The body behind `url`. Raises RequestError that names `field`, the place in the request."""
        try:
            async with asyncio.timeout(self.seconds):
                return await self._follow(url, field)
        except TimeoutError as error:
            raise _refused(f"nothing came within {self.seconds:.0f} seconds", field) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            raise _refused(f"it could not be fetched: {type(error).__name__}", field) from error

    async def _follow(self, url: str, field: str) -> bytes:
        # Neither proxies nor credentials of this machine's user: both would reach further than the address shows.
        async with httpx.AsyncClient(trust_env=False, timeout=_STEP_SECONDS, headers={"User-Agent": _AGENT}) as client:
            target = httpx.URL(url)
            for _ in range(MAX_REDIRECTS + 1):
                request = await self._request(client, target, field)
                response = await client.send(request, stream=True)
                try:
                    if not response.has_redirect_location:
                        return await self._read(response, field)
                    target = target.join(response.headers["location"])
                finally:
                    await response.aclose()
        raise _refused(f"it redirects more than {MAX_REDIRECTS} times", field)

    async def _request(self, client: httpx.AsyncClient, url: httpx.URL, field: str) -> httpx.Request:
        """To the address, in the name of the host."""
        if url.scheme not in _DEFAULT_PORTS or not url.host:
            raise _refused("expected a data: or http(s): URL", field)
        address = await self._address(url.host, url.port or _DEFAULT_PORTS[url.scheme], field)
        host = url.netloc.decode("ascii")
        names = {"sni_hostname": url.raw_host.decode("ascii")}
        bare = url.copy_with(host=address, username=None, password=None, fragment=None)
        return client.build_request("GET", bare, headers={"Host": host.rpartition("@")[2]}, extensions=names)

    async def _address(self, host: str, port: int, field: str) -> str:
        """The first of the host's addresses; all must be allowed."""
        addresses = await self.resolve(host, port)
        if not addresses:
            raise _refused("its host has no address", field)
        if not self.allows_private and not all(map(is_public, addresses)):
            hint = "send the image itself as a data: URL, or start the server with --allow-private-images"
            raise _refused("its host is on this machine or in a private network", field, hint)
        return addresses[0]

    async def _read(self, response: httpx.Response, field: str) -> bytes:
        if response.status_code != httpx.codes.OK:
            raise _refused(f"its server answered {response.status_code}", field)
        too_long = _refused(f"it is longer than {self.max_bytes >> 20} MiB", field)
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.max_bytes:
            raise too_long
        data = bytearray()
        async for chunk in response.aiter_bytes():
            data += chunk
            if len(data) > self.max_bytes:
                raise too_long
        return bytes(data)


def is_public(address: str) -> bool:
    """Is it somebody's on the internet? An IPv6 address that stands for an IPv4 one is what that one is."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _inner(ip)) is not None:
        ip = inner
    return ip.is_global and not ip.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _inner(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)


def _refused(problem: str, field: str, hint: str = "send the image itself as a data: URL") -> RequestError:
    return RequestError(f"{field}: the image's URL is refused: {problem}", field, "invalid_image_url", hint)

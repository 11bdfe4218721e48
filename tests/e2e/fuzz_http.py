"""Requests made from our own OpenAPI page, right and wrong ones: each gets an answer, and none of them is our fault.

`python -m tests.e2e.fuzz_http [NUMBER]`, 5,400 by default: a real socket, the scripted engine, both kinds of model.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.result import Ok

from tests.fakes.metadata import chatml_metadata, mistral_metadata
from tests.server.conftest import fake_engine, listening, served_model

HANG_SECONDS = 20.0
_MODES = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
_ANY = tuple(HealthCheck)


def fuzz(url: str, page: Mapping[str, Any], number: int) -> Counter[int]:
    """Sends about `number` requests and counts their statuses. Raises AssertionError for a 5xx or a hang."""
    statuses: Counter[int] = Counter()
    found = list(schemathesis.openapi.from_dict(dict(page)).get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found), "our page describes every endpoint rightly"
    asking = [operation for operation in operations if operation.body or operation.path_parameters]
    each = max(1, number // len(asking) // len(_MODES))
    with httpx.Client(base_url=url, timeout=HANG_SECONDS) as client:
        for operation in operations:
            for mode in _MODES if operation.body else _MODES[:1]:
                num = each if operation in asking else 1
                _send(client, operation.as_strategy(generation_mode=mode), num, statuses)
    return statuses


def _send(client: httpx.Client, cases: Any, number: int, statuses: Counter[int]) -> None:
    @seed(5)
    @settings(max_examples=number, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=_ANY)
    @given(case=cases)
    def one(case: Any) -> None:
        reply = client.send(_request(client, case))
        statuses[reply.status_code] += 1
        assert reply.status_code < 500, (case.method, case.formatted_path, case.body, reply.text)
        assert reply.status_code == 200 or reply.json()

    one()


def _request(client: httpx.Client, case: Any) -> httpx.Request:
    body = b"" if isinstance(case.body, NotSet) else json.dumps(case.body, default=repr).encode()
    headers = {"Content-Type": case.media_type or "application/json"}
    return client.build_request(case.method, case.formatted_path, content=body, headers=headers)


async def fuzz_both(number: int) -> Counter[int]:
    """Half of `number` each on a template model and a Mistral one."""
    total: Counter[int] = Counter()
    for metadata in (chatml_metadata(), mistral_metadata()):
        async with listening(fake_engine(), served_model(metadata)) as here:
            total += await asyncio.to_thread(fuzz, here.url, here.app.openapi(), number // 2)
    return total


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 5400  # small operations have fewer different requests
    start = time.monotonic()
    statuses = asyncio.run(fuzz_both(number))
    told = ", ".join(f"{status}: {count}" for status, count in sorted(statuses.items()))
    print(f"{statuses.total()} requests in {time.monotonic() - start:.0f} s, no 5xx, no hang. {told}")


if __name__ == "__main__":
    main()

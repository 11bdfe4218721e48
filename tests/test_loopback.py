from __future__ import annotations

import pytest

from mm35local.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost"])
def test_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "127.example.org", "localhost.example.org", ""])
def test_others_and_names_that_begin_like_it(host: str) -> None:
    assert not is_loopback(host)

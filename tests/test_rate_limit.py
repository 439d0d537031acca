"""Whom the rate limit takes for one client, and how much it remembers."""

from __future__ import annotations

import random
import time

import pytest

from exporter.web import rate_limit
from exporter.web.rate_limit import RateLimit


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_a_client_is_an_ipv4_address_or_a_64_of_ipv6(one: str, other: str, same: bool) -> None:
    limit = RateLimit(1)
    assert limit.take(one).allowed
    assert limit.take(other).allowed is not same


def test_no_number_of_clients_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "ADDRESSES", 100)
    limit = RateLimit(1)
    for number in range(10_000):
        limit.take(f"10.0.{number // 256}.{number % 256}")
    assert len(limit._windows) == 100


def test_no_window_is_longer_than_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(1)
    for _ in range(10_000):
        now = chance.random() * 1e5
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert RateLimit(1, 60.0).take("192.0.2.1").reset == 60

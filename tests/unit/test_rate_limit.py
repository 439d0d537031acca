"""What the rate limit counts, and how much it remembers."""

from __future__ import annotations

import random
import time

import pytest

from exporter.web import rate_limit
from exporter.web.rate_limit import RateLimit


def test_each_client_has_a_limit_of_its_own() -> None:
    limit = RateLimit(2)
    assert [limit.take("192.0.2.1").allowed for _ in range(3)] == [True, True, False]
    assert limit.take("192.0.2.2").allowed
    assert limit.take(("192.0.2.1", "key admin")).allowed


def test_no_number_of_clients_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "CLIENTS", 100)
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

"""Redis's clock, from the ids of events."""

from __future__ import annotations

import time

import pytest

from exporter.queues.text import MAX_SAFE_INTEGER
from exporter.stores.events import server_clock
from exporter.stores.events.server_clock import MAX_LEAD_SPREAD_MS, ServerClock, to_monotonic

EPOCH_MS = 1_795_500_000_000


class Clocks:
    """The host's clocks, which the test sets: seconds."""

    def __init__(self) -> None:
        self.wall, self.steady = EPOCH_MS / 1000, 5000.0

    def time(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.steady

    def pass_seconds(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(server_clock, "time", clocks)
    return clocks


def test_nothing_is_known_before_the_first_event_and_the_host_is_believed(clocks: Clocks) -> None:
    clock = ServerClock()
    assert clock.offset is None and not clock.is_known
    assert clock.at(1000 * clocks.steady) == EPOCH_MS


@pytest.mark.parametrize("ahead", [-3600, 0, 90])
def test_events_show_by_how_much_the_host_is_ahead(clocks: Clocks, ahead: int) -> None:
    clock = ServerClock()
    for delay in (0.4, 0.002, 1.0):  # a read is later than its event
        clocks.pass_seconds(60)
        clock.note_event(int(1000 * (clocks.wall - ahead - delay)))
        assert clock.offset == pytest.approx(ahead + delay, abs=0.01)
    assert clock.is_known
    # A little earlier than the truth, never later: what came after it must be counted.
    truth = 1000 * (clocks.wall - ahead)
    assert truth - 1010 <= clock.at(1000 * clocks.steady) <= truth


def test_a_step_of_the_hosts_clock_changes_no_time_of_redis(clocks: Clocks) -> None:
    clock = ServerClock()
    clock.note_event(int(1000 * clocks.wall))
    before = clock.at(1000 * clocks.steady)
    clocks.wall += 86_400
    assert clock.at(1000 * clocks.steady) == before


def test_ids_that_disagree_make_it_unknown_until_they_are_forgotten(clocks: Clocks) -> None:
    clock = ServerClock()
    clock.note_event(int(1000 * clocks.wall))
    clock.note_event(int(1000 * clocks.wall) + 2 * MAX_LEAD_SPREAD_MS)  # somebody chose it
    assert clock.offset is None and not clock.is_known
    for _ in range(server_clock.LEAD_MINUTES):
        clocks.pass_seconds(60)
        clock.note_event(int(1000 * clocks.wall))
    assert clock.is_known and clock.offset == pytest.approx(0, abs=0.01)


def test_an_id_that_is_no_time_is_ignored(clocks: Clocks) -> None:
    clock = ServerClock()
    clock.note_event(MAX_SAFE_INTEGER + 1)
    assert clock.offset is None
    assert clock.at(1e18) == MAX_SAFE_INTEGER
    assert clock.at(-1e18) == 0
    assert to_monotonic(EPOCH_MS) == 1000 * clocks.steady


def test_it_uses_the_clocks_of_the_module_time() -> None:
    """What the fixture replaces is what runs."""
    assert server_clock.time is time

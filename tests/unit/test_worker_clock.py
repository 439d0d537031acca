"""How far the clocks of workers are ahead of Redis's."""

from __future__ import annotations

from exporter.queues.worker_clock import MAX_COMPARISONS, WorkerClock


def test_before_the_first_comparison_nothing_is_known() -> None:
    assert WorkerClock().offset is None


def test_the_offset_is_the_median_in_seconds_so_that_single_late_commands_change_nothing() -> None:
    clock = WorkerClock()
    for number, ahead in enumerate((2000, 2001, -60_000, 1999, -60_000)):
        assert clock.compare(number + 1 + ahead, number + 1)
    assert clock.offset == 1.999


def test_of_two_the_later_one_counts_because_commands_wait_but_never_hurry() -> None:
    clock = WorkerClock()
    clock.compare(0, 1000)
    clock.compare(5000, 2000)
    assert clock.offset == 3.0


def test_an_event_counts_once_and_only_the_last_ones_do() -> None:
    clock = WorkerClock()
    assert clock.compare(10, 10)
    assert not clock.compare(99, 10)
    assert not clock.compare(99, 9)
    assert clock.offset == 0.0
    for written in range(11, 11 + MAX_COMPARISONS):
        clock.compare(written + 7, written)
    assert clock.offset == 0.007

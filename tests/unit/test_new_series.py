"""For how long a new series shows 0 to Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from exporter.metrics.new_series import TOLERANCE, NewSeries
from exporter.queues.queue import Queue
from exporter.queues.tallies import FinishedJobs, FrozenTally, Layout, QueueTallies, Tallies
from tests.support.work import finish

MAIL, SYNC = Queue.named("bull", "mail"), Queue.named("bull", "sync")
INTERVAL = 60.0
LATER = INTERVAL * TOLERANCE


def of_names(*names: str, restored: bool = False) -> QueueTallies:
    tally = FrozenTally((), {}, restored=False)
    return QueueTallies(dict.fromkeys(names, tally), missed=0, restored=restored)


def held(
    series: NewSeries, queues: Mapping[Queue, QueueTallies], *, now: float, scraped: bool = True
) -> dict[str, set[str | None]]:
    """By queue the series that show 0."""
    counted = Tallies(Layout((), ()), queues, 0, 0.0, 0, 0, FinishedJobs())
    found = finish(series.update(counted, scraped=scraped, now=now))
    return {queue.name: set(names) for queue, names in found.items()}


def test_a_series_shows_0_for_a_scrape_interval_and_then_its_value() -> None:
    series, queues = NewSeries(INTERVAL), {MAIL: of_names("import")}
    assert held(series, queues, now=0) == {"mail": {None, "import"}}
    assert held(series, queues, now=LATER - 0.1) == {"mail": {None, "import"}}
    assert held(series, queues, now=LATER) == {}
    assert held(series, queues, now=10 * LATER) == {}


def test_a_further_name_of_a_queue_is_new_by_itself() -> None:
    series = NewSeries(INTERVAL)
    held(series, {MAIL: of_names("import")}, now=0)
    both = {MAIL: of_names("import", "sync")}
    assert held(series, both, now=10) == {"mail": {None, "import", "sync"}}
    assert held(series, both, now=LATER) == {"mail": {"sync"}}
    assert held(series, both, now=LATER + 10) == {}


def test_until_the_first_scrape_all_series_stay_new() -> None:
    series, queues = NewSeries(INTERVAL), {MAIL: of_names("import")}
    held(series, queues, now=0, scraped=False)
    assert held(series, queues, now=2 * LATER, scraped=False) == {"mail": {None, "import"}}
    held(series, queues, now=3 * LATER)
    assert held(series, queues, now=4 * LATER) == {}


def test_what_prometheus_knows_from_before_a_restart_is_not_new() -> None:
    known = QueueTallies({"import": FrozenTally((), {}, restored=True)}, missed=0, restored=True)
    assert held(NewSeries(INTERVAL), {MAIL: known, SYNC: of_names()}, now=0) == {"sync": {None}}


def test_a_series_that_went_and_came_back_is_new_again() -> None:
    series, queues = NewSeries(INTERVAL), {MAIL: of_names("import")}
    held(series, queues, now=0)
    assert held(series, {}, now=LATER) == {}
    assert held(series, queues, now=2 * LATER) == {"mail": {None, "import"}}


@pytest.mark.parametrize("scraped", [True, False])
def test_with_an_interval_of_0_nothing_is_held_back(scraped: bool) -> None:
    assert held(NewSeries(0), {MAIL: of_names("import")}, now=0, scraped=scraped) == {}

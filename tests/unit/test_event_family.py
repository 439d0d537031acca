"""Counters and histograms as text, in both formats."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporter.metrics.event_family import (
    EventCounter,
    EventFamily,
    EventGauge,
    EventHistogram,
    EventRenderer,
    MissedCounter,
    event_head,
)
from exporter.metrics.family import labels_of
from exporter.metrics.new_series import Held
from exporter.metrics.packing import PagePacker
from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, FinishedJobs, Layout, QueueTallies, Tallies, Tally
from tests.support.work import finish

LAYOUT = Layout((10, 100), (1000,))
MAIL = Queue.named("bull", "mail")
COUNTER = EventCounter("failed_total", "Help.", Count.FAILED)
HISTOGRAM = EventHistogram(
    "wait_seconds", "Help.", lambda layout: (layout.wait, layout.wait_bounds)
)
MISSED = MissedCounter("missed_total", "Help.")
GAUGE = EventGauge("clock_offset", "Help.", lambda counted: counted.clock_offset)
FAMILIES = (COUNTER, HISTOGRAM, MISSED, GAUGE)


def failed_once(name: str = "import", job_id: bytes = b"7") -> Tally:
    """A job that waited for 50 ms and failed."""
    tally = Tally(name, LAYOUT.size)
    tally.observe(LAYOUT.wait, LAYOUT.wait_bounds, 50, job_id, b"1700000000500-0")
    tally.values[Count.FAILED] = 1
    tally.exemplars[Count.FAILED] = (job_id, 1000, b"1700000001000-0")
    return tally


def tallies(*of_names: Tally, clock_offset: float | None = None, queue: Queue = MAIL) -> Tallies:
    by_name = {tally.name: tally.freeze() for tally in of_names}
    counted = QueueTallies(by_name, missed=4, restored=False, clock_offset=clock_offset)
    return Tallies(LAYOUT, {queue: counted}, 0, 0.0, 0, 0, FinishedJobs())


def page(
    counted: Tallies,
    *families: EventFamily,
    openmetrics: bool = False,
    held: Held | None = None,
    target: str | None = None,
) -> str:
    """All of these families, with their heads."""
    labels = partial(labels_of, target=target, with_prefix=False)
    renderer = EventRenderer(families, labels, target, openmetrics=openmetrics)
    batches = finish(renderer.render(counted, counted.queues, held or {}))
    packer = PagePacker()
    for number, family in enumerate(families):
        packer.add(event_head(family, openmetrics=openmetrics).encode())
        for segments in batches:
            packer.add_segment(segments[number])
    packer.add(b"# EOF\n" * openmetrics)
    return b"".join(packer.finish().text(1 << 20)).decode()


def test_the_text_format_has_counts_and_cumulative_buckets() -> None:
    assert page(tallies(failed_once()), *FAMILIES) == (
        "# HELP failed_total Help.\n# TYPE failed_total counter\n"
        'failed_total{queue="mail",name="import"} 1\n'
        "# HELP wait_seconds Help.\n# TYPE wait_seconds histogram\n"
        'wait_seconds_bucket{queue="mail",name="import",le="0.01"} 0\n'
        'wait_seconds_bucket{queue="mail",name="import",le="0.1"} 1\n'
        'wait_seconds_bucket{queue="mail",name="import",le="+Inf"} 1\n'
        'wait_seconds_count{queue="mail",name="import"} 1\n'
        'wait_seconds_sum{queue="mail",name="import"} 0.05\n'
        "# HELP missed_total Help.\n# TYPE missed_total counter\n"
        'missed_total{queue="mail"} 4\n'
        "# HELP clock_offset Help.\n# TYPE clock_offset gauge\n"
    )


def test_openmetrics_says_which_job_was_the_last() -> None:
    text = page(tallies(failed_once()), *FAMILIES, openmetrics=True, target="eu")
    families = {family.name: family for family in parse_openmetrics(text)}
    [failed] = families["failed"].samples
    assert failed.exemplar is not None
    assert failed.exemplar.labels == {"job_key": "eu/bull:mail:7"}
    assert failed.exemplar.value == 1
    assert float(failed.exemplar.timestamp or 0) == 1_700_000_001
    of_buckets = [sample.exemplar for sample in families["wait_seconds"].samples]
    [exemplar] = [each for each in of_buckets if each is not None]
    assert exemplar.value == 0.05
    assert float(exemplar.timestamp or 0) == 1_700_000_000.5


@pytest.mark.parametrize("job_id", [b"x" * 200, b'a"b', b"a\0b"])
def test_an_id_that_prometheus_would_reject_the_page_for_is_no_exemplar(job_id: bytes) -> None:
    text = page(tallies(failed_once(job_id=job_id)), *FAMILIES, openmetrics=True)
    assert " # {" not in text
    assert 'failed_total{queue="mail",name="import"} 1\n' in text


def test_a_series_that_is_new_to_prometheus_shows_0_and_others_their_values() -> None:
    counted = tallies(failed_once("import"), failed_once("sync"), clock_offset=0.5)
    text = page(counted, *FAMILIES, openmetrics=True, held={MAIL: frozenset({None, "import"})})
    values = {
        (sample.name, sample.labels.get("name"), sample.labels.get("le")): sample.value
        for family in parse_openmetrics(text)
        for sample in family.samples
    }
    assert values["failed_total", "import", None] == 0
    assert values["failed_total", "sync", None] == 1
    assert values["wait_seconds_bucket", "import", "+Inf"] == 0
    assert values["missed_total", None, None] == 0
    assert values["clock_offset", None, None] == 0.5  # a gauge has no increase to lose


@pytest.mark.parametrize("name", ['100%d "é"\\', "%s\n", "\\n"])
def test_any_name_of_a_job_is_read_back_as_it_is(name: str) -> None:
    text = page(tallies(failed_once(name), queue=Queue.named("bull", name)), COUNTER, HISTOGRAM)
    found = [sample.labels for family in parse_text(text) for sample in family.samples]
    assert len(found) == 6
    assert {(labels["queue"], labels["name"]) for labels in found} == {(name, name)}


def test_only_queues_whose_counts_have_changed_are_rendered_again() -> None:
    looked_at: list[float | None] = []

    def read(counted: QueueTallies) -> float | None:
        looked_at.append(counted.clock_offset)
        return None

    labels = partial(labels_of, target=None, with_prefix=False)
    renderer = EventRenderer((EventGauge("g", "Help.", read),), labels, None, openmetrics=False)
    of_mail, of_sync = tallies(clock_offset=1), tallies(clock_offset=2, queue=Queue.named("b", "s"))

    def seen(**changed: QueueTallies) -> list[float | None]:
        looked_at.clear()
        queues = {**of_mail.queues, **of_sync.queues}
        queues |= {queue: changed[queue.name] for queue in queues if queue.name in changed}
        finish(renderer.render(Tallies(LAYOUT, queues, 0, 0, 0, 0, FinishedJobs()), queues, {}))
        return looked_at.copy()

    assert seen() == [1, 2]
    assert seen() == []
    assert seen(mail=QueueTallies({}, missed=0, restored=False, clock_offset=3)) == [3]

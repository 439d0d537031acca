"""Gauges as text: what is absent, what is escaped, and what is rendered again."""

from __future__ import annotations

from functools import partial

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.metrics.family import (
    COMPARE_BATCH_SIZE,
    GaugeRenderer,
    LabelledQueueGauge,
    QueueGauge,
    QueueInfo,
    labels_of,
)
from exporter.metrics.job_ages import FAMILIES as AGES
from exporter.metrics.job_counts import FAMILIES as COUNTS
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import CollectorRun, QueueReading, SlowFacts, Snapshot
from tests.support.work import finish

MAIL = Queue.named("bull", "mail")
LABELS = partial(labels_of, target=None, with_prefix=False)
RUN = CollectorRun(success=True, duration=0.1)


def rendered(renderer: GaugeRenderer, *readings: QueueReading, facts: SlowFacts) -> list[str]:
    """The text of each queue."""
    return ["".join(texts) for texts in finish(renderer.render(Snapshot(readings, facts)))]


def once(families: tuple[QueueGauge | LabelledQueueGauge, ...], reading: QueueReading) -> str:
    [text] = rendered(GaugeRenderer(families, LABELS), reading, facts=SlowFacts())
    return text


def test_the_age_of_a_queue_is_the_time_since_when() -> None:
    reading = QueueReading(
        MAIL, {}, oldest_waiting=1_700_000_000.25, oldest_active=0.0, oldest_active_locked=False
    )
    assert once(AGES, reading) == (
        'bullmq_queue_oldest_waiting_timestamp_seconds{queue="mail"} 1700000000.25\n'
        'bullmq_queue_oldest_active_timestamp_seconds{queue="mail"} 0.0\n'
        'bullmq_queue_oldest_active_locked{queue="mail"} 0\n'
    )


def test_what_could_not_be_read_is_absent_and_never_0() -> None:
    assert once(AGES, QueueReading(MAIL, {})) == ""
    assert once(COUNTS, QueueReading(MAIL, {State.WAITING: 0})) == (
        'bullmq_job_count{queue="mail",state="waiting"} 0\n'
    )


def test_missing_jobs_are_no_more_than_there_are_jobs() -> None:
    found = {MAIL: {State.FAILED: 3, State.WAITING: 2, State.DELAYED: 1}}
    facts = SlowFacts().after("missing_jobs", RUN, found)
    reading = QueueReading(MAIL, {State.FAILED: 1, State.WAITING: 0})
    [text] = rendered(GaugeRenderer(COUNTS[1:], LABELS), reading, facts=facts)
    assert text == 'bullmq_queue_missing_jobs{queue="mail",state="failed"} 1\n'


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\\n", 'é"\\\n'])
def test_any_name_is_read_back_as_it_is(name: str) -> None:
    queue = Queue.named('pre"fix', name)
    families = (
        LabelledQueueGauge("g", "Help.", "of", lambda _, __: [(name, 1.5)]),
        QueueInfo("i", "Help.", ("one", "two"), lambda _, __: [(name, "2")]),
    )
    labels = partial(labels_of, target="eu", with_prefix=True)
    [text] = rendered(GaugeRenderer(families, labels), QueueReading(queue, {}), facts=SlowFacts())
    both = [family.samples[0] for family in text_string_to_metric_families(text)]
    common = {"target": "eu", "prefix": 'pre"fix', "queue": name}
    assert [(sample.labels, sample.value) for sample in both] == [
        (common | {"of": name}, 1.5),
        (common | {"one": name, "two": "2"}, 1),
    ]


def test_only_queues_that_have_changed_are_rendered_again() -> None:
    looked_at: list[str] = []

    def read(reading: QueueReading, _: object) -> float:
        looked_at.append(reading.queue.name)
        return 1.0

    renderer = GaugeRenderer((QueueGauge("g", "Help.", read),), LABELS)
    mail, sync = (QueueReading(Queue.named("bull", name), {}) for name in ("mail", "sync"))
    facts = SlowFacts()

    def names(*readings: QueueReading) -> list[str]:
        looked_at.clear()
        rendered(renderer, *readings, facts=facts)
        return looked_at.copy()

    assert names(mail, sync) == ["mail", "sync"]
    assert names(mail, sync) == []
    assert names(QueueReading(mail.queue, {}), sync) == ["mail"]
    facts = facts.after("workers", RUN, {sync.queue: 2})
    assert names(mail, sync) == ["mail", "sync"]  # the first reading of mail is another object
    facts = facts.after("workers", RUN, {sync.queue: 3})
    assert names(mail, sync) == ["sync"]


def test_a_queue_that_is_gone_is_rendered_no_more() -> None:
    renderer = GaugeRenderer((QueueGauge("g", "Help.", lambda _, __: 1),), LABELS)
    mail, sync = (QueueReading(Queue.named("bull", name), {}) for name in ("mail", "sync"))
    rendered(renderer, mail, sync, facts=SlowFacts())
    assert rendered(renderer, sync, facts=SlowFacts()) == ['g{queue="sync"} 1\n']


def test_with_many_queues_it_yields_to_requests() -> None:
    renderer = GaugeRenderer((), LABELS)
    readings = tuple(
        QueueReading(Queue.named("bull", f"{number}"), {}) for number in range(COMPARE_BATCH_SIZE)
    )
    yields = sum(1 for _ in renderer.render(Snapshot(readings)))
    assert yields > 10
    assert sum(1 for _ in renderer.render(Snapshot(readings))) == 0  # nothing has changed

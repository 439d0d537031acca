"""Adds that came to nothing are counted: real BullMQ, each way it has to swallow them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.bullmq import StartWork, Work
from tests.support.counters import wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

MINUTE = 60_000


def counted(exporter: Exporter) -> dict[tuple[str, str], dict[str, int]]:
    """By queue and job name, what is not 0 of the three counters."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for what in ("added", "deduplicated", "duplicated"):
        for (name, queue), value in exporter.metrics.samples(f"bullmq_job_{what}_total").items():
            if value:
                found.setdefault((queue, name), {})[what] = int(value)
    return found


def add(work: Work, queue: str, names: str, **options: Any) -> None:
    for name in names.split():
        work.call(queue, "add", name, {}, options)


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_swallowed_adds_are_counted_once_by_the_name_of_the_job_that_stays(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    exporter = wait_following(start_exporter(server.url))
    work = start_work(version, server.port)
    add(work, "simple", "stays other other other", deduplication={"id": "a"})
    # Until its time is over, even where the job is completed by then.
    work.work("throttled")
    throttled = {"deduplication": {"id": "a", "ttl": 10 * MINUTE}}
    add(work, "throttled", "stays", **throttled)
    with server.client() as client:
        eventually(lambda: client.zcard("bull:throttled:completed"))
    add(work, "throttled", "other other", **throttled)
    extended = {"id": "a", "ttl": 10 * MINUTE, "extend": True}
    add(work, "extended", "stays other other", deduplication=extended)
    debounced = {"deduplication": {**extended, "replace": True}, "delay": MINUTE}
    add(work, "debounced", "first second third", **debounced)
    add(work, "same-id", "stays other other", jobId="the-id")
    add(work, "same-id", "later", jobId="another", delay=MINUTE)
    add(work, "same-id", "other", jobId="another", priority=3)
    expected = {
        ("simple", "stays"): {"added": 1, "deduplicated": 3},
        ("throttled", "stays"): {"added": 1, "deduplicated": 2},
        ("extended", "stays"): {"added": 1, "deduplicated": 2},
        # Each takes the place of the one before it.
        ("debounced", "first"): {"added": 1},
        ("debounced", "second"): {"added": 1, "deduplicated": 1},
        ("debounced", "third"): {"added": 1, "deduplicated": 1},
        ("same-id", "stays"): {"added": 1, "duplicated": 2},
        ("same-id", "later"): {"added": 1, "duplicated": 1},
    }
    if version == "bullmq6":
        # The last one that came while the job was active is added when that one ends.
        last = {"deduplication": {"id": "a", "keepLastIfActive": True}}
        add(work, "last-one", "sleeps-1500", **last)
        work.work("last-one")
        with server.client() as client:
            eventually(lambda: client.llen("bull:last-one:active"))
        add(work, "last-one", "second third", **last)
        expected["last-one", "sleeps-1500"] = {"added": 1, "deduplicated": 2}
        expected["last-one", "third"] = {"added": 1}

    def right() -> bool:
        assert counted(exporter) == expected
        return True

    eventually(right)

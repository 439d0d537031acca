"""Label values that any Prometheus takes, whatever applications call their queues and jobs."""

from __future__ import annotations

import re
import time
from pathlib import Path
from urllib.parse import quote

import pytest

from exporter.queues.text import MAX_LABEL_BYTES, label_text, shorten, text
from tests.support.exporters import StartExporter
from tests.support.label_judges import PROMETHEUS
from tests.support.programs import Spawn
from tests.support.prometheus import start_prometheus
from tests.support.servers import Server
from tests.support.waiting import eventually

LONG = b"q" * 1200
ALIKE = LONG[:-1] + b"r"
WIDE = "\N{GRINNING FACE}".encode() * 100
INVALID = b"\xff" * 200


def test_a_short_value_stays_and_long_ones_stay_apart() -> None:
    assert label_text(b"ingestion") == "ingestion"
    assert label_text(b"a" * MAX_LABEL_BYTES) == "a" * MAX_LABEL_BYTES
    shown = [label_text(raw) for raw in (LONG, ALIKE, WIDE, WIDE + b"!", INVALID, INVALID[1:])]
    assert len(set(shown)) == len(shown)
    for value in shown:
        assert len(value.encode()) <= MAX_LABEL_BYTES
        assert re.search("~[0-9a-f]{8}$", value)
        assert shorten(value) == value
    # No character is cut within, and no escaped byte either way changes the hash.
    assert label_text(WIDE)[:-9] == "\N{GRINNING FACE}" * 47
    assert shorten(text(INVALID)) == label_text(INVALID)


@pytest.mark.parametrize("version", PROMETHEUS)
def test_a_prometheus_that_limits_labels_to_200_bytes_takes_every_scrape(
    server: Server, start_exporter: StartExporter, spawn: Spawn, tmp_path: Path, version: str
) -> None:
    names = (LONG, ALIKE, WIDE, INVALID)
    with server.client() as client:
        for name in names:
            base = b"bull:" + name
            client.hset(base + b":meta", "version", b"\xff" * 300)
            due = int(time.time() * 1000) + 3_600_000
            client.zadd(base + b":repeat", {b"s" * 300 + end: due for end in (b"1", b"2", b"\xfe")})
        exporter = start_exporter(server.url)
        # Before that the events are not followed, and what was there before is not counted.
        eventually(lambda: exporter.metrics.value("bullmq_exporter_events_read_total") == 0)
        for name in names:
            for number, job in enumerate((INVALID, INVALID[1:], b"j" * 2000, b"short")):
                entry = {"event": "added", "jobId": number, "name": job}
                client.xadd(b"bull:" + name + b":events", entry)  # type: ignore[arg-type]
    prometheus = start_prometheus(
        spawn,
        tmp_path,
        {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [
                {
                    "job_name": "bullmq",
                    "label_value_length_limit": MAX_LABEL_BYTES,
                    "static_configs": [{"targets": [exporter.metrics.url.removeprefix("http://")]}],
                }
            ],
        },
        binary=PROMETHEUS[version](),
    )
    for query, number in (
        ("up == 1", 1),
        ("bullmq_queue_info", len(names)),
        ("bullmq_scheduler_next_run_timestamp_seconds", 3 * len(names)),
        ("bullmq_job_added_total", 4 * len(names)),
    ):
        eventually(lambda query=query, number=number: len(prometheus.query(query)) == number)


def test_a_long_name_as_it_is_shown_opens_its_queue(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset(b"bull:" + LONG + b":meta", "version", "bullmq:5.56.3")
        client.rpush(b"bull:" + LONG + b":wait", "1")
        client.hset(b"bull:" + LONG + b":1", mapping={"name": "n", "data": "{}", "timestamp": 1})
    exporter = start_exporter(server.url)
    shown = label_text(LONG)
    for name in (shown, LONG.decode()):
        answer = exporter.api.get(f"/v1/jobs/queues/{name}?status=waiting")
        assert answer.status == 200
        assert answer.json["name"] == shown
        assert [job["id"] for job in answer.json["jobs"]] == ["1"]
    found = exporter.api.get(f"/v1/jobs/keys/{quote(f'bull:{LONG.decode()}:1')}")
    assert found.json == {"name": shown, "id": "1"}

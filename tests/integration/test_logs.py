"""How many lines the log has, whatever happens."""

from __future__ import annotations

import logging
import time

import pytest

from exporter.logs import MAX_LINES_PER_MINUTE, LineLimit
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually


def test_lines_with_the_same_message_are_limited_and_the_others_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    limit = LineLimit()

    def passed(message: str, times: int, level: int = logging.WARNING) -> list[logging.LogRecord]:
        records = [
            logging.makeLogRecord({"name": "exporter.x", "msg": message, "levelno": level})
            for _ in range(times)
        ]
        return [record for record in records if limit.filter(record)]

    first = passed("events were missed", MAX_LINES_PER_MINUTE + 5)
    assert len(first) == MAX_LINES_PER_MINUTE
    assert [hasattr(record, "further") for record in first[-2:]] == [False, True]
    assert len(passed("Redis is back", 1)) == 1
    assert len(passed("events were missed", 500, logging.DEBUG)) == 500
    now += 59
    assert not passed("events were missed", 2)
    now += 1
    [next_line] = passed("events were missed", 1)
    assert vars(next_line)["unlogged"] == 7
    [last_line] = passed("events were missed", 1)
    assert not hasattr(last_line, "unlogged")


def test_many_streams_that_are_deleted_do_not_fill_the_log(
    server: Server, start_exporter: StartExporter
) -> None:
    queues = MAX_LINES_PER_MINUTE + 50
    bases = [f"bull:q{number}" for number in range(queues)]
    with server.client() as client:
        for base in bases:
            client.hset(f"{base}:meta", "version", "bullmq:5.56.3")
            client.xadd(f"{base}:events", {"event": "added", "jobId": "1", "name": "a"})
        exporter = start_exporter(server.url)
        value = exporter.metrics.value
        eventually(lambda: value("bullmq_exporter_events_followed") == 1)
        for base in bases:
            client.xadd(f"{base}:events", {"event": "added", "jobId": "2", "name": "a"})
        eventually(lambda: (value("bullmq_exporter_events_read_total") or 0) >= queues)
        client.delete(*(f"{base}:events" for base in bases))
        eventually(lambda: value("bullmq_exporter_uncertain_gaps_total") == queues)
    lines = exporter.lines("the events are gone")
    assert len(lines) == MAX_LINES_PER_MINUTE
    assert ["further" in line for line in lines[-2:]] == [False, True]

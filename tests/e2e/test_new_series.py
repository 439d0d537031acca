"""The first counts of a queue or of a job's name reach every Prometheus, whoever else reads."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.programs import Spawn, newest
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.servers import Server
from tests.support.waiting import eventually

FAILED = "bullmq_job_failed_total"
SCRAPE = {"X_Prometheus_Scrape_Timeout_Seconds": "10"}


def failed(exporter: Exporter, queue: str, **headers: str) -> float | None:
    """What a reader with these headers is shown of the queue's failed jobs."""
    page = exporter.metrics.get("/metrics", **headers).text
    samples = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == FAILED and sample.labels["queue"] == queue
    ]
    return sum(samples) if samples else None


def follow(start_exporter: StartExporter, server: Server, **variables: str) -> Exporter:
    exporter = start_exporter(server.url, **variables)
    eventually(lambda: exporter.metrics.value("bullmq_exporter_events_read_total") is not None)
    return exporter


def test_two_prometheus_servers_and_a_reader_all_see_the_first_failure(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    spawn: Spawn,
    tmp_path: Path,
) -> None:
    # For longer than any pause of a busy machine between two scrapes.
    exporter = follow(start_exporter, server, EXPORTER_METRICS_SCRAPE_INTERVAL="15")
    target = exporter.metrics.url.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "bullmq", "static_configs": [{"targets": [target]}]}],
    }
    both: list[Prometheus] = []
    for number, binary in enumerate((None, newest("prometheus"))):
        directory = tmp_path / str(number)
        directory.mkdir()
        both.append(start_prometheus(spawn, directory, config, binary=binary))
    for prometheus in both:
        eventually(lambda prometheus=prometheus: prometheus.query("up == 1"))
    ended = threading.Event()

    def read() -> None:
        while not ended.wait(0.1):
            exporter.metrics.get("/metrics")

    reader = threading.Thread(target=read)
    reader.start()
    try:
        work = start_work("bullmq6", server.port)
        work.work("new")
        work.add("new", "fails", 3)
        # Whoever is no Prometheus is shown at once what is counted.
        eventually(lambda: failed(exporter, "new") == 3)
        assert failed(exporter, "new", **SCRAPE) == 0
        for prometheus in both:
            eventually(lambda prometheus=prometheus: prometheus.query(f"{FAILED} == 3"))
            [row] = prometheus.query(f"min_over_time({FAILED}[10m])")
            assert row["value"][1] == "0"
    finally:
        ended.set()
        reader.join()
    # A queue that comes later has its own time.
    work.work("later")
    work.add("later", "fails", 2)
    eventually(lambda: failed(exporter, "later") == 2)
    assert failed(exporter, "later", **SCRAPE) == 0
    assert failed(exporter, "new", **SCRAPE) == 3


@pytest.mark.parametrize("openmetrics", [False, True])
def test_reading_changes_nothing(
    server: Server, start_exporter: StartExporter, start_work: StartWork, openmetrics: bool
) -> None:
    exporter = follow(start_exporter, server, EXPORTER_METRICS_SCRAPE_INTERVAL="3600")
    accept = {"Accept": "application/openmetrics-text"} if openmetrics else {}
    work = start_work("bullmq5", server.port)
    work.work("new")
    work.add("new", "fails", 3)
    eventually(lambda: failed(exporter, "new") == 3)
    polls = "bullmq_exporter_poll_duration_seconds_count"
    for _ in range(3):
        last = exporter.metrics.value(polls) or 0
        eventually(lambda last=last: (exporter.metrics.value(polls) or 0) > last + 1)
        page = exporter.metrics.get("/metrics", **accept, **SCRAPE).text
        assert f'{FAILED}{{queue="new",name="fails"}} 0\n' in page
        assert f'{FAILED}{{queue="new",name="fails"}} 3' in exporter.metrics.get("/metrics").text
        # Exemplars are of jobs that are not counted yet.
        assert "job_key" not in page


def test_before_the_first_scrape_nothing_is_lost_however_late_it_comes(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = follow(start_exporter, server, EXPORTER_METRICS_SCRAPE_INTERVAL="0.1")
    work = start_work("bullmq5", server.port)
    work.work("new")
    work.add("new", "fails", 3)
    eventually(lambda: failed(exporter, "new") == 3)
    polls = "bullmq_exporter_poll_duration_seconds_count"
    eventually(lambda: (exporter.metrics.value(polls) or 0) > 5)
    assert failed(exporter, "new", **SCRAPE) == 0
    eventually(lambda: failed(exporter, "new", **SCRAPE) == 3)


def test_without_a_scrape_interval_nothing_is_held_back(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = follow(start_exporter, server, EXPORTER_METRICS_SCRAPE_INTERVAL="0")
    work = start_work("bullmq5", server.port)
    work.work("new")
    work.add("new", "fails", 3)
    eventually(lambda: failed(exporter, "new", **SCRAPE) == 3)


def test_counters_move_between_polls_that_come_seldom(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq6", server.port)
    work.work("busy")
    work.add("busy", "plain", 1)
    work.settle()
    exporter = follow(start_exporter, server, EXPORTER_POLL_INTERVAL="3600")
    polls = "bullmq_exporter_poll_duration_seconds_count"
    completed = "bullmq_job_completed_total"
    for total in (5, 10):
        work.add("busy", "plain", 5)
        eventually(
            lambda total=total: (
                exporter.metrics.value(completed, queue="busy", name="plain") == total
            )
        )
    assert exporter.metrics.value(polls) == 1
    assert exporter.metrics.value("bullmq_job_count", queue="busy", state="completed") == 1
    # A queue that is found meanwhile does not wait for the next poll.
    work.work("new")
    work.add("new", "fails", 2)
    eventually(lambda: failed(exporter, "new") == 2)
    assert exporter.metrics.value("bullmq_job_count", queue="busy", state="completed") == 11

"""What we report is what BullMQ itself says, for each version of it and on each server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.bullmq import History
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.truth import assert_truth_is_reported
from tests.support.waiting import eventually

MakeHistory = Callable[..., History]


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_every_count_and_every_job_is_what_bullmq_says(
    any_server: Server, start_exporter: StartExporter, history: MakeHistory, version: str
) -> None:
    queue = f"history-{version}"
    made = history(version, any_server.port, queue)
    exporter = start_exporter(any_server.url)

    assert_truth_is_reported(exporter, queue, made.truth, paused=False)
    assert_truth_is_reported(exporter, queue, made.run("pause"), paused=True)
    assert_truth_is_reported(exporter, queue, made.run("resume"), paused=False)


def test_ages_versions_schedulers_and_retention_of_a_real_queue_are_reported(
    server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    began = time.time()
    truth = history("bullmq5", server.port, "ingestion").truth
    exporter = start_exporter(server.url)
    value = exporter.metrics.value
    jobs = truth["jobs"]

    assert value("bullmq_queue_info", queue="ingestion", version="bullmq:5.56.3") == 1
    ready = min(job["timestamp"] for job in jobs["waiting"] + jobs["prioritized"])
    oldest = value("bullmq_queue_oldest_waiting_timestamp_seconds", queue="ingestion")
    assert oldest == ready / 1000
    [active] = jobs["active"]
    oldest = value("bullmq_queue_oldest_active_timestamp_seconds", queue="ingestion")
    assert oldest == active["processedOn"] / 1000
    due = jobs["delayed"][0]["timestamp"] / 1000 + 3600
    next_delayed = value("bullmq_queue_next_delayed_timestamp_seconds", queue="ingestion")
    assert next_delayed == pytest.approx(due, abs=0.0005)
    assert value("bullmq_queue_schedulers", queue="ingestion") == 1
    run = value(
        "bullmq_scheduler_next_run_timestamp_seconds", queue="ingestion", scheduler="nightly"
    )
    assert run and began - 86_400 < run < began + 2 * 86_400
    kept = exporter.metrics.samples("bullmq_queue_retention_limit", queue="ingestion")
    assert kept == {("failed",): 5000}
    assert value("bullmq_worker_heartbeat_timestamp_seconds", queue="ingestion") is None
    with server.client() as client:
        client.set("oa:worker:ingestion:alive", "1795482933152", ex=600)
    eventually(
        lambda: (
            value("bullmq_worker_heartbeat_timestamp_seconds", queue="ingestion") == 1795482933.152
        )
    )

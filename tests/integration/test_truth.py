"""What we tell is what BullMQ itself says, for each version of it and on each server."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bullmq import History
from tests.support.exporters import Exporter, StartExporter
from tests.support.job_counts import expected_counts, told_counts
from tests.support.servers import Server
from tests.support.waiting import eventually

MakeHistory = Callable[..., History]


def assert_jobs(exporter: Exporter, queue: str, state: str, jobs: list[dict[str, Any]]) -> None:
    """Every page of a state, and pages past its end, hold exactly these jobs."""
    limit = 4
    pages = -(-len(jobs) // limit)
    seen: list[dict[str, Any]] = []
    for page in range(1, pages + 3):
        answer = exporter.api.get(
            f"/v1/jobs/queues/{queue}?status={state}&page={page}&limit={limit}"
        ).json
        assert answer["pagination"] == {
            "currentPage": page,
            "totalPages": pages,
            "totalJobs": len(jobs),
            "limit": limit,
        }
        assert len(answer["jobs"]) == max(0, min(limit, len(jobs) - (page - 1) * limit))
        for job in answer["jobs"]:
            assert job.pop("state") == state
            assert job.pop("error") == job["failedReason"]
            data = job["data"]
            source = data.get("ingestionSourceId") if isinstance(data, dict) else None
            assert job.pop("ingestionSourceId") == source
        seen += answer["jobs"]
    assert seen == jobs
    newest_first = exporter.api.get(f"/v1/jobs/queues/{queue}?status={state}&order=desc&limit=7")
    assert [job["id"] for job in newest_first.json["jobs"]] == [j["id"] for j in jobs[::-1]][:7]


def assert_told_truly(exporter: Exporter, queue: str, truth: dict[str, Any], paused: bool) -> None:
    counts = expected_counts(truth, paused)
    eventually(lambda: told_counts(exporter, queue) == counts)
    assert exporter.metrics.value("bullmq_queue_paused", queue=queue) == paused
    assert exporter.metrics.value("bullmq_queue_workers", queue=queue) == truth["workers"] == 1
    listed = {
        q["name"]: q["counts"] for q in exporter.api.get("/api/v1/jobs/queues").json["queues"]
    }
    assert listed[queue] == counts
    jobs = truth["jobs"]
    if paused:
        jobs = jobs | {"paused": jobs["paused"] or jobs["waiting"], "waiting": []}
    for state, of_state in jobs.items():
        assert_jobs(exporter, queue, state, of_state)


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_every_count_and_every_job_is_what_bullmq_says(
    any_server: Server, start_exporter: StartExporter, history: MakeHistory, version: str
) -> None:
    queue = f"history-{version}"
    made = history(version, any_server.port, queue)
    exporter = start_exporter(any_server.url)

    assert_told_truly(exporter, queue, made.truth, paused=False)
    assert_told_truly(exporter, queue, made.tell("pause"), paused=True)
    assert_told_truly(exporter, queue, made.tell("resume"), paused=False)


def test_ages_versions_schedulers_and_retention_of_a_real_queue_are_told(
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

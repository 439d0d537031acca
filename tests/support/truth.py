"""Whether what is exposed and answered of a queue is what BullMQ says of it."""

from __future__ import annotations

from collections.abc import Collection
from operator import itemgetter
from typing import Any

from tests.support.exporters import Exporter
from tests.support.job_counts import expected_counts, reported_counts
from tests.support.waiting import eventually


def assert_jobs(
    exporter: Exporter, queue: str, state: str, jobs: list[dict[str, Any]], *, has_ties: bool
) -> None:
    """Every page of a state, and pages past its end, hold exactly these jobs.

    With `has_ties` BullMQ itself has no order for jobs that finished in the same millisecond.
    """
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
    newest_first = exporter.api.get(f"/v1/jobs/queues/{queue}?status={state}&order=desc&limit=7")
    newest = newest_first.json["jobs"]
    if has_ties:
        finished = [job["finishedOn"] for job in jobs]
        assert [job["finishedOn"] for job in seen] == finished
        assert [job["finishedOn"] for job in newest] == finished[::-1][:7]
        assert sorted(seen, key=itemgetter("id")) == sorted(jobs, key=itemgetter("id"))
    else:
        assert seen == jobs
        assert [job["id"] for job in newest] == [job["id"] for job in jobs[::-1]][:7]


def assert_truth_is_reported(
    exporter: Exporter,
    queue: str,
    truth: dict[str, Any],
    paused: bool,
    *,
    tied_states: Collection[str] = (),
) -> None:
    """All counts and jobs of the queue are those of `truth`; see `assert_jobs`."""
    counts = expected_counts(truth, paused)
    eventually(lambda: reported_counts(exporter, queue) == counts)
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
        assert_jobs(exporter, queue, state, of_state, has_ties=state in tied_states)

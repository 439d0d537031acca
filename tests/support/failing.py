"""Jobs of the queue `mail` that fail, by real workers or as events alone."""

from __future__ import annotations

from typing import Any

from tests.support.bullmq import Work

PREFIX = "bull:mail:"


def fail(work: Work, jobs: list[dict[str, Any]]) -> None:
    """Add these jobs, and wait until they have failed."""
    work.addJobs("mail", jobs)
    work.settle()


def write_failed(client: Any, job_id: str, reason: str) -> None:
    """The event of a job that failed for good; `client` may be a pipeline."""
    entry = {"event": "failed", "jobId": job_id, "failedReason": reason, "prev": "active"}
    client.xadd(f"{PREFIX}events", entry, maxlen=20_000)

"""Converts queues, jobs and failures to the fields of the Jobs API."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import quote

from exporter.queues.failure_evidence import JobEvidence, ReasonEvidence
from exporter.queues.failures import Group
from exporter.queues.job_detail import Child, Children, JobDetail
from exporter.queues.jobs import Job
from exporter.queues.limits import QueueLimits
from exporter.queues.queue import JobKey, State
from exporter.queues.snapshot import QueueReading, Scheduler
from exporter.queues.text import MAX_ID_BYTES, text

# Maximum number of sources and of names that are shown of a group, the most frequent ones.
MAX_SHOWN = 20


def counts(given: Mapping[State, int]) -> dict[str, int | None]:
    """Jobs by status; None where a count could not be read."""
    return {state.value: given.get(state) for state in State}


def reading(given: QueueReading) -> dict[str, Any]:
    """A queue's reading beyond its counts; None: there is none, or it is unknown."""
    return {
        "paused": given.paused,
        "oldestWaiting": _milliseconds(given.oldest_waiting),
        "oldestActive": _milliseconds(given.oldest_active),
        "nextDelayed": _milliseconds(given.next_delayed),
        "oldestWaitingChildren": _milliseconds(given.oldest_waiting_children),
        "limits": _limits(given.limits),
    }


def _limits(given: QueueLimits) -> dict[str, float | None]:
    return {
        "concurrency": _whole(given.concurrency),
        "rateMax": _whole(given.rate_max),
        "rateDuration": _milliseconds(given.rate_duration),
        "rateLimitedUntil": _milliseconds(given.rate_limited_until),
        "rateWindowEnd": _milliseconds(given.rate_window_end),
    }


def job(given: Job, *, brief: bool = False) -> dict[str, Any]:
    """A job as Open Archiver's Jobs API has it; `brief` is one whose bulky fields were not read."""
    return job_id(given.raw_id) | {
        "name": given.name,
        "data": None if brief else given.data,
        "state": given.state,
        "failedReason": given.failed_reason,
        "timestamp": given.timestamp,
        "processedOn": given.processed_on,
        "finishedOn": given.finished_on,
        "attemptsMade": given.attempts_made,
        "stacktrace": given.stacktrace,
        "returnValue": given.return_value,
        "ingestionSourceId": given.ingestion_source,
        "error": given.failed_reason,
    }


def detail(given: JobDetail, *, with_prefix: bool) -> dict[str, Any]:
    """A job in full, except its logs."""
    return job(given.job) | {
        "options": given.options,
        "progress": given.progress,
        "priority": given.priority,
        "delay": given.delay,
        "stalledCount": given.stalled_count,
        "worker": given.worker,
        "parent": given.parent and _place(given.parent, with_prefix=with_prefix),
        "children": given.children and _children(given.children, with_prefix=with_prefix),
        "durations": {
            "untilTaken": _between(given.job.timestamp, given.job.processed_on),
            "processing": _between(given.job.processed_on, given.job.finished_on),
            "total": _between(given.job.timestamp, given.job.finished_on),
        },
    }


def group(given: Group, kept: Collection[bytes]) -> dict[str, Any]:
    """The failures of one reason; of the jobs that were seen, those in `kept` exist."""
    return {
        "fingerprint": given.reason.fingerprint,
        "reason": given.reason.text,
        "frame": given.frame,
        "count": given.count,
        "firstSeen": given.first_seen,
        "lastSeen": given.last_seen,
        "names": [
            {"name": name, "count": number} for name, number in given.names.most_common(MAX_SHOWN)
        ],
        "attempts": {"min": given.fewest_attempts, "max": given.most_attempts},
        "ingestionSources": [
            {"id": source, "count": number}
            for source, number in given.sources.most_common(MAX_SHOWN)
        ],
        "exampleReason": given.example_reason,
        "willBeRetried": given.retrying,
        **_seen(given.seen, kept),
    } | job_id(given.example_raw_id or b"", key="exampleId", encoded="exampleEncodedId")


def _seen(given: ReasonEvidence | None, kept: Collection[bytes]) -> dict[str, Any]:
    if given is None:
        nothing = dict.fromkeys(("seen24h", "hours", "retried24h", "retriedHours"))
        return nothing | {"evidence": []}
    return {
        "seen24h": sum(given.failed),
        "hours": given.failed,
        "retried24h": sum(given.retried),
        "retriedHours": given.retried,
        "evidence": [_job_evidence(job, kept) for job in given.jobs],
    }


def _job_evidence(given: JobEvidence, kept: Collection[bytes]) -> dict[str, Any]:
    # For a long id it is unknown, because only its beginning is remembered.
    removed = given.raw_id not in kept if len(given.raw_id) < MAX_ID_BYTES else None
    return job_id(given.raw_id) | {
        "name": given.name,
        "failedReason": text(given.text),
        "stacktrace": [] if given.trace is None else [text(given.trace)],
        "attemptsMade": given.attempts,
        "finishedOn": given.at,
        "willBeRetried": not given.is_final,
        "ingestionSourceId": given.source,
        "removed": removed,
    }


def scheduler(given: Scheduler, now: int) -> dict[str, Any]:
    """A scheduler without the data and options of its jobs, which may be secret."""
    return {
        "key": given.label,
        "name": given.name,
        "pattern": given.pattern,
        "every": given.every,
        "tz": given.tz,
        "nextRun": given.next_run,
        "lastRun": given.last_run,
        "overdue": given.is_overdue(now),
        "ended": given.has_ended(now),
        "limit": given.limit,
        "endDate": given.end_date,
        "iterations": given.iterations,
    }


def job_id(raw: bytes, key: str = "id", encoded: str = "encodedId") -> dict[str, str]:
    """An id as text, and percent-encoded if it is not UTF-8: the text alone is ambiguous then."""
    try:
        return {key: raw.decode()}
    except UnicodeDecodeError:
        return {key: text(raw), encoded: quote(raw, safe="")}


def _place(key: JobKey, *, with_prefix: bool) -> dict[str, str]:
    place = {"queue": key.queue} | job_id(key.raw_id)
    return place | ({"prefix": key.prefix} if with_prefix else {})


def _children(given: Children, *, with_prefix: bool) -> dict[str, Any]:
    return {
        "counts": dict(given.counts),
        "jobs": [
            _place(child.key, with_prefix=with_prefix) | {"outcome": child.outcome} | _now(child)
            for child in given.jobs
        ],
        "complete": given.complete,
    }


def _now(child: Child) -> dict[str, Any]:
    """The state of an unprocessed child in its own queue; null if it cannot be read."""
    if child.outcome == "processed":
        return {}
    if child.now is None:
        return {"state": None, "failedReason": None}
    state = "removed" if child.now.removed else child.now.state
    return {"state": state, "failedReason": child.now.failed_reason}


def _between(begin: int | None, end: int | None) -> int | None:
    return None if begin is None or end is None else end - begin


def _whole(number: float | None) -> float | None:
    """A whole number without a decimal point."""
    return int(number) if number is not None and number.is_integer() else number


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)

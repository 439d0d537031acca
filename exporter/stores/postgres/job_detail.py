"""Reads everything that BullMQ stores about one job, in one round trip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.queues.job_detail import Child, Children, ChildState, JobDetail, decoded_options
from exporter.queues.jobs import ReadLimits
from exporter.queues.json_values import parse_json
from exporter.queues.queue import JobKey, Queue, State
from exporter.stores.postgres.client import PostgresReader, Row, raw_text, sendable, shown_text
from exporter.stores.postgres.jobs import MAX_NAME_LENGTH, job_of
from exporter.stores.postgres.statements import load_statement

STATEMENTS = [
    load_statement(name)
    for name in ("job.sql", "log_total.sql", "log_lines.sql", "child_counts.sql", "children.sql")
]

MAX_LOG_LINE_LENGTH = 10_000  # characters
MAX_REASON_LENGTH = 10_000  # characters
MAX_CHILDREN = 100  # of each kind, by name

# The outcome of a child, by its status in `job_dependency`.
OUTCOMES = {
    "processed": "processed",
    "pending": "unprocessed",
    "failed": "failed",
    "ignored": "ignored",
}
_STATES = {state.value: state for state in State}
# The fields whose lengths job.sql returns, in its order.
_FIELDS = ("failedReason", "stacktrace", "data", "returnvalue", "opts", "progress")


async def read_job(
    reader: PostgresReader,
    queue: Queue,
    job_id: str,
    *,
    first_log: int,
    logs: int,
    limits: ReadLimits,
) -> JobDetail | None:
    """Returns the job, with `logs` of its log lines from index `first_log` on; None if it is gone.

    Raises PostgresUnavailable.
    """
    found, [(log_total,)], lines, counts, children = await reader.read_together(
        STATEMENTS,
        queue=sendable(queue.raw_name),
        id=job_id,
        length=MAX_NAME_LENGTH,
        bytes=min(limits.field_bytes, limits.page_bytes // len(_FIELDS)),
        line=MAX_LOG_LINE_LENGTH,
        first_log=first_log,
        logs=logs,
        children=MAX_CHILDREN,
        reason=MAX_REASON_LENGTH,
    )
    if not found:
        return None
    [row] = found
    name, kept_as, added, processed, finished, attempts, priority, delay, stalled, *rest = row
    worker, parent_queue, parent_id, *unbounded, paused = rest
    fields = _fields(unbounded)
    return JobDetail(
        job=job_of(
            job_id,
            _state(kept_as, priority, paused=paused),
            name=name,
            times=(added, processed, finished),
            attempts_made=attempts,
            fields=fields,
        ),
        options=decoded_options(parse_json(fields["opts"])),
        progress=parse_json(fields["progress"]),
        priority=priority,
        delay=delay,
        stalled_count=stalled,
        worker=None if worker is None else shown_text(worker),
        parent=None if parent_id is None else _key(queue, parent_queue or "", parent_id),
        children=_children(queue, counts, children),
        log_lines=tuple(shown_text(line) for (line,) in lines),
        log_total=log_total,
    )


def _fields(unbounded: Sequence[Any]) -> dict[str, bytes | None]:
    """Returns the fields of job.sql, with a note of the length in place of a field that is too
    long.
    """
    fields: dict[str, bytes | None] = {}
    for field, size, text in zip(_FIELDS, unbounded[::2], unbounded[1::2], strict=True):
        if size is not None and text is None:
            fields[field] = b"[left out: %d bytes]" % size
        else:
            fields[field] = None if text is None else raw_text(text)
    return fields


def _state(kept_as: str, priority: int, *, paused: bool) -> State | None:
    """Returns the state of a job by its value in PostgreSQL; None for one of a later migration."""
    if kept_as == "waiting" and priority > 0:
        return State.PRIORITIZED
    if kept_as == "waiting" and paused:
        return State.PAUSED
    return _STATES.get(kept_as)


def _key(near: Queue, queue: str, job_id: str) -> JobKey:
    """Returns the key of a job in the same schema."""
    return JobKey(near.prefix, shown_text(queue), raw_text(job_id))


def _children(queue: Queue, counts: Sequence[Row], rows: Sequence[Row]) -> Children | None:
    by_outcome: Mapping[str, int] = {OUTCOMES[status]: number for status, number in counts}
    if not by_outcome:
        return None
    return Children(
        {outcome: by_outcome.get(outcome, 0) for outcome in OUTCOMES.values()},
        tuple(
            Child(
                _key(queue, child_queue, child_id),
                OUTCOMES[status],
                None
                if status == "processed"
                else ChildState(
                    None if removed else _state(kept_as, priority, paused=paused),
                    removed,
                    shown_text(reason) if reason else None,
                ),
            )
            for status, child_queue, child_id, removed, kept_as, priority, paused, reason in rows
        ),
    )

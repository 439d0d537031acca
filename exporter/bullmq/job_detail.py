"""One job with all that BullMQ keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from exporter.bullmq.connection import RedisReader, Script, readable
from exporter.bullmq.jobs import (
    FIELDS,
    UNBOUNDED,
    Job,
    Limits,
    integer,
    job_of,
    parse_json,
    too_large,
)
from exporter.bullmq.keys import JobKey, Queue, State, text

JOB = Script("job.lua")

# Further fields of a job's hash: options, progress, priority, delay, how often it stalled, which
# worker has it, and the key of its parent.
MORE_FIELDS = ("opts", "progress", "priority", "delay", "stc", "pb", "parentKey")
MORE_UNBOUNDED = (*UNBOUNDED, "opts", "progress", "name", "pb", "parentKey")
LONGEST_LOG_LINE = 10_000  # bytes
# How far from either end of each list a job is looked for: in three long lists that holds Redis 7.0
# for 0.5 ms.
REACH = 10_000
MOST_CHILDREN = 100  # of each kind, by name
# BullMQ's short names for options (optsDecodeMap, the same in 5.56.3 and 6.7.0).
OPTIONS = {
    "de": "deduplication",
    "fpof": "failParentOnFailure",
    "cpof": "continueParentOnFailure",
    "idof": "ignoreDependencyOnFailure",
    "kl": "keepLogs",
    "rdof": "removeDependencyOnFailure",
}


@dataclass(frozen=True, slots=True)
class Children:
    """The jobs that a flow's parent waits for, by what became of them."""

    counts: Mapping[str, int]
    jobs: tuple[tuple[JobKey, str], ...]

    @property
    def complete(self) -> bool:
        """Whether every one is named."""
        return len(self.jobs) == sum(self.counts.values())


@dataclass(frozen=True, slots=True)
class JobDetail:
    """A job in full. Times are epoch milliseconds, `delay` milliseconds."""

    job: Job
    options: Any
    progress: Any
    priority: int
    delay: int
    stalled_count: int
    worker: str | None
    parent: JobKey | None
    children: Children | None
    log_lines: tuple[str, ...]
    log_total: int


async def read_job(
    redis: RedisReader,
    queue: Queue,
    job_id: str,
    *,
    first_log: int,
    logs: int,
    prefixes: Sequence[str],
    limits: Limits,
) -> JobDetail | None:
    """The job, with `logs` of its log lines from index `first_log` on; None where it is gone.

    `prefixes` tell where the queues of its relatives may be. Raises RedisUnavailable.
    """
    raw_id = job_id.encode("utf-8", "replace")
    state, sizes, log_total, lines, *children = await redis.run(
        JOB,
        [queue.base],
        (
            raw_id,
            first_log,
            first_log + logs - 1,
            LONGEST_LOG_LINE,
            REACH,
            MOST_CHILDREN,
            *MORE_UNBOUNDED,
        ),
    )
    [large] = too_large([sizes], MORE_UNBOUNDED, limits)
    wanted = [field for field in (*FIELDS, *MORE_FIELDS) if field not in large]
    [values] = readable(await redis.pipeline([("HMGET", queue.job_key(raw_id), *wanted)]))
    if not isinstance(values, list) or all(value is None for value in values):
        return None
    fields = {**dict(zip(wanted, values, strict=True)), **large}
    parent = fields["parentKey"]
    kept_in = State(text(state)) if state else None
    return JobDetail(
        job=job_of(raw_id, kept_in, [fields[field] for field in FIELDS]),
        options=_options(parse_json(fields["opts"])),
        progress=parse_json(fields["progress"]),
        priority=integer(fields["priority"]) or 0,
        delay=integer(fields["delay"]) or 0,
        stalled_count=integer(fields["stc"]) or 0,
        worker=text(fields["pb"]) if fields["pb"] else None,
        parent=JobKey.parsed(text(parent), prefixes) if parent else None,
        children=_children(children, prefixes),
        log_lines=tuple(map(text, lines)),
        log_total=log_total,
    )


def _options(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    return {OPTIONS.get(name, name): value for name, value in given.items()}


def _children(
    kinds: Sequence[tuple[int, Sequence[bytes]]], prefixes: Sequence[str]
) -> Children | None:
    # BullMQ keeps those that failed and do not matter (ignoreDependencyOnFailure) in `:failed`.
    named = dict(zip(("processed", "unprocessed", "failed", "ignored"), kinds, strict=True))
    counts = {kind: number for kind, (number, _) in named.items()}
    if not any(counts.values()):
        return None
    jobs = [
        (JobKey.parsed(text(key), prefixes), kind)
        for kind, (_, keys) in named.items()
        for key in keys
    ]
    return Children(counts, tuple(jobs))

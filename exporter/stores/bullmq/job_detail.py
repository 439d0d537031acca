"""One job with all that BullMQ keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from redis.crc import key_slot

from exporter.concurrency.batches import batched
from exporter.queues.job_detail import Child, Children, ChildState, JobDetail, decoded_options
from exporter.queues.jobs import UNBOUNDED, ReadLimits, too_large
from exporter.queues.json_values import parse_json
from exporter.queues.queue import JobKey, Queue, State
from exporter.queues.text import text
from exporter.stores.bullmq.jobs import FIELDS, integer, job_of
from exporter.stores.bullmq.scripts import load_script
from exporter.stores.redis.client import RedisReader, RedisRefused, readable

JOB = load_script("job.lua")
CHILDREN = load_script("children.lua")

# Further fields of a job's hash: options, progress, priority, delay, how often it stalled (by
# BullMQ's name and by Bull's), which worker has it, and the key of its parent.
MORE_FIELDS = ("opts", "progress", "priority", "delay", "stc", "stalledCounter", "pb", "parentKey")
MORE_UNBOUNDED = (*UNBOUNDED, "opts", "progress", "name", "pb", "parentKey")
MAX_LOG_LINE_BYTES = 10_000  # bytes
# How far from either end of each list a job is searched for: in three long lists that blocks Redis
# 7.0 for 0.5 ms.
REACH = 10_000
MAX_CHILDREN = 100  # of each kind, by name
# How many children one script call looks up, how far from either end of each list it searches, and
# the maximum length of a reason (bytes): a call blocks Redis 7.0 for less than 1 ms.
CHILD_BATCH_SIZE = 10
CHILD_REACH = 1000
MAX_REASON_BYTES = 10_000


async def read_job(
    redis: RedisReader,
    queue: Queue,
    raw_id: bytes,
    *,
    first_log: int,
    logs: int,
    prefixes: Sequence[str],
    queues: Mapping[str, Queue],
    limits: ReadLimits,
) -> JobDetail | None:
    """The job, with `logs` of its log lines from index `first_log` on; None if it is gone.

    `prefixes` and `queues` say where its relatives may be (see `JobKey.parsed`). Raises
    RedisUnavailable.
    """
    state, sizes, log_total, lines, *children = await redis.run(
        JOB,
        [queue.base],
        (
            raw_id,
            first_log,
            first_log + logs - 1,
            MAX_LOG_LINE_BYTES,
            REACH,
            MAX_CHILDREN,
            *MORE_UNBOUNDED,
        ),
    )
    if type(log_total) is not int:
        raise ValueError("no number of log lines")
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
        options=decoded_options(parse_json(fields["opts"])),
        progress=parse_json(fields["progress"]),
        priority=integer(fields["priority"]) or 0,
        delay=integer(fields["delay"]) or 0,
        stalled_count=integer(fields["stc"]) or integer(fields["stalledCounter"]) or 0,
        worker=text(fields["pb"]) if fields["pb"] else None,
        parent=JobKey.parsed(parent, prefixes, queues) if parent else None,
        children=await _children(redis, children, prefixes, queues),
        log_lines=tuple(map(text, lines)),
        log_total=log_total,
    )


async def _children(
    redis: RedisReader,
    kinds: Sequence[tuple[int, Sequence[bytes]]],
    prefixes: Sequence[str],
    queues: Mapping[str, Queue],
) -> Children | None:
    # BullMQ keeps failed children that their parent ignores (ignoreDependencyOnFailure) in
    # `:failed`.
    named = dict(zip(("processed", "unprocessed", "failed", "ignored"), kinds, strict=True))
    counts = {kind: number for kind, (number, _) in named.items()}
    if not sum(counts.values()):
        return None
    children = [
        Child(JobKey.parsed(key, prefixes, queues), kind)
        for kind, (_, keys) in named.items()
        for key in keys
    ]
    states = await _read_states(
        redis, [child.key for child in children if child.outcome != "processed"], queues
    )
    return Children(counts, tuple(child._replace(now=states.get(child.key)) for child in children))


async def _read_states(
    redis: RedisReader, keys: Sequence[JobKey], queues: Mapping[str, Queue]
) -> dict[JobKey, ChildState]:
    """The current states of these jobs, except those whose queues cannot be read.

    BullMQ leaves a failed child in the parent's `:dependencies` unless an option says otherwise:
    the parent then waits until the child is retried by hand. Raises RedisUnavailable.
    """
    by_queue: dict[Queue, list[JobKey]] = {}
    for key in keys:
        # Only `queues` has names that are not UTF-8.
        known = queues.get(f"{key.prefix}:{key.queue}")
        queue = known or Queue.named(key.prefix, key.queue)
        by_queue.setdefault(queue, []).append(key)
    states: dict[JobKey, ChildState] = {}
    for queue, children in by_queue.items():
        if redis.slot is not None and key_slot(queue.base) != redis.slot:
            continue
        for batch in batched(children, CHILD_BATCH_SIZE):
            ids = [child.raw_id for child in batch]
            try:
                rows = await redis.run(
                    CHILDREN, [queue.base], (CHILD_REACH, MAX_REASON_BYTES, *ids)
                )
            except RedisRefused:
                break
            for child, row in zip(batch, rows, strict=True):
                if (state := _child_state(*row)) is not None:
                    states[child] = state
    return states


def _child_state(exists: Any, state: bytes | None, reason: Any) -> ChildState | None:
    if isinstance(exists, Exception) or isinstance(reason, Exception):
        return None
    return ChildState(
        State(text(state)) if state else None,
        not exists,
        text(reason) if reason else None,
    )

"""Remarks for the log and for --check: what is not watched or not read, why, and what to set."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from exporter.queues.queue import MAX_BASE_BYTES, Queue
from exporter.queues.remark import MAX_NAMES, Remark, listed, missing_names
from exporter.queues.text import text
from exporter.settings import Watched
from exporter.stores.base import Findings
from exporter.stores.redis.client import RedisReader, RedisUnavailable


def remarks_on(
    settings: Watched, findings: Findings, *, named: Iterable[Queue], patient: bool
) -> list[Remark]:
    """Remarks on what a search of all keys found in addition to the queues to watch, or did not
    find.

    `named` are the queues that are watched whether they exist or not. With `patient` it is early:
    there may be no queue because the application has not started yet.
    """
    remarks = []
    others, bull = findings.other_prefixes or {}, findings.bull or ()
    nothing = not findings.queues and not findings.excluded
    urgent = logging.WARNING if nothing else logging.INFO
    if nothing:
        early = patient and not others and not bull
        remarks.append(
            Remark(
                logging.INFO if early else logging.WARNING,
                "no BullMQ queue found",
                f"{_under(settings)} in database {settings.redis.db} of Redis at "
                f"{settings.redis.address}; see {settings.names_of('prefix')} and "
                f"{settings.redis.names_of('db')}",
            )
        )
    if others:
        detail = (
            f"{sum(others.values())}, by prefix: {_counted(others)}; see "
            f"{settings.names_of('prefix')}"
        )
        remarks.append(Remark(urgent, "queues of other prefixes are not watched", detail))
    if bull:
        detail = f"{listed(bull)}; see {settings.names_of('bull')}"
        remarks.append(Remark(urgent, "queues of Bull 3 or 4 are not watched", detail))
    if findings.mixed:
        detail = f"{listed(findings.mixed)}; reported as BullMQ's: give one of them another prefix"
        remarks.append(Remark(logging.WARNING, "queues are used by Bull and by BullMQ", detail))
    if findings.too_long:
        detail = f"{findings.too_long}, of more than {MAX_BASE_BYTES} bytes"
        remarks.append(Remark(urgent, "queues with very long names are not watched", detail))
    if not nothing and (names := missing_names(named, findings.queues)):
        detail = f"{names}; see {settings.names_of('queues')}"
        remarks.append(Remark(logging.WARNING, "named queues are not in Redis (yet)", detail))
    return remarks


IN_A_CLUSTER = Remark(
    logging.INFO,
    "workers and heartbeats are not read in a cluster",
    "bullmq_queue_workers and bullmq_worker_heartbeat_timestamp_seconds are absent; BullMQNoWorker "
    "and BullMQWorkerHeartbeatGone cannot fire",
)


async def other_databases(redis: RedisReader, settings: Watched) -> Remark | None:
    """Which other databases hold keys, if the user may ask; that of the README may not."""
    try:
        answer = await redis.command("INFO", "keyspace")
    except RedisUnavailable:
        return None
    lines = text(answer).splitlines() if isinstance(answer, bytes) else []
    # `db0:keys=12,expires=0,…`
    databases = {
        name.removeprefix("db"): values.partition("keys=")[2].partition(",")[0]
        for name, _, values in (line.partition(":") for line in lines)
        if name.startswith("db")
    }
    databases.pop(str(settings.redis.db), None)
    if not databases:
        return None
    held = listed([f"{name} ({keys} keys)" for name, keys in databases.items()])
    detail = f"{held}; see {settings.redis.names_of('db')}"
    return Remark(logging.INFO, "other databases hold keys", detail)


def _under(settings: Watched) -> str:
    several = "prefixes" if len(settings.prefix) > 1 else "prefix"
    return f"under the {several} {', '.join(settings.prefix[:MAX_NAMES])}"


def _counted(numbers: Mapping[str, int]) -> str:
    ordered = sorted(numbers.items(), key=lambda item: (-item[1], item[0]))
    return listed([f"{name} ({number})" for name, number in ordered])

"""Reads facts about jobs that their events do not contain, from the rows of the jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from exporter.concurrency.batches import batched
from exporter.queues.job_facts import NO_JOB, JobFacts
from exporter.queues.queue import Queue
from exporter.stores.postgres.client import PostgresReader, raw_text, sendable
from exporter.stores.postgres.statements import load_statement

FACTS = load_statement("job_facts.sql")

# How many jobs one read asks for, and how many characters of a text it takes.
BATCH_SIZE = 1000
MAX_LENGTH = 65_536


async def ask(
    reader: PostgresReader,
    queue: Queue,
    job_ids: Iterable[bytes],
    *,
    in_detail: Collection[bytes] = (),  # noqa: ARG001 - a row has all facts of one moment
    with_reason: Collection[bytes] = (),
) -> dict[bytes, JobFacts]:
    """Returns the facts of each job, with the last failure reason of those in `with_reason`.

    Raises PostgresUnavailable.
    """
    facts: dict[bytes, JobFacts] = {}
    for batch in batched(job_ids, BATCH_SIZE):
        ids = {text: job_id for job_id in batch if (text := sendable(job_id)) is not None}
        rows = await reader.read(
            FACTS,
            queue=sendable(queue.raw_name),
            ids=[*ids],
            length=MAX_LENGTH,
            with_reason=[text for text, job_id in ids.items() if job_id in with_reason],
        )
        facts |= dict.fromkeys(batch, NO_JOB)
        for job_id, name, made, started, processed, finished, locked, failed, most, reason in rows:
            facts[ids[job_id]] = JobFacts(
                name=raw_text(name),
                atm=_number(made),
                attempts_made=None,
                ats=_number(started),
                processed_on=_number(processed),
                finished_on=_number(finished),
                locked=locked,
                has_failed_reason=failed,
                opts=b'{"attempts": %d}' % most,
                failed_reason=raw_text(reason) if reason else None,
            )
    return facts


def _number(value: int | None) -> bytes | None:
    return None if value is None else b"%d" % value

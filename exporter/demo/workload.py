"""Queues, producers and workers that act like Open Archiver's."""

# ruff: noqa: S311 - chance, not secrets

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from bullmq import FlowProducer, Job, Queue, Worker

from exporter.demo.services import add_to_index, fetch_from_gmail, fetch_from_imap, fetch_from_pst
from exporter.demo.store import DemoStore

# As in Open Archiver (jobs/queues.ts), except for a shorter backoff: five attempts end within
# seconds.
JOB_OPTIONS = {
    "attempts": 5,
    "backoff": {"type": "exponential", "delay": 200},
    "removeOnComplete": {"count": 1000},
    "removeOnFail": {"count": 5000},
}
CONCURRENCY = {"ingestion": 5, "indexing": 3, "compliance-lifecycle": 1}
SCHEDULERS = (
    ("ingestion", "schedule-continuous-sync", {"every": 60_000}),
    ("indexing", "reconcile-index", {"pattern": "*/2 * * * *"}),
    ("compliance-lifecycle", "enforce-retention", {"pattern": "*/10 * * * *"}),
)
# Long enough for the alerts on failed jobs, in seconds.
OUTAGE_FIRST, OUTAGE_EVERY, OUTAGE_LASTS = 20.0, 300.0, 120.0
HEARTBEAT_EVERY = 30  # seconds, as in Open Archiver's workers/supervision.ts


@dataclass(frozen=True)
class Source:
    """Where the mail of some users comes from."""

    fetch: Callable[[str, bool], None]
    mailboxes: tuple[str, ...]


SOURCES = {
    "3f0c2a9e-5d0b-4a57-9f1e-6f5f0f6c1b21": Source(
        fetch_from_imap, ("anna@corp.example", "bo@corp.example", "cleo@corp.example")
    ),
    "9b7de1c4-0a43-4c0e-8a8e-2c3b9d7f4e10": Source(
        fetch_from_gmail, ("dana@shop.example", "eli@shop.example", "fay@shop.example")
    ),
    "c4a81f6b-77d2-4b9a-b1a5-d0e94c2f8a37": Source(
        fetch_from_imap, ("legal@corp.example", "hr@corp.example")
    ),
    "e51d09a2-1c6f-4f3d-95c8-7ab0463e2d9c": Source(fetch_from_pst, ("archive@old.example",)),
}


@dataclass(frozen=True)
class Archive:
    """The queues of an Open Archiver, and the state of its services."""

    store: DemoStore
    queues: dict[str, Queue]
    flows: FlowProducer
    began: float = field(default_factory=time.monotonic)

    def breaks(self, job: Job, outage_share: float) -> bool:
        """Whether a service that this job needs is broken: for 1% of all jobs, during an outage for
        more.

        The result is the same in each attempt, so that the job ends in `failed`.
        """
        since = time.monotonic() - self.began - OUTAGE_FIRST
        outage = since >= 0 and since % OUTAGE_EVERY < OUTAGE_LASTS
        return random.Random(job.id).random() < (outage_share if outage else 0.01)


@asynccontextmanager
async def open_archive(store: DemoStore) -> AsyncIterator[Archive]:
    """Create the queues with their schedulers, without workers."""
    async with AsyncExitStack() as stack:
        queues = {}
        for name in CONCURRENCY:
            queue = Queue(name, {**store.options, "defaultJobOptions": JOB_OPTIONS})
            stack.push_async_callback(queue.close)
            queues[name] = queue
            await store.write_meta(queue)
        for name, scheduler, repeat in SCHEDULERS:
            await queues[name].upsertJobScheduler(scheduler, repeat, opts=JOB_OPTIONS)
        flows = FlowProducer(opts=store.options)
        stack.push_async_callback(flows.close)
        yield Archive(store, queues, flows)


async def work(archive: Archive) -> None:
    """Add jobs and process them, until cancelled."""

    async def process(job: Job, _token: str) -> Any:
        await asyncio.sleep(random.uniform(0.02, 0.8))
        return await PROCESSORS[job.name](archive, job)

    options = {**archive.store.options, "autorun": False}
    workers = [
        Worker(name, process, {**options, "concurrency": concurrency})
        for name, concurrency in CONCURRENCY.items()
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            for worker in workers:
                tasks.create_task(worker.run())
            tasks.create_task(_heartbeat(archive))
            tasks.create_task(_ask_for_syncs(archive))
    finally:
        for worker in workers:
            await worker.close(force=True)


async def _heartbeat(archive: Archive) -> None:
    while True:
        for queue in archive.queues.values():
            await archive.store.write_heartbeat(queue)
        await asyncio.sleep(HEARTBEAT_EVERY)


async def _ask_for_syncs(archive: Archive) -> None:
    """Act as the users, who import and press `Sync now`."""
    while True:
        await asyncio.sleep(random.uniform(1, 3))
        source_id = random.choice(list(SOURCES))
        if random.random() < 0.2:
            data = {"ingestionSourceId": source_id}
            await archive.queues["ingestion"].add("initial-import", data)
        else:
            await _add_continuous_sync(archive, source_id)


async def _add_continuous_sync(archive: Archive, source_id: str) -> None:
    # The id keeps a source from being synced twice at once; at the end it must be free again.
    once = {
        "jobId": f"continuous-sync:{source_id}",
        "removeOnComplete": True,
        "removeOnFail": True,
    }
    data = {"ingestionSourceId": source_id}
    await archive.queues["ingestion"].add("continuous-sync", data, once)


async def _schedule_continuous_sync(archive: Archive, _: Job) -> None:
    for source_id in SOURCES:
        await _add_continuous_sync(archive, source_id)


async def _start_sync(archive: Archive, job: Job) -> None:
    """One job for each mailbox, and one that waits for them all."""
    source_id = job.data["ingestionSourceId"]
    data = {"ingestionSourceId": source_id, "sessionId": str(uuid4())}
    mailboxes = [
        {
            "name": "process-mailbox",
            "queueName": "ingestion",
            "data": {**data, "userEmail": mailbox},
            # Otherwise a failed mailbox would leave its parent waiting forever.
            "opts": {"ignoreDependencyOnFailure": True},
        }
        for mailbox in SOURCES[source_id].mailboxes
    ]
    cycle = {
        "name": "sync-cycle-finished",
        "queueName": "ingestion",
        "data": {**data, "isInitialImport": job.name == "initial-import"},
        "children": mailboxes,
    }
    defaults = {"ingestion": {"defaultJobOptions": JOB_OPTIONS}}
    await archive.flows.add(cycle, {"queuesOptions": defaults})


async def _process_mailbox(archive: Archive, job: Job) -> dict[str, int]:
    source = SOURCES[job.data["ingestionSourceId"]]
    source.fetch(job.data["userEmail"], archive.breaks(job, outage_share=0.8))
    batches = random.randint(0, 2)
    for _ in range(batches):
        data = {**job.data, "emails": [str(uuid4()) for _ in range(random.randint(1, 5))]}
        await archive.queues["indexing"].add("index-email-batch", data)
    return {"batches": batches}


async def _finish_sync_cycle(_: Archive, job: Job) -> dict[str, int]:
    return {"mailboxes": len(await job.getChildrenValues())}


async def _index_email_batch(archive: Archive, job: Job) -> dict[str, int]:
    add_to_index(archive.breaks(job, outage_share=0.4))
    return {"indexed": len(job.data["emails"])}


async def _find_nothing_to_do(_: Archive, __: Job) -> None: ...


PROCESSORS: dict[str, Callable[[Archive, Job], Awaitable[Any]]] = {
    "schedule-continuous-sync": _schedule_continuous_sync,
    "initial-import": _start_sync,
    "continuous-sync": _start_sync,
    "process-mailbox": _process_mailbox,
    "sync-cycle-finished": _finish_sync_cycle,
    "index-email-batch": _index_email_batch,
    "reconcile-index": _find_nothing_to_do,
    "enforce-retention": _find_nothing_to_do,
}

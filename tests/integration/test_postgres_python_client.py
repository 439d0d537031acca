"""Queues in PostgreSQL that are worked on by BullMQ's Python client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from bullmq import FlowProducer, Job, Queue, Worker

from tests.support.bullmq import Work
from tests.support.exporters import Exporter, StartExporter
from tests.support.postgres import EACH_DATABASE, Database
from tests.support.waiting import eventually

StartWork = Callable[..., Work]

STATES = (
    *("waiting", "active", "completed", "failed", "delayed", "prioritized", "waiting-children"),
    "paused",
)


async def until(check: Callable[[], Any]) -> Any:
    """As `eventually`, while workers go on."""
    return await asyncio.to_thread(eventually, check)


@asynccontextmanager
async def worker(
    database: Database, queue: str, process: Any, **options: Any
) -> AsyncIterator[Worker]:
    it = Worker(queue, process, {**where(database), "autorun": False, **options})
    running = asyncio.create_task(it.run())
    try:
        yield it
    finally:
        await it.close(force=True)
        running.cancel()
        await asyncio.wait({running})


def where(database: Database) -> dict[str, Any]:
    return {"connection": database.url, "backend": "postgres"}


@pytest.fixture
async def queue(database: Database) -> AsyncIterator[Queue]:
    it = Queue("mail", where(database))
    yield it
    await it.close()


async def nothing(_job: Job, _token: str) -> None: ...


def connections(database: Database, name: str) -> int:
    [(number,)] = database.execute(
        f"SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        f"AND application_name = '{name}'"
    )
    return int(number)


async def test_a_worker_counts_once_though_it_names_two_connections(
    database: Database, queue: Queue, start_work: StartWork, start_exporter: StartExporter
) -> None:
    await queue.pause()
    other = Queue("sync", where(database))
    await other.pause()
    await other.close()
    exporter = start_exporter("", "--postgres-url", database.url, EXPORTER_WORKERS_INTERVAL="0.2")

    def workers(name: str) -> float | None:
        number: float | None = exporter.metrics.value("bullmq_queue_workers", queue=name)
        return number

    await until(lambda: workers("mail") == 0)
    async with worker(database, "mail", nothing):
        # It has waited for a job: that connection is named, too.
        await until(lambda: connections(database, "bullmq:mail") == 2)
        await until(lambda: workers("mail") == 1)
        async with worker(database, "mail", nothing, name="second"):
            await until(lambda: connections(database, "bullmq:mail:w:second") == 2)
            await until(lambda: workers("mail") == 2)
            start_work("bullmq6", database.url).work("mail", {})  # Node's
            await until(lambda: workers("mail") == 3)
        await until(lambda: workers("mail") == 2)
    await until(lambda: workers("mail") == 1)
    assert workers("sync") == 0


@EACH_DATABASE
async def test_counts_and_jobs_are_as_the_client_says(
    database: Database, queue: Queue, start_exporter: StartExporter
) -> None:
    flows = FlowProducer(opts=where(database))

    async def process(job: Job, _token: str) -> Any:
        if job.name == "fails":
            raise ConnectionResetError(f"mailbox {job.data['i']} is gone")
        if job.name == "hangs":
            await asyncio.Event().wait()
        return {"sent": job.data["i"]}

    async with AsyncExitStack() as stack:
        stack.push_async_callback(flows.close)
        for i in range(4):
            await queue.add("send", {"i": i})
        for i in range(3):
            options = {"attempts": 2, "backoff": {"type": "fixed", "delay": 10}}
            await queue.add("fails", {"i": i}, options)
        await stack.enter_async_context(worker(database, "mail", process))

        finished = "SELECT count(*) FROM job WHERE state IN ('completed', 'failed')"
        await until(lambda: database.execute(finished) == [(7,)])
        # The worker has one job at a time: all others wait from here on.
        await queue.add("hangs", {})
        await until(lambda: database.execute("SELECT id FROM job WHERE state = 'active'"))
        child = {"name": "send", "queueName": "mail", "data": {"i": 9}}
        await flows.add({"name": "all", "queueName": "mail", "data": {}, "children": [child]})
        for i in range(5):
            await queue.add("later", {"i": i}, {"delay": 3_600_000})
        await queue.add("urgent", {"i": 0}, {"priority": 3})
        exporter = start_exporter("", "--postgres-url", database.url)
        await until(lambda: exporter.metrics.value("bullmq_up") == 1)
        expected = await queue.getJobCounts(*STATES)
        assert expected == {
            "waiting": 1,
            "active": 1,
            "completed": 4,
            "failed": 3,
            "delayed": 5,
            "prioritized": 1,
            "waiting-children": 1,
            "paused": 0,
        }
        samples = await until(lambda: exporter.metrics.samples("bullmq_job_count", queue="mail"))
        assert {state: number for (state,), number in samples.items()} == expected

        for state in STATES:
            page = await asyncio.to_thread(_page, exporter, state)
            jobs = [await Job.fromId(queue, each["id"]) for each in page]
            assert len(jobs) == expected[state]
            for ours, job in zip(page, jobs, strict=True):
                assert ours["name"] == job.name
                assert ours["data"] == job.data
                assert ours["timestamp"] == job.timestamp
                assert ours["attemptsMade"] == job.attemptsMade
                assert ours["failedReason"] == job.failedReason
                assert ours["stacktrace"] == job.stacktrace
                assert ours["returnValue"] == job.returnvalue
                assert (ours["processedOn"] or 0) == job.processedOn
                assert (ours["finishedOn"] or 0) == job.finishedOn
        failed = await asyncio.to_thread(_page, exporter, "failed")
        assert {job["failedReason"] for job in failed} == {f"mailbox {i} is gone" for i in range(3)}
        assert all("ConnectionResetError" in job["stacktrace"][-1] for job in failed)
        [parent] = await asyncio.to_thread(_page, exporter, "waiting-children")
        detail = await asyncio.to_thread(
            exporter.api.get, f"/v1/jobs/queues/mail/jobs/{parent['id']}"
        )
        [child] = detail.json["job"]["children"]["jobs"]
        assert (child["queue"], child["state"]) == ("mail", "waiting")

        await queue.pause()
        paused = await queue.getJobCounts(*STATES)
        assert paused == expected | {"waiting": 0, "paused": 1}

        def as_paused() -> bool:
            samples = exporter.metrics.samples("bullmq_job_count", queue="mail")
            return {state: number for (state,), number in samples.items()} == paused

        await until(as_paused)
        [job] = await asyncio.to_thread(_page, exporter, "paused")
        assert (job["name"], job["state"]) == ("send", "paused")


def _page(exporter: Exporter, state: str) -> list[dict[str, Any]]:
    answer = exporter.api.get(f"/v1/jobs/queues/mail?status={state}&limit=100")
    assert answer.status == 200, answer.text
    jobs: list[dict[str, Any]] = answer.json["jobs"]
    return jobs

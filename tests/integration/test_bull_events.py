"""Counters of Bull's queues are what its workers have done."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, Tallies
from tests.support.bull_following import asked, counted, followed_bull, total
from tests.support.bullmq import BULL, StartWork
from tests.support.counters import Truth
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", BULL)
BACKOFF = {"type": "fixed", "delay": 30}


def exhausted(truth: Truth) -> Truth:
    """With what the workers do not say: every job that failed has used up its attempts."""
    for names in truth.values():
        for counts in names.values():
            if "failed" in counts:
                counts["retries_exhausted"] = counts["failed"]
    return truth


@VERSIONS
@pytest.mark.parametrize("kept", [True, 10, False], ids=["removed", "10 kept", "all kept"])
async def test_counters_by_name_are_what_the_workers_have_done(
    any_server: Server, start_work: StartWork, version: str, kept: Any
) -> None:
    with any_server.client() as client:
        client.flushall()
    work = await asked(start_work, version, any_server.port)
    options = {"removeOnComplete": kept, "removeOnFail": kept}
    async with followed_bull(any_server.port, "jobs", "other") as followed:
        await asked(work.call, "jobs", "pause")
        await asked(work.add, "jobs", "initial-import", 40, options)
        await asked(work.add, "jobs", "fails", 5, options)
        await asked(work.add, "jobs", "fails", 5, {**options, "attempts": 3})
        await asked(work.add, "jobs", "fails-first", 5, {**options, "attempts": 2})
        await asked(
            work.add, "jobs", "fails-first", 5, {**options, "attempts": 3, "backoff": BACKOFF}
        )
        await asked(work.add, "jobs", "fails", 4, {**options, "attempts": 3, "backoff": BACKOFF})
        await asked(work.add, "jobs", "soon", 5, {**options, "delay": 50})
        await asked(work.add, "jobs", "urgent", 5, {**options, "priority": 2})
        await asked(work.add, "other", "initial-import", 3, options)
        # Their names are known before they are removed.
        await followed.until(lambda now: total(now, Count.ADDED) == 5 + 40 + 10 + 10 + 4 + 5 + 3)
        await asked(work.work, "jobs", {"concurrency": 3})
        await asked(work.work, "other")
        await asked(work.call, "jobs", "resume")
        truth = exhausted(await asked(work.settle))
        assert truth["jobs"]["fails"]["retried"] == 2 * 5 + 2 * 4
        tallies = await followed.until_counted(truth)
        for queue in tallies.queues.values():
            reasons = queue.reasons
            failed = sum(each.values[Count.FAILED] for each in queue.by_name.values())
            assert failed == (sum(each.total for each in reasons.failed.values()) if reasons else 0)


def values(tallies: Tallies, queue: str, name: str) -> dict[str, int]:
    return counted(tallies).get(queue, {}).get(name, {})


@VERSIONS
async def test_a_failed_job_that_is_retried_by_hand_is_no_new_job_and_no_retry(
    server: Server, start_work: StartWork, version: str
) -> None:
    work = await asked(start_work, version, server.port)
    async with followed_bull(server.port, "jobs") as followed:
        await asked(work.work, "jobs")
        await asked(work.add, "jobs", "fails", 4, {"attempts": 2})
        await asked(work.add, "jobs", "fails-first", 4, {"removeOnComplete": True})
        truth = exhausted(await asked(work.settle))
        await followed.until_counted(truth)
        for job_id in range(1, 9):
            await asked(work.retry, "jobs", str(job_id))
        truth = exhausted(await asked(work.settle))
        assert truth["jobs"] == {
            "fails": {"added": 4, "retried": 4, "failed": 8, "retries_exhausted": 8},
            "fails-first": {
                **{"added": 4, "failed": 4, "retries_exhausted": 4},
                "completed": 4,
            },
        }
        await followed.until_counted(truth)


async def test_failed_jobs_that_are_all_retried_at_once_publish_nothing_and_keep_their_names(
    server: Server, start_work: StartWork
) -> None:
    work = await asked(start_work, "bull4", server.port)
    async with followed_bull(server.port, "jobs") as followed:
        await asked(work.work, "jobs")
        await asked(work.add, "jobs", "fails-first", 20, {"removeOnComplete": True})
        await followed.until_counted(exhausted(await asked(work.settle)))
        await asked(work.call, "jobs", "retryJobs")
        tallies = await followed.until_counted(exhausted(await asked(work.settle)))
        # When they began to wait again is not known: no duration is made up.
        [of_queue] = tallies.queues.values()
        layout = tallies.layout
        waits = of_queue.by_name["fails-first"].values[
            layout.wait : layout.wait + len(layout.wait_bounds) + 1
        ]
        assert sum(waits) == 20


@VERSIONS
async def test_stalled_jobs_are_counted_and_the_reason_of_one_that_stalls_too_often(
    server: Server, start_work: StartWork, version: str
) -> None:
    first = await asked(start_work, version, server.port)
    async with followed_bull(server.port, "jobs") as followed:
        options = {"settings": {"lockDuration": 2000, "stalledInterval": 500}, "concurrency": 3}
        await asked(first.add, "jobs", "stalls", 3, {"removeOnComplete": True})
        await asked(first.work, "jobs", options)
        await followed.until(lambda now: total(now, Count.STALLED) == 3)
        await asked(first.work, "jobs", options)  # the other one hangs
        tallies = await followed.until(
            lambda now: values(now, "jobs", "stalls").get("completed") == 3
        )
        assert values(tallies, "jobs", "stalls") == {"added": 3, "stalled": 3, "completed": 3}
        # Its worker is killed twice: once more than Bull allows.
        await asked(first.add, "jobs", "sleeps-600000", 1)
        for stalled in range(2):
            await followed.until(
                lambda now, stalled=stalled: (
                    values(now, "jobs", "sleeps-600000").get("stalled", 0) == stalled
                    and server.client().llen("bull:jobs:active") == 1
                )
            )
            await asked(first.close)
            first = await asked(start_work, version, server.port)
            await asked(first.work, "jobs", options)
        tallies = await followed.until(
            lambda now: values(now, "jobs", "sleeps-600000").get("failed")
        )
        assert values(tallies, "jobs", "sleeps-600000") == {"added": 1, "stalled": 1, "failed": 1}
        [of_queue] = tallies.queues.values()
        assert of_queue.reasons is not None
        assert [each.text for each in of_queue.reasons.failed.values() if each.total] == [
            "job stalled more than allowable limit"
        ]


async def test_ids_that_are_used_again_are_new_jobs_duplicates_or_debounced(
    server: Server, start_work: StartWork
) -> None:
    work = await asked(start_work, "bull4", server.port)
    async with followed_bull(server.port, "jobs") as followed:

        async def add(name: str, **options: Any) -> None:
            await asked(work.call, "jobs", "add", name, {}, options)

        async def until(name: str, **counts: int) -> None:
            await followed.until(lambda now: values(now, "jobs", name) == counts, str(counts))

        for number in range(1, 4):
            await add("waits", jobId="w")
            await until("waits", added=number)
            await asked(work.call, "jobs", "removeJobs", "w")
            await add("is-delayed", jobId="d", delay=3_600_000)
            await until("is-delayed", added=number)
            await asked(work.call, "jobs", "removeJobs", "d")
            await add("is-numbered", jobId="77")
            await until("is-numbered", added=number)
            await asked(work.call, "jobs", "removeJobs", "77")
        await add("twice", jobId="t")
        await until("twice", added=1)
        await add("twice", jobId="t")
        tallies = await followed.until(
            lambda now: total(now, Count.DUPLICATED) == 1, "a duplicate is counted"
        )
        assert values(tallies, "jobs", "twice") == {"added": 1}
        await add("debounced", debounce={"id": "x", "ttl": 60_000})
        await until("debounced", added=1)
        await add("debounced", debounce={"id": "x", "ttl": 60_000})
        tallies = await followed.until(lambda now: total(now, Count.DEDUPLICATED) == 1)
        assert values(tallies, "jobs", "debounced") == {"added": 1}
        # Once it has failed and was removed, its id is that of another job.
        await asked(work.call, "jobs", "empty")
        await asked(work.work, "jobs")
        for number in range(1, 4):
            await asked(work.call, "jobs", "pause")
            await add("fails", jobId="f", removeOnFail=True)
            # Its name is known before it is removed.
            before = {"failed": number - 1, "retries_exhausted": number - 1} if number > 1 else {}
            await until("fails", added=number, **before)
            await asked(work.call, "jobs", "resume")
            await until("fails", added=number, failed=number, retries_exhausted=number)


async def test_delayed_jobs_count_when_they_are_added_and_once_however_often_they_are_announced(
    server: Server, start_work: StartWork
) -> None:
    work = await asked(start_work, "bull4", server.port)
    await asked(work.add, "jobs", "old", 5, {"delay": 600})
    async with followed_bull(server.port, "jobs") as followed:
        await asked(work.add, "jobs", "later", 300, {"delay": 3_600_000})
        await followed.until(lambda now: values(now, "jobs", "later") == {"added": 300})
        await asked(work.add, "jobs", "soon", 100, {"delay": 500})
        # Each worker announces again and again which job is due next.
        for _ in range(3):
            await asked(work.work, "jobs")
        tallies = await followed.until(
            lambda now: (
                values(now, "jobs", "soon").get("completed") == 100
                and values(now, "jobs", "old").get("completed") == 5
            )
        )
        assert counted(tallies)["jobs"] == {
            "soon": {"added": 100, "completed": 100},
            "later": {"added": 300},
            "old": {"completed": 5},
        }
        with server.client() as client:
            [due] = client.zrange("bull:jobs:delayed", 0, 0)
            assert due
        await asked(work.call, "jobs", "removeJobs", "*")


async def test_durations_are_those_of_each_attempt(server: Server, start_work: StartWork) -> None:
    work = await asked(start_work, "bull4", server.port)
    async with followed_bull(server.port, "jobs") as followed:
        await asked(work.add, "jobs", "sleeps-1000", 1, {"removeOnComplete": True})
        await followed.until(lambda now: total(now, Count.ADDED) == 1)
        await asyncio.sleep(0.3)
        await asked(work.work, "jobs")
        tallies = await followed.until(lambda now: total(now, Count.COMPLETED) == 1)
        [of_queue] = tallies.queues.values()
        layout, of_name = tallies.layout, of_queue.by_name["sleeps-1000"].values
        assert of_name[layout.wait + len(layout.wait_bounds) + 1] >= 300
        assert of_name[layout.process + len(layout.process_bounds) + 1] >= 500


async def test_messages_of_megabytes_count_and_are_not_held(
    server: Server, start_work: StartWork
) -> None:
    async with followed_bull(server.port, "jobs") as followed:
        with server.client() as client:
            client.hset("bull:jobs:1", mapping={"name": "import", "timestamp": "1", "opts": "{}"})
            client.publish("bull:jobs:waiting@x", "1")
            client.publish("bull:jobs:active@x", "1")
            client.publish("bull:jobs:progress", "x" * (8 << 20))
            client.publish("bull:jobs:completed", '{"jobId":"1","val":"%s"}' % ("x" * (8 << 20)))
            client.publish("bull:" + "jobs" * 100_000 + ":completed", '{"jobId":"1"}')
            client.publish("bull:jobs:completed", "nothing of Bull")
            client.publish("bull:jobs:waiting@x", "")
        tallies = await followed.until(lambda now: total(now, Count.COMPLETED) == 1)
        assert counted(tallies) == {"jobs": {"import": {"added": 1, "completed": 1}}}


async def test_prefixes_of_which_one_begins_another_count_once(
    server: Server, start_work: StartWork
) -> None:
    async with followed_bull(server.port, "jobs") as followed:
        queues = followed.queues
        followed.queues = (*queues, Queue.named("bull:inner", "jobs"), Queue.named("b[u]*", "jobs"))
        await followed.until(lambda now: len(now.queues) == 3)
        works = [
            await asked(start_work, "bull4", server.port, queue.prefix) for queue in followed.queues
        ]
        for number, work in enumerate(works):
            await asked(work.add, "jobs", "sleeps-10", 3 + number)
            await asked(work.work, "jobs")
        tallies = await followed.until(lambda now: total(now, Count.COMPLETED) == 3 + 4 + 5)
        assert [
            each.by_name["sleeps-10"].values[Count.ADDED] for each in tallies.queues.values()
        ] == [3, 4, 5]


async def test_thousands_of_jobs_at_once_are_counted_each_with_its_name(
    server: Server, start_work: StartWork
) -> None:
    works = [await asked(start_work, "bull4", server.port) for _ in range(2)]
    async with followed_bull(server.port, "a", "b") as followed:
        before = (await followed.until(lambda _: True)).unheard
        for work, queue in zip(works, "ab", strict=True):
            await asked(work.call, queue, "pause")
            await asked(work.add, queue, "import", 3000, {"removeOnComplete": True})
            await asked(work.work, queue, {"concurrency": 20})
        await followed.until(lambda now: total(now, Count.ADDED) == 6000)
        for work, queue in zip(works, "ab", strict=True):
            await asked(work.call, queue, "resume")
        tallies = await followed.until(lambda now: total(now, Count.COMPLETED) == 6000)
        assert counted(tallies) == {
            queue: {"import": {"added": 3000, "completed": 3000}} for queue in "ab"
        }
        assert tallies.unheard == before
        assert tallies.tracked_jobs == 0


async def test_jobs_that_were_active_before_have_their_names_and_durations(
    server: Server, start_work: StartWork
) -> None:
    work = await asked(start_work, "bull4", server.port)
    await asked(work.work, "jobs", {"concurrency": 5})
    await asked(work.add, "jobs", "sleeps-6000", 5, {"removeOnComplete": True})
    with server.client() as client:
        await asked(eventually, lambda: client.llen("bull:jobs:active") == 5)
    async with followed_bull(server.port, "jobs") as followed:
        tallies = await followed.until(lambda now: total(now, Count.COMPLETED) == 5)
        assert counted(tallies) == {"jobs": {"sleeps-6000": {"completed": 5}}}
        [of_queue] = tallies.queues.values()
        layout = tallies.layout
        of_name = of_queue.by_name["sleeps-6000"].values
        assert of_name[layout.process + len(layout.process_bounds) + 1] >= 5 * 5900

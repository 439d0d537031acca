"""Following streams that are written by hand: every millisecond, and every accident."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest

from exporter.queues.event_log import Cursor, Entry, Gap, StreamInfo, UncertainGap
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Count, Layout, Tallies
from exporter.queues.tracked_jobs import JobBudget
from exporter.settings import EventsSettings, RedisSettings
from exporter.state import state_format
from exporter.state.state_format import QUEUES
from exporter.stores.bullmq.events import backfill, check_rounds, read_size
from exporter.stores.bullmq.events import follower as following
from exporter.stores.bullmq.events.follower import Follower
from exporter.stores.bullmq.keys import events_key
from exporter.stores.redis.client import RedisReader
from tests.support.following import (
    KEY,
    QUEUE,
    START,
    count,
    durations,
    followed,
    quick,
    tally,
    write,
)
from tests.support.proxy import Proxy
from tests.support.servers import Server, running

__all__ = ["quick"]  # its checks follow one another without a rest


def bucket(tallies: Tallies, which: str) -> int:
    """The upper bound of the one bucket that holds something; the sum where it is above all."""
    bounds = getattr(tallies.layout, f"{which}_bounds")
    start = getattr(tallies.layout, which)
    [place] = [i for i in range(len(bounds) + 1) if tally(tallies).values[start + i]]
    return int(bounds[place]) if place < len(bounds) else -1


@pytest.mark.parametrize(
    ("waited", "took", "wait_bucket", "process_bucket"),
    [
        (0, 0, 50, 5),
        (50, 5, 50, 5),
        (51, 6, 100, 20),
        (14_400_000, 14_400_000, 14_400_000, 14_400_000),
        (14_400_001, 90_000_000, -1, -1),
    ],
)
async def test_durations_are_exact_to_the_millisecond(
    server: Server, waited: int, took: int, wait_bucket: int, process_bucket: int
) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            write(client, 0, "added", name="import")
            write(client, 0, "waiting")
            write(client, waited, "active", prev="waiting")
            write(client, waited + took, "completed", returnvalue="null", prev="active")
            tallies = await until(lambda now: count(now, Count.COMPLETED))
    assert durations(tallies, "wait") == (1, waited)
    assert durations(tallies, "process") == (1, took)
    assert bucket(tallies, "wait") == wait_bucket
    assert bucket(tallies, "process") == process_bucket


async def test_a_delay_and_a_backoff_are_no_wait_and_the_last_attempt_is_what_counts(
    server: Server,
) -> None:
    with server.client() as client:
        client.hset("bull:ingestion:1", mapping={"name": "import", "atm": 2, "finishedOn": 1})
        async with followed(server.port) as until:
            write(client, 0, "added", name="import")
            write(client, 0, "delayed", delay="1000")
            write(client, 1000, "waiting", prev="delayed")
            write(client, 1030, "active", prev="waiting")
            write(client, 1530, "delayed", delay="9999")  # failed, and waits for its backoff
            write(client, 9999, "waiting", prev="delayed")
            write(client, 10_006, "active", prev="waiting")
            write(client, 10_017, "failed", failedReason="no", prev="active")
            write(client, 10_017, "retries-exhausted", attemptsMade="2")
            tallies = await until(lambda now: count(now, Count.RETRIES_EXHAUSTED))
    assert tally(tallies).values[: len(Count)] == (1, 0, 1, 1, 0, 1, 0, 0)
    assert durations(tallies, "wait") == (2, 30 + 7)
    assert durations(tallies, "process") == (1, 11)


@pytest.mark.parametrize("put_back", ["waiting", "delayed"])
async def test_a_failed_attempt_that_the_hash_shows_before_its_event_counts_once(
    server: Server, put_back: str
) -> None:
    """5.x: a job that was put back (RateLimitError, DelayedError) fails, and is tried again, before
    its hash is read because of the former.
    """
    with server.client() as client:
        async with followed(server.port) as until:
            client.hset("bull:ingestion:1", mapping={"name": "import", "ats": 2, "atm": 1})
            write(client, 0, "added", name="import")
            write(client, 0, "waiting")
            write(client, 1, "active", prev="waiting")
            write(client, 2, put_back, prev="active", delay="1")
            if put_back == "delayed":
                write(client, 3, "waiting", prev="delayed")
            write(client, 3, "active", prev="waiting")
            # Later a read finds what follows; meanwhile it fails and is tried again twice more.
            await until(lambda now: now.events_read >= 5)
            client.hset("bull:ingestion:1", mapping={"ats": 4, "atm": 3})
            for at in (4, 5):
                write(client, at, "waiting", prev="failed")
                write(client, at, "active", prev="waiting")
            await until(lambda now: now.events_read >= 9)
            write(client, 6, "waiting", prev="failed")
            write(client, 6, "active", prev="waiting")
            write(client, 7, "completed", returnvalue="1", prev="active")
            tallies = await until(lambda now: count(now, Count.COMPLETED))
    assert count(tallies, Count.RETRIED) == 3


async def test_a_parent_waits_from_when_its_children_are_done(server: Server) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            write(client, 0, "added", name="import")
            write(client, 0, "waiting-children")
            write(client, 70_000, "waiting", prev="waiting-children")
            write(client, 70_004, "active", prev="waiting")
            write(client, 70_009, "waiting-children", prev="active")
            write(client, 99_000, "waiting", prev="waiting-children")
            write(client, 99_003, "active", prev="waiting")
            write(client, 99_005, "completed", returnvalue="1", prev="active")
            tallies = await until(lambda now: count(now, Count.COMPLETED))
    assert durations(tallies, "wait") == (2, 7)
    assert durations(tallies, "process") == (1, 2)


async def test_events_of_an_unknown_type_or_without_a_job_are_read_and_count_as_nothing(
    server: Server,
) -> None:
    """A later version of BullMQ may write others; nothing is missed because of them."""
    with server.client() as client:
        async with followed(server.port) as until:
            write(client, 0, "added", name="import")
            write(client, 1, "teleported", prev="active")
            client.xadd(KEY, {"event": "completed"}, id=f"{START + 2}-*")
            client.xadd(KEY, {"event": "failed", "queue": "q"}, id=f"{START + 3}-*")
            client.xadd(KEY, {"kind": "completed", "jobId": "1"}, id=f"{START + 4}-*")
            write(client, 5, "active", prev="waiting")
            write(client, 6, "completed", returnvalue="null", prev="active")
            tallies = await until(lambda now: count(now, Count.COMPLETED) == 1)
    assert tallies.queues[QUEUE].missed == 0
    assert count(tallies, Count.FAILED) == 0
    assert tallies.events_read == 7


@pytest.mark.parametrize("events", [("waiting",), ("waiting", "active"), ("delayed",), ()])
async def test_jobs_that_are_removed_cleaned_or_drained_leave_nothing_behind(
    server: Server, events: tuple[str, ...]
) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            for at, job_id in enumerate(("removed", "gone", "there")):
                client.hset(f"bull:ingestion:{job_id}", "name", "import")
                write(client, at, "added", job_id, name="import")
                for event in events:
                    write(client, at, event, job_id)
            await until(lambda now: now.tracked_jobs == 3)
            write(client, 9, "removed", "removed", prev="wait")
            client.delete("bull:ingestion:gone")  # Queue.drain() says nothing of it
            tallies = await until(lambda now: now.tracked_jobs == 1)
            client.delete("bull:ingestion:there")
            client.xadd(KEY, {"event": "cleaned", "count": "1"})
            tallies = await until(lambda now: now.tracked_jobs == 0)
    assert tally(tallies).values[: len(Count)] == (3, 0, 0, 0, 0, 0, 0, 0)
    assert durations(tallies, "wait")[0] == (3 if "active" in events else 0)
    assert durations(tallies, "process")[0] == 0


async def test_events_that_are_not_bullmqs_are_passed_over(server: Server) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            for fields in (
                {"event": "completed"},
                {"x": "completed", "y": "z"},
                {"event": "completed", "by": "somebody"},
                {"event": "custom", "jobId": "1", "more": "1"},
                {"completed": ""},
                {"event": "added", "jobId": "\x00", "name": '\xff"\n\\'},
                {"event": "progress", "jobId": "1", "data": "50"},
            ):
                client.xadd(KEY, fields)
            tallies = await until(lambda now: now.events_read == 7)
    assert list(tallies.queues[QUEUE].by_name) == ['ÿ"\n\\']


@pytest.mark.parametrize("value", ["", "x" * 100_000])
@pytest.mark.parametrize("entries_added", [2**53, 2**63 - 1])
async def test_a_number_of_entries_that_was_set_by_hand_stops_no_queue(
    server: Server, entries_added: int, value: str
) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            for at in range(1, 4):
                added = {"event": "added", "jobId": at, "name": "import", "returnvalue": value}
                last = client.xadd(KEY, added)
                client.execute_command(
                    *("XSETID", KEY, last, "ENTRIESADDED", entries_added, "MAXDELETEDID", "0-0")
                )
                tallies = await until(lambda now, at=at: count(now, Count.ADDED) == at)
    assert tallies.queues[QUEUE].missed == 0


async def test_large_return_values_are_hardly_fetched(server: Server) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            before = client.info("stats")["total_net_output_bytes"]
            for number in range(300):
                write(client, number, "added", str(number), name="import")
                write(client, number, "completed", str(number), returnvalue="x" * 100_000)
            tallies = await until(lambda now: count(now, Count.COMPLETED) == 300)
        sent = client.info("stats")["total_net_output_bytes"] - before
    assert tallies.queues[QUEUE].missed == 0
    # Of 30 MB what the first read brought; the rest was read without values.
    assert sent < 3_000_000


async def test_a_failover_to_a_replica_that_lagged_counts_nothing_twice(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        running("valkey", tmp_path) as replica,
        server.client() as before,
        replica.client() as after,
        Proxy(server.port) as proxy,
    ):
        before.config_set("repl-diskless-sync-delay", 0)
        after.execute_command("REPLICAOF", "127.0.0.1", server.port)
        async with followed(proxy.port) as until:
            for number in range(50):
                write(before, number, "added", str(number), name="import")
            await until(lambda now: count(now, Count.ADDED) == 50)
            for _ in range(100):
                if before.execute_command("WAIT", 1, 100):
                    break
            after.execute_command("REPLICAOF", "NO", "ONE")
            # These are lost to the replica; they did happen.
            for number in range(50, 60):
                write(before, 50_000 + number, "added", str(number), name="import")
            await until(lambda now: count(now, Count.ADDED) == 60)
            proxy.switch(replica.port)
            for number in range(60, 64):
                write(after, 1000 + number, "added", str(number), name="import")
            # Its clock is behind: the ids are below those that were read already.
            await until(lambda _: "event stream rewound" in caplog.text)
            write(after, 2000, "added", "64", name="import")
            tallies = await until(lambda now: count(now, Count.ADDED) >= 61)
            await asyncio.sleep(0.3)
    # The four that came before the change was noticed are not distinguished from those of the copy.
    assert count(tallies, Count.ADDED) == 61


async def test_a_stream_that_was_made_anew_with_older_ids_is_read_from_its_start(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    with server.client() as client:
        async with followed(server.port) as until:
            write(client, 10_000, "added", "1", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
            client.delete(KEY)
            for number in range(3):  # the clock was set back
                write(client, number, "added", f"new-{number}", name="import")
            await until(lambda now: count(now, Count.ADDED) == 4)
            write(client, 5, "added", "last", name="import")
            await until(lambda now: count(now, Count.ADDED) == 5)
    assert caplog.text.count("event stream was created anew") == 1


async def test_what_is_trimmed_while_more_comes_than_can_be_read_is_missed_exactly(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads of ten at a time, of a stream that keeps 100 and gets 100 more between two of them."""
    monkeypatch.setattr(read_size, "MAX_READ_COST", 10)
    with server.client() as client:
        async with followed(server.port) as until:
            written = 0
            for _ in range(20):
                pipeline = client.pipeline(transaction=False)
                for _ in range(100):
                    written += 1
                    pipeline.xadd(KEY, {"event": "added", "jobId": str(written), "name": "import"})
                pipeline.xtrim(KEY, maxlen=100, approximate=False)
                pipeline.execute()
                await asyncio.sleep(0.005)

            def whole(now: Tallies) -> bool:
                return count(now, Count.ADDED) + now.queues[QUEUE].missed >= written

            tallies = await until(whole)
            await asyncio.sleep(0.3)
            tallies = await until(whole)
    assert tallies.queues[QUEUE].missed > 0
    assert count(tallies, Count.ADDED) + tallies.queues[QUEUE].missed == written
    assert count(tallies, Count.ADDED) == tallies.events_read


async def test_the_state_file_is_replaced_whole_and_bounds_may_change(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            client.hset("bull:ingestion:1", "name", "import")
            write(client, 0, "added", name="import")
            write(client, 0, "waiting")
            write(client, 40, "active", prev="waiting")
            await until(lambda now: durations(now, "wait")[0] == 1)
        first = path.read_bytes()
        assert sorted(os.listdir(tmp_path)) == ["state", "state.lock"]  # noqa: PTH208
        # The job that was active goes on, and its duration is known.
        write(client, 100, "completed", returnvalue="1", prev="active")
        async with followed(server.port, state_file=path) as until:
            tallies = await until(lambda now: count(now, Count.COMPLETED) == 1)
            assert durations(tallies, "process") == (1, 60)
            assert durations(tallies, "wait") == (1, 40)
        path.write_bytes(first)
        async with followed(server.port, state_file=path, wait_buckets=(1, 2)) as until:
            tallies = await until(lambda now: count(now, Count.COMPLETED) == 1)
            assert count(tallies, Count.ADDED) == 1
            assert durations(tallies, "wait") == (0, 0)
        for broken in (first[:-5], first[:1], b"", b"\x80", b"\x81\xa6format\x01"):
            path.write_bytes(broken)
            async with followed(server.port, state_file=path) as until:
                await until(lambda now: now.queues[QUEUE].by_name == {})


async def test_a_queue_that_appeared_while_we_were_away_is_counted_from_its_first_entry(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    other = Queue.named("bull", "indexing")
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
        await asyncio.sleep(0.01)
        client.xadd(events_key(other), {"event": "added", "jobId": "1", "name": "import"})
        async with followed(server.port, QUEUE, other, state_file=path) as until:
            tallies = await until(lambda now: other in now.queues and now.queues[other].by_name)
    assert tallies.queues[other].by_name["import"].values[Count.ADDED] == 1
    assert count(tallies, Count.ADDED) == 1


@pytest.mark.parametrize("ahead", [60, -60, 3600, -3600])
async def test_a_queue_that_appeared_while_we_were_away_is_counted_though_clocks_differ(
    server: Server, tmp_path: Path, ahead: int
) -> None:
    """The host's clock is so many seconds ahead of that of Redis, which writes the ids."""
    path = tmp_path / "state"
    other = Queue.named("bull", "indexing")

    def add(queue: Queue, name: str, seconds_ago: float = 0) -> None:
        at = int(1000 * (time.time() - ahead - seconds_ago))
        client.xadd(
            events_key(queue), {"event": "added", "jobId": name, "name": name}, id=f"{at}-*"
        )

    with server.client() as client:
        add(other, "long before", 300)
        async with followed(server.port, state_file=path) as until:
            for name in ("first", "second"):  # what is read first may be old
                add(QUEUE, name)
                await until(lambda now: name in now.queues[QUEUE].by_name)  # noqa: B023
        add(other, "while away")
        async with followed(server.port, QUEUE, other, state_file=path) as until:
            tallies = await until(lambda now: other in now.queues and now.queues[other].by_name)
    assert tallies.queues[other].by_name.keys() == {"while away"}
    assert tallies.uncertain_gaps == 0


@pytest.mark.parametrize("ahead", [60_000, 3_600_000, None])
@pytest.mark.parametrize("older", [False, True])
async def test_an_id_that_is_ahead_hides_no_queue_that_appeared_while_we_were_away(
    server: Server, tmp_path: Path, ahead: int | None, older: bool
) -> None:
    """By so many ms, as after a step of Redis's clock; None: the last id that a stream may have."""
    path, third = tmp_path / "state", Queue.named("bull", "deletion")
    other = Queue.named("bull", "indexing")

    def add(queue: Queue, name: str, entry_id: str = "*") -> None:
        entry = {"event": "added", "jobId": name, "name": name}
        client.xadd(events_key(queue), entry, id=entry_id)

    with server.client() as client:
        if older:
            add(other, "long before", f"{START}-0")
        async with followed(server.port, QUEUE, third, state_file=path) as until:
            for name in ("first", "second"):
                add(QUEUE, name)
                await until(lambda now: name in now.queues[QUEUE].by_name)  # noqa: B023
            at = 2**64 - 1 if ahead is None else int(1000 * time.time()) + ahead
            add(third, "ahead", f"{at}-0")
            await until(lambda now: "ahead" in now.queues[third].by_name)
        for _ in range(3):
            add(other, "while away")
        async with followed(server.port, QUEUE, third, other, state_file=path) as until:
            tallies = await until(
                lambda now: (
                    count(now, Count.ADDED, "first") == 1
                    and "while away" in now.queues[other].by_name
                )
            )
    found = tallies.queues[other].by_name
    assert found.keys() == {"while away"}
    assert found["while away"].values[Count.ADDED] == 3
    # An older entry may have come after the time from which it is read.
    assert tallies.uncertain_gaps == (older and ahead is not None)


async def test_a_queue_whose_ids_are_ahead_leaves_the_state_file_usable(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            client.xadd(KEY, {"event": "added", "jobId": "1", "name": "first"})
            await until(lambda now: "first" in now.queues[QUEUE].by_name)
            entry = {"event": "added", "jobId": "2", "name": "import"}
            client.xadd(KEY, entry, id=f"{2**64 - 1}-0")
            await until(lambda now: "import" in now.queues[QUEUE].by_name)
        async with followed(server.port, state_file=path) as until:
            tallies = await until(lambda now: "import" in now.queues[QUEUE].by_name)
    assert count(tallies, Count.ADDED) == 1
    assert not caplog.records


@pytest.mark.parametrize("ahead", [3600, 0])
async def test_without_an_event_to_compare_clocks_by_it_is_said_what_may_not_be_counted(
    server: Server, tmp_path: Path, ahead: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, other = tmp_path / "state", Queue.named("bull", "indexing")
    with server.client() as client:
        async with followed(server.port, state_file=path):
            pass
        at = int(1000 * (time.time() - ahead))
        client.xadd(events_key(other), {"event": "added", "jobId": "1", "name": "x"}, id=f"{at}-*")
        async with followed(server.port, QUEUE, other, state_file=path) as until:
            expected = 1 if ahead else 0
            tallies = await until(lambda now: other in now.queues)
            if ahead:
                tallies = await until(lambda now: now.uncertain_gaps)
            else:
                tallies = await until(lambda now: now.queues[other].by_name)
    assert tallies.uncertain_gaps == expected
    assert ("older events are skipped" in caplog.text) == bool(ahead)


async def test_a_queue_that_is_watched_anew_is_not_counted_for_what_was_before(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    other = Queue.named("bull", "indexing")
    with server.client() as client:
        for number in range(50):
            entry = {"event": "added", "jobId": str(number), "name": "import"}
            client.xadd(events_key(other), entry, id=f"{START + number}-0")
        async with followed(server.port, state_file=path) as until:
            client.xadd(KEY, {"event": "added", "jobId": "1", "name": "import"})
            await until(lambda now: count(now, Count.ADDED) == 1)
        async with followed(server.port, QUEUE, other, state_file=path) as until:
            await until(lambda now: other in now.queues)
            client.xadd(events_key(other), {"event": "added", "jobId": "50", "name": "import"})
            tallies = await until(lambda now: now.queues[other].by_name)
            await asyncio.sleep(0.2)
            tallies = await until(lambda _: True)
    assert tallies.queues[other].by_name["import"].values[Count.ADDED] == 1
    assert not caplog.records


async def test_a_swallowed_add_is_counted_once_whichever_of_its_events_are_written(
    server: Server, tmp_path: Path
) -> None:
    """5.56.3 writes `debounced` and `deduplicated`, one after the other; others one of them."""
    path = tmp_path / "state"
    with server.client() as client:
        client.hset("bull:ingestion:1", "name", "import")
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            for _ in range(2):
                write(client, 1, "debounced", debounceId="a")
                write(client, 1, "deduplicated", deduplicationId="a", deduplicatedJobId="2")
            write(client, 2, "deduplicated", deduplicationId="a", deduplicatedJobId="2")
            write(client, 3, "debounced", debounceId="a")
            write(client, 4, "debounced", debounceId="a")
            await until(lambda now: count(now, Count.DEDUPLICATED) == 5)
        # A read, and the exporter, may end between the two.
        write(client, 4, "deduplicated", deduplicationId="a", deduplicatedJobId="2")
        async with followed(server.port, state_file=path) as until:
            write(client, 5, "deduplicated", deduplicationId="a", deduplicatedJobId="2")
            tallies = await until(lambda now: now.events_read == 2)
    assert count(tallies, Count.DEDUPLICATED) == 6
    assert tallies.tracked_jobs == 1


async def test_a_state_file_of_before_there_were_more_counters_goes_on(
    server: Server, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            write(client, 0, "waiting")
            write(client, 40, "active", prev="waiting")
            await until(lambda now: durations(now, "wait")[0] == 1)
        memory = msgpack.unpackb(state_format._packed(path.read_bytes()), strict_map_key=False)
        queues = memory["queues-1"] = memory.pop(QUEUES)
        for queue in queues.values():
            del queue["failed"], queue["retry_prev"], queue["debounced"]
            for values in queue["tallies"].values():
                del values[6:8]
        for bounds in ({}, {"wait_buckets": (1, 2)}):
            path.write_bytes(msgpack.packb(memory))
            async with followed(server.port, state_file=path, **bounds) as until:
                tallies = await until(lambda now: count(now, Count.ADDED) == 1)
            assert tally(tallies).values[: len(Count)] == (1, 0, 0, 0, 0, 0, 0, 0)
            assert durations(tallies, "wait") == ((0, 0) if bounds else (1, 40))


async def test_a_start_without_redis_forgets_nothing(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "state"
    other = Queue.named("bull", "indexing")
    with server.client() as client:
        async with followed(server.port, state_file=path) as until:
            write(client, 0, "added", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
        client.xadd(events_key(other), {"event": "added", "jobId": "1", "name": "import"})
        reader = RedisReader(RedisSettings(host="127.0.0.1", port=1, timeout=1), connections=1)
        settings = EventsSettings(state_file=path)
        task = asyncio.create_task(Follower(reader, settings, lambda: None, redis_timeout=1).run())
        await asyncio.sleep(2.5)
        task.cancel()
        await asyncio.wait({task})
        async with followed(server.port, QUEUE, other, state_file=path) as until:
            tallies = await until(lambda now: other in now.queues and now.queues[other].by_name)
    assert tallies.queues[other].by_name["import"].values[Count.ADDED] == 1
    assert count(tallies, Count.ADDED) == 1


async def test_queues_that_go_and_come_back_are_not_counted_twice(server: Server) -> None:
    watched: list[tuple[Queue, ...]] = [(QUEUE,)]
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    follower = Follower(reader, EventsSettings(), lambda: watched[0], redis_timeout=2)
    task = asyncio.create_task(follower.run())

    async def until_added(wanted: int | None) -> None:
        for _ in range(3000):
            tallies = await follower.tallies()
            counted = tallies and tallies.queues.get(QUEUE)
            added = counted and sum(tally.values[Count.ADDED] for tally in counted.by_name.values())
            if tallies is not None and added == wanted:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"still {added}, not {wanted}")

    with server.client() as client:
        await until_added(0)
        for number in range(50):
            write(client, number, "added", str(number), name="import")
        await until_added(50)
        watched[0] = ()
        await until_added(None)
        write(client, 60, "added", "while it was gone", name="import")
        watched[0] = (QUEUE,)
        await until_added(51)
        await asyncio.sleep(0.3)
        await until_added(51)
    task.cancel()
    await asyncio.wait({task})
    await reader.close()


@pytest.mark.parametrize("late", [0, 1900, -1900])
async def test_a_gap_is_mended_exactly_though_clocks_differ(server: Server, late: int) -> None:
    """Jobs end every 10 ms; the worker's clock is `late` ms behind Redis's (or ahead of it)."""

    def end(client: Any, first: int, last: int) -> None:
        for number in range(first, last):
            job_id, at = str(number), START + 10 * number
            client.hset(f"bull:ingestion:{job_id}", mapping={"name": "import"})
            client.zadd("bull:ingestion:failed", {job_id: at - late})
            fields = {"event": "failed", "jobId": job_id, "failedReason": "no", "prev": "active"}
            client.xadd(KEY, fields, id=f"{at}-0")

    with server.client() as client:
        async with followed(server.port) as until:
            end(client, 0, 800)
            await until(lambda now: count(now, Count.FAILED) == 800)
            pipeline = client.pipeline()
            end(pipeline, 800, 2000)
            pipeline.xtrim(KEY, maxlen=300, approximate=False)
            pipeline.execute()
            await until(lambda now: now.queues[QUEUE].missed == 900)
            end(client, 2000, 3000)
            tallies = await until(lambda now: count(now, Count.FAILED) >= 3000)
            await asyncio.sleep(0.5)
            tallies = await until(lambda _: True)
    assert count(tallies, Count.FAILED) == 3000
    assert tallies.queues[QUEUE].missed == 900


async def test_a_large_gap_is_mended_page_by_page_while_streams_are_read(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "PAGE", 10)
    with server.client() as client:
        async with followed(server.port) as until:
            write(client, 0, "added", "first", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
            pipeline = client.pipeline()
            for number in range(200):
                write(pipeline, 30_000 + number, "failed", str(number), failedReason="no")
                pipeline.hset(f"bull:ingestion:{number}", mapping={"name": "import"})
                # All in one millisecond, and more than a page of them, are the hardest to page.
                at = START + 30_000 + (0 if number < 8 else number)
                pipeline.zadd("bull:ingestion:failed", {str(number): at})
            pipeline.xtrim(KEY, maxlen=0, approximate=False)
            pipeline.execute()
            write(client, 60_000, "added", "last", name="import")
            tallies = await until(lambda now: count(now, Count.FAILED) == 200)
    assert tallies.queues[QUEUE].missed == 200


def test_what_is_counted_while_the_state_is_written_is_not_in_it() -> None:
    """Its position is from before that, so that it will be read and counted again."""
    layout = Layout((50,), (5,))
    counter = QueueEventCounter(QUEUE, layout, JobBudget(10), max_names=10)
    added: list[bytes] = [b"event", b"added", b"jobId", b"1", b"name", b"import"]
    counter.read([(b"1-0", added)])
    counter.cursor.advance([(b"1-0", added)])
    memory = {"saved": 1, "bounds": layout.bounds, QUEUES: {QUEUE.base: counter.memory()}}
    parts = state_format.encode(memory)
    counter.read([(b"2-0", added)])
    counter.cursor.advance([(b"2-0", added)])
    remembered = state_format.decode(b"".join(parts), layout).queues
    assert remembered[QUEUE.base]["position"] == b"1-0"
    assert remembered[QUEUE.base]["tallies"]["import"][Count.ADDED] == 1


async def test_a_state_file_that_cannot_be_written_is_said_once_and_counting_goes_on(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    directory = tmp_path / "gone"
    directory.mkdir()
    settings = {"state_file": directory / "state"}
    with server.client() as client:
        async with followed(server.port, **settings) as until:
            shutil.rmtree(directory)
            write(client, 0, "added", name="import")
            await until(lambda now: count(now, Count.ADDED) == 1)
            write(client, 1, "added", "2", name="import")
            await until(lambda now: count(now, Count.ADDED) == 2)
    assert caplog.text.count("the state file cannot be written") == 1


def entries(*ids: int) -> list[Entry]:
    return [(b"%d-0" % at, (b"event", b"drained")) for at in ids]


def info(length: int, first: int, last: int) -> StreamInfo:
    """What a server before Redis 7.0 reports: not how many entries were ever added."""
    return StreamInfo(length, b"%d-0" % first if length else None, b"%d-0" % last, None)


def test_a_server_that_does_not_count_entries_shows_that_some_were_missed() -> None:
    cursor = Cursor()
    cursor.start(info(3, 1, 3))
    assert cursor.check(info(5, 1, 5), entries(4, 5), complete=True) is None
    cursor.advance(entries(4, 5))
    gap = cursor.check(info(2, 8, 9), entries(8, 9), complete=True)
    assert gap == Gap(1, 3, 8)
    assert isinstance(gap, UncertainGap)
    cursor.advance(entries(8, 9))
    assert cursor.check(info(3, 8, 10), entries(10), complete=True) is None
    assert cursor.number is None


def test_an_upgrade_to_a_server_that_counts_entries_is_no_gap() -> None:
    cursor = Cursor()
    cursor.start(info(3, 1, 3))
    counting = StreamInfo(4, b"1-0", b"4-0", 4)
    assert cursor.check(counting, entries(4), complete=True) is None
    cursor.advance(entries(4))
    assert cursor.number == 4


@pytest.mark.parametrize(
    ("added", "kept", "missed"),
    [
        (100, 0, 100),  # fewer than were known of the old one
        (100, 40, 60),
        (100, 100, 0),  # nothing is trimmed, all is read
        (300, 50, 50),  # of the 250 that are missed: it may as well be the old one, gone on
        (250, 50, 0),  # of 200
    ],
)
async def test_a_stream_made_anew_and_trimmed_between_two_checks_misses_what_can_be_shown(
    server: Server, added: int, kept: int, missed: int
) -> None:
    def add(client: Any, first: int, number: int) -> None:
        for i in range(first, first + number):
            write(client, i, "added", str(i), name="import")

    with server.client() as client:

        def checks() -> int:
            return int(client.info("commandstats")["cmdstat_xinfo|stream"]["calls"])

        async with followed(server.port) as until:
            pipeline = client.pipeline()
            add(pipeline, 0, 200)
            pipeline.execute()
            await until(lambda now: count(now, Count.ADDED) == 200)
            before = checks()
            await until(lambda _: checks() >= before + 2)
            pipeline = client.pipeline()
            pipeline.delete(KEY)
            add(pipeline, 10_000, added)
            pipeline.xtrim(KEY, maxlen=kept, approximate=False)
            pipeline.execute()
            before = checks()
            await until(lambda _: checks() >= before + 2)
            tallies = await until(lambda now: count(now, Count.ADDED) == 200 + kept)
    assert tallies.queues[QUEUE].missed == missed
    # How many of the old one were unread is unknown even if all of the new one are there.
    assert tallies.uncertain_gaps == 1


async def uncertain_gaps_after_step(follower: Follower) -> int:
    await follower._step()
    tallies = await follower.tallies()
    assert tallies is not None
    return tallies.uncertain_gaps


async def test_a_stream_that_vanishes_while_it_is_written_to_is_an_uncertain_gap(
    server: Server,
) -> None:
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    follower = Follower(reader, EventsSettings(), lambda: (QUEUE,), redis_timeout=2)
    uncertain_gaps = partial(uncertain_gaps_after_step, follower)

    with server.client() as client:
        assert await uncertain_gaps() == 0
        write(client, 0, "added", "1", name="import")
        for _ in range(2):  # it is read, and once more: it is at rest
            assert await uncertain_gaps() == 0
        client.delete(KEY)
        assert await uncertain_gaps() == 0
        write(client, 10, "added", "2", name="import")
        assert await uncertain_gaps() == 0
        client.delete(KEY)
        assert await uncertain_gaps() == 1
        assert await uncertain_gaps() == 1
    await reader.close()


@pytest.mark.parametrize("goes", ["with its queue", "before it is checked", "not"])
async def test_what_a_short_lived_queue_leaves_unread_is_an_uncertain_gap(
    server: Server, goes: str
) -> None:
    reader = RedisReader(RedisSettings(host="127.0.0.1", port=server.port), connections=1)
    queues: tuple[Queue, ...] = ()
    follower = Follower(reader, EventsSettings(), lambda: queues, redis_timeout=2)
    uncertain_gaps = partial(uncertain_gaps_after_step, follower)

    with server.client() as client:
        assert await uncertain_gaps() == 0
        write(client, 0, "added", "1", name="import")
        queues = (QUEUE,)
        assert await uncertain_gaps() == 0
        write(client, 10, "added", "2", name="import")
        if goes != "not":
            client.delete(KEY)
        if goes == "before it is checked":
            follower._begin_anew()
        else:
            queues = ()
        for _ in range(2):
            assert await uncertain_gaps() == (goes != "not")
        queues = (QUEUE,)
        follower._begin_anew()
        await uncertain_gaps()
        assert await uncertain_gaps() == (goes != "not")
        assert count(await follower.tallies(), Count.ADDED) == 1 + (goes == "not")
    await reader.close()


def test_an_older_copy_of_a_stream_that_went_on_is_no_gap() -> None:
    """A failover to a replica that lagged, and newer events before the next check."""
    cursor = Cursor()
    cursor.start(StreamInfo(60, b"1-0", b"60-0", 60))
    copy = StreamInfo(54, b"1-0", b"104-0", 54)
    assert cursor.check(copy, entries(101, 102, 103, 104), complete=True) is None
    cursor.advance(entries(101, 102, 103, 104))
    assert cursor.number == 54


async def test_streams_that_all_have_much_at_once_are_read_a_little_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a quiet time XREAD's COUNT is large: of 200 streams it could bring 400,000 entries."""
    queues = [Queue.named("bull", f"queue-{number}") for number in range(200)]
    most, _count_entries = 0, Follower._count_entries

    async def book(
        self: Follower,
        counters: Sequence[QueueEventCounter],
        entries: dict[bytes, list[Entry]],
        *more: Any,
    ) -> int:
        nonlocal most
        most = max(most, sum(map(len, entries.values())))
        return await _count_entries(self, counters, entries, *more)

    monkeypatch.setattr(Follower, "_count_entries", book)
    with server.client() as client:
        async with followed(server.port, *queues) as until:
            await asyncio.sleep(1)  # twelve quiet reads, each of which doubles the COUNT
            for queue in queues:
                pipeline = client.pipeline(transaction=False)
                for _ in range(300):
                    pipeline.xadd(events_key(queue), {"event": "drained"})
                pipeline.execute()
            await until(lambda tallies: tallies.events_read == 60_000)
    assert 200 < most <= 2000


async def test_queues_that_go_do_not_end_the_checks_of_others(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had events just before is to be checked, and is not there any more."""
    monkeypatch.setattr(check_rounds, "CHECK_ALL_INTERVAL_SECONDS", 3.0)
    monkeypatch.setattr(following, "PAUSE", 0.2)  # in which it goes
    other = Queue.named("bull", "indexing")
    watched: tuple[Queue, ...] = (QUEUE,)
    with server.client() as client:
        write(client, 0, "added", name="import")
        async with followed(server.port, watched=lambda: watched) as until:
            for number in range(5):
                read = (await until(lambda _: True)).events_read
                watched = (QUEUE, other)
                client.xadd(
                    events_key(other), {"event": "added", "jobId": str(number), "name": "a"}
                )
                await until(lambda now, read=read: now.events_read > read)
                watched = (QUEUE,)
                await until(lambda now: other not in now.queues)
            pipeline = client.pipeline()
            for number in range(3):
                pipeline.xadd(KEY, {"event": "added", "jobId": f"late-{number}", "name": "import"})
            pipeline.xtrim(KEY, maxlen=0, approximate=False)
            pipeline.execute()
            await until(lambda now: now.queues[QUEUE].missed == 3)


async def test_a_stream_that_is_behind_and_becomes_something_else_is_left_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_size, "MAX_READ_COST", 10)
    with server.client() as client:
        async with followed(server.port) as until:
            pipeline = client.pipeline(transaction=False)
            for number in range(3000):
                pipeline.xadd(KEY, {"event": "added", "jobId": str(number), "name": "import"})
            pipeline.execute()
            await until(lambda now: now.events_read > 10)
            pipeline = client.pipeline()
            pipeline.delete(KEY)
            pipeline.set(KEY, "no stream")
            pipeline.execute()
            await asyncio.sleep(0.3)
            client.config_resetstat()
            await asyncio.sleep(0.5)
            calls = sum(each["calls"] for each in client.info("commandstats").values())
    assert calls < 200, "it would be asked for without a rest"


async def test_a_key_that_holds_no_stream_and_an_outage_leave_all_other_gaps_noticed(
    server: Server, quick: None
) -> None:
    bad = Queue.named("bull", "bad")
    with server.client() as client:
        client.set(events_key(bad), "no stream")
        async with followed(server.port, QUEUE, bad) as until:
            write(client, 0, "added", name="n")
            await until(lambda now: now.events_read == 1)
            client.execute_command("CLIENT", "PAUSE", 2500, "ALL")
            await asyncio.to_thread(client.ping)
            await until(lambda _: True)
            with client.pipeline(transaction=True) as pipeline:
                for number in range(300):
                    entry = {"event": "added", "jobId": number, "name": "n"}
                    pipeline.xadd(KEY, entry, maxlen=10, approximate=False)  # type: ignore[arg-type]
                pipeline.execute()
            await until(lambda now: now.queues[QUEUE].missed == 290)
            client.delete(events_key(bad))
            client.xadd(events_key(bad), {"event": "added", "jobId": "1", "name": "n"})
            await until(lambda now: now.queues[bad].by_name["n"].values[Count.ADDED] == 1)


def test_jobs_that_find_no_room_after_a_restart_have_no_older_age() -> None:
    layout = Layout((100,), (100,))
    before = QueueEventCounter(QUEUE, layout, JobBudget(100), max_names=10)
    before.start(1000)
    before.read(
        [
            (b"%d-0" % (2000 + job), [b"event", b"added", b"jobId", b"%d" % job, b"name", b"n"])
            for job in range(5)
        ]
    )
    after = QueueEventCounter(QUEUE, layout, JobBudget(2), max_names=10)
    after.remember(before.memory())
    assert after.ready_at(b"4", 2004.0) == 2004.0


def test_events_that_are_passed_over_leave_nothing_that_is_known_of_jobs() -> None:
    """As a gap does: a job that the skipped events report may be ready since then alone, and one
    that is tracked may have been taken again.
    """

    def event(at: int, kind: str, job_id: str) -> Entry:
        return b"%d-0" % at, [b"event", kind.encode(), b"jobId", job_id.encode(), b"name", b"n"]

    layout = Layout((100,), (100,))
    counter = QueueEventCounter(QUEUE, layout, room := JobBudget(100), max_names=10)
    counter.start(1000)
    counter.read([event(2000, "added", "taken"), event(2000, "active", "taken")])
    assert counter.ready_at(b"skipped", 90_000.0) == 1000  # before all events
    counter.pass_over([event(90_000, "waiting", "skipped"), event(90_000, "active", "taken")])
    assert counter.ready_at(b"skipped", 90_000.0) == 90_000
    assert (counter.missed, room.taken) == (2, 0)
    counter.read([event(91_000, "completed", "taken")])
    assert sum(counter.tallies["n"].values[layout.process :]) == 0, "it was not taken at 2000"


def test_a_queue_that_comes_back_is_not_said_to_keep_too_few_events() -> None:
    counter = QueueEventCounter(QUEUE, Layout((100,), (100,)), JobBudget(100), max_names=10)
    counter.note_events_off(True)
    counter.put_away()
    assert not counter.freeze().events_off

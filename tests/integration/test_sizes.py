"""What applications can make as long as they like is not read, or remembered short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporter.queues.tallies import Count
from exporter.queues.text import MAX_ID_BYTES, remembered_id
from exporter.stores.bullmq.scripts import load_script
from tests.support.exporters import StartExporter
from tests.support.following import KEY, count, durations, followed, quick, write
from tests.support.servers import Server
from tests.support.waiting import eventually

__all__ = ["quick"]  # its checks follow one another without a rest

MEGABYTE = "x" * (1 << 20)
LARGE = json.dumps({"delay": 5, "x": MEGABYTE})
OLD = 1_700_000_000_000


def test_values_that_are_too_long_are_not_read(
    server: Server, start_exporter: StartExporter
) -> None:
    """Not by polls, nor by searches for queues, for retention and for schedulers."""
    with server.client() as client:
        for queue in ("large", "sound"):
            client.hset(f"bull:{queue}:meta", "version", "bullmq:5.56.3")
            client.rpush(f"bull:{queue}:wait", "1")
            client.zadd(f"bull:{queue}:completed", {"2": OLD})
            client.zadd(f"bull:{queue}:prioritized", {"3": 2**32})
            client.zadd(f"bull:{queue}:repeat", {"daily": OLD})
            client.rpush(f"bull:{queue}:active", "4")
        keep = '{"delay": 5, "removeOnComplete": 7}'
        client.hset("bull:large:meta", "version", MEGABYTE)
        client.rpush("bull:eventless:wait", "1")
        for key in ("large:1", "large:2", "large:3", "large:4", "eventless:1"):
            client.hset(f"bull:{key}", mapping={"name": "n", "timestamp": OLD, "opts": LARGE})
        for number in range(1, 5):
            job = {"name": "n", "timestamp": OLD, "opts": keep}
            client.hset(f"bull:sound:{number}", mapping=job)
        client.hset("bull:large:repeat:daily", mapping=dict.fromkeys(("name", "tz"), MEGABYTE))
        client.set("oa:worker:large:alive", MEGABYTE)
        client.set("bull:large:limiter", MEGABYTE, px=3_600_000)
        sent = "total_net_output_bytes"
        before = client.info("stats")[sent]
        commands: list[str] = []
        with server.client() as other, other.monitor() as monitor:
            metrics = start_exporter(server.url).metrics
            polls = "bullmq_exporter_poll_duration_seconds_count"
            eventually(lambda: (metrics.value(polls) or 0) > 5)
            after = client.info("stats")[sent]
            client.echo("that is all")
            while "that is all" not in (command := monitor.next_command()["command"]):
                commands.append(command)
    # What the monitor was sent are commands, none of which is long.
    assert after - before < len(MEGABYTE)
    reads = [
        command.split() for command in commands if command.startswith(("HGET", "HMGET", "GET "))
    ]
    long = {
        "opts": {"bull:eventless:1", *(f"bull:large:{number}" for number in range(1, 5))},
        "version": {"bull:large:meta"},
        "name": {"bull:large:repeat:daily"},
        "tz": {"bull:large:repeat:daily"},
    }
    assert not [read for read in reads for name in long if name in read and read[1] in long[name]]
    assert any(read[1] == "bull:sound:1" and "opts" in read for read in reads)
    # What is not read is not known, and all else is.
    oldest = metrics.samples("bullmq_queue_oldest_waiting_timestamp_seconds")
    assert oldest == {("sound",): OLD / 1000 + 0.005}
    assert metrics.samples("bullmq_queue_retention_limit", state="completed") == {("sound",): 7}
    for queue in ("large", "eventless"):
        assert metrics.value("bullmq_job_count", queue=queue, state="waiting") == 1


def test_queues_with_very_long_names_are_counted_and_not_watched(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        for name in ("short", "n" * 4000, "n" * 5000, MEGABYTE):
            client.hset(f"bull:{name}:meta", "version", "bullmq:5.56.3")
            client.rpush(f"bull:{name}:wait", "1")
        client.hset(f"{MEGABYTE}:mail:meta", "version", "bullmq:5.56.3")
    exporter = start_exporter(server.url)
    value = exporter.metrics.value
    eventually(lambda: value("bullmq_exporter_unwatched_queues", reason="long_name") == 3)
    assert value("bullmq_exporter_queues") == 2
    [line] = eventually(lambda: exporter.lines("queues with very long names are not watched"))
    assert line["detail"] == "3, of more than 4096 bytes"
    assert len(exporter.metrics.get("/metrics").body) < 100_000


def test_a_short_id_stays_and_long_ones_stay_apart(any_server: Server) -> None:
    short, long = b"1" * MAX_ID_BYTES, [b"1" * MAX_ID_BYTES + end for end in (b"1", b"2", b"\xff")]
    assert remembered_id(short) == short
    cut = [remembered_id(each) for each in long]
    assert [len(each) for each in cut] == [MAX_ID_BYTES] * 3
    assert len(set(cut)) == 3
    assert [remembered_id(each) for each in cut] == cut
    with any_server.client() as client:
        client.delete(KEY)
        for each in (short, *long):
            client.xadd(KEY, {"event": "waiting", "jobId": each})
        read = client.eval(load_script("events.lua").source, 1, KEY, 9, 10_000, "0-0", "")
        assert [fields[3] for _, fields in read[0][3]] == [short, *cut]


@pytest.mark.parametrize(("number", "megabytes"), [(8, 2), (3, 1)])
async def test_jobs_with_long_ids_are_followed_and_remembered_short(
    server: Server, tmp_path: Path, number: int, megabytes: int
) -> None:
    """In replies that are too large (16 MB) as well, and over a restart."""
    state, jobs = tmp_path / "state", [megabytes * MEGABYTE + str(at) for at in range(number)]
    with server.client() as client:
        async with followed(server.port, state_file=state) as until:
            for at, job in enumerate(jobs, 1):
                write(client, at, "added", job, name="import")
                write(client, at, "waiting", job)
                if number < 5:
                    await until(lambda now, at=at: count(now, Count.ADDED) == at)
            tallies = await until(lambda now: count(now, Count.ADDED) == len(jobs))
            assert tallies.tracked_jobs == len(jobs)
        assert state.stat().st_size < 100_000
        async with followed(server.port, state_file=state) as until:
            for at, job in enumerate(jobs, 1):
                write(client, at + 1000, "active", job)
            for at, job in enumerate(jobs, 1):
                write(client, at + 3000, "failed", job)
            tallies = await until(lambda now: count(now, Count.FAILED) == len(jobs))
            assert tallies.tracked_jobs == 0
            assert durations(tallies, "wait") == (len(jobs), 1000 * len(jobs))
            assert durations(tallies, "process") == (len(jobs), 2000 * len(jobs))
        assert state.stat().st_size < 100_000

"""How long jobs have waited: by their events it is exact, whatever clocks and hashes say."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from tests.support.bullmq import StartWork
from tests.support.counters import wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])


def became_ready(client: redis.Redis, queue: str, job_id: str) -> float:
    """When the job last became ready by its events, in seconds of Redis's clock."""
    for entry_id, fields in client.xrevrange(f"bull:{queue}:events"):
        if fields[b"event"] == b"waiting" and fields[b"jobId"] == job_id.encode():
            return int(entry_id.split(b"-")[0]) / 1000
    raise AssertionError(f"{job_id} never waited")


def age_is(exporter: Exporter, queue: str, expected: float | None) -> Callable[[], bool]:
    """Whether metrics and API agree on since when the oldest job waits (epoch seconds).

    The API's list and the queue's own page are read in different ways.
    """

    def check() -> bool:
        gauge = "bullmq_queue_oldest_waiting_timestamp_seconds"
        assert exporter.metrics.value(gauge, queue=queue) == expected
        listed = exporter.api.get("/v1/jobs/queues?detail=true").json["queues"]
        [oldest] = [each["oldestWaiting"] for each in listed if each["name"] == queue]
        page = exporter.api.get(f"/v1/jobs/queues/{queue}?detail=true").json
        assert oldest == page["oldestWaiting"]
        assert oldest == (None if expected is None else round(expected * 1000))
        return True

    return check


@VERSIONS
def test_a_job_that_was_given_back_waits_from_then_on(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
    version: str,
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    exporter = wait_following(start_exporter(server.url, **state))
    # It was taken two hours ago, as far as its hash shows, by a worker that is killed.
    killed = start_work(version, server.port, clock="-2h")
    killed.add("q", "stalls", 1, {"jobId": "the-job"})
    killed.work("q", {"lockDuration": 600_000})
    work = start_work(version, server.port)
    with server.client() as client:
        eventually(lambda: client.llen("bull:q:active") == 1)
        work.add("q", "sleeps-600000", 1)
        work.work("q", {"stalledInterval": 200})
        eventually(lambda: client.llen("bull:q:active") == 2)
        killed.close()
        assert client.delete("bull:q:the-job:lock") == 1
        eventually(lambda: client.lrange("bull:q:wait", 0, -1) == [b"the-job"])
        given_back = became_ready(client, "q", "the-job")
        assert abs(given_back - float(client.hget("bull:q:the-job", "processedOn")) / 1000) > 7000
    eventually(age_is(exporter, "q", given_back))
    # Who did not see it happen does not know.
    eventually(age_is(start_exporter(server.url), "q", None))
    assert exporter.terminate() == 0
    eventually(age_is(wait_following(start_exporter(server.url, **state)), "q", given_back))


@VERSIONS
@pytest.mark.parametrize("clock", ["-40m", "+40m"])
def test_a_producers_clock_makes_no_job_older_or_younger(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str, clock: str
) -> None:
    exporter = wait_following(start_exporter(server.url))
    work = start_work(version, server.port, clock=clock)
    work.add("plain", "plain", 3)
    work.add("prioritized", "plain", 1, {"priority": 7})
    work.add("lifo", "plain", 3, {"lifo": True})
    work.add("promoted", "plain", 1, {"delay": 3_600_000})
    work.call("promoted", "promoteJobs")
    late = start_exporter(server.url)
    with server.client() as client:
        for queue in ("plain", "prioritized", "lifo", "promoted"):
            ready = became_ready(client, queue, "1")
            eventually(age_is(exporter, queue, ready))
        # It did not see them come; but after its last event a job did not become ready.
        [(last, _)] = client.xrevrange("bull:plain:events", count=1)
        added = float(client.hget("bull:plain:1", "timestamp"))
    known = min(added, int(last.split(b"-")[0])) / 1000
    eventually(age_is(late, "plain", known))
    assert (known == added / 1000) == (clock == "-40m")


def test_the_age_is_that_of_the_job_that_waits_now(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    """An attempt that ran for hours and failed does not make the job wait for hours."""
    exporter = wait_following(start_exporter(server.url))
    begins = start_work("bullmq6", server.port, clock="-3h")
    begins.add("q", "fails-first", 1, {"attempts": 2, "backoff": 200})
    begins.work("q")
    with server.client() as client:
        eventually(lambda: client.zcard("bull:q:delayed") == 1)
        begins.close()
        work = start_work("bullmq6", server.port)
        work.call("q", "promoteJobs")
        eventually(age_is(exporter, "q", became_ready(client, "q", "1")))
        work.call("q", "pause")
        eventually(age_is(exporter, "q", None))
        work.call("q", "resume")
        work.add("q", "plain", 1)
        eventually(age_is(exporter, "q", became_ready(client, "q", "1")))
        work.work("q")
        work.settle()
        eventually(age_is(exporter, "q", None))


def test_a_job_whose_events_are_still_unread_is_no_older_than_it_is(
    server: Server, start_exporter: StartExporter
) -> None:
    def events(pipeline: redis.client.Pipeline, job_id: str, *kinds: str) -> None:
        for kind in kinds:
            entry = {"event": kind, "jobId": job_id, "name": "n"}
            pipeline.xadd("bull:q:events", entry)  # type: ignore[arg-type]

    with server.client() as client:
        client.hset("bull:q:meta", "version", "bullmq:5.56.3")
        client.xadd("bull:q:events", {"event": "completed", "jobId": "old"})
        exporter = wait_following(start_exporter(server.url))
        for number in range(40):
            job_id, added = str(number), int(time.time() * 1000)
            with client.pipeline(transaction=True) as pipeline:
                fields = {"name": "n", "timestamp": added, "opts": "{}", "data": "{}"}
                pipeline.hset(f"bull:q:{job_id}", mapping=fields)  # type: ignore[arg-type]
                pipeline.lpush("bull:q:wait", job_id)
                events(pipeline, job_id, "added", "waiting")
                pipeline.execute()
            [queue] = exporter.api.get("/v1/jobs/queues?detail=true").json["queues"]
            assert queue["oldestWaiting"] >= added - 100
            with client.pipeline(transaction=True) as pipeline:
                pipeline.rpop("bull:q:wait")
                pipeline.delete(f"bull:q:{job_id}")
                events(pipeline, job_id, "active", "completed")
                pipeline.execute()
            time.sleep(0.03 * (number % 5))

"""What counts as a retry: attempts that failed and are tried again, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.queues.tallies import UNKNOWN
from tests.support.bullmq import StartWork
from tests.support.counters import Truth, assert_counted, reported, total, wait_following
from tests.support.exporters import StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
# A worker's clock decides nothing, wherever the events show it.
CLOCKS = pytest.mark.parametrize("clock", ["+0s", "-40m"])
REMOVED = {"removeOnComplete": True}
ONCE = {"attempts": 1}


@VERSIONS
@CLOCKS
def test_a_failed_job_that_is_retried_by_hand_is_no_failed_attempt_and_keeps_its_name(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str, clock: str
) -> None:
    exporter = start_exporter(server.url)
    work = start_work(version, server.port, clock=clock)
    queues = ("one by one", "all at once")
    for queue in queues:
        work.work(queue, {"concurrency": 5})
        for options in (ONCE, {"attempts": 2}):
            work.add(queue, "fails-first", 20, {**options, **REMOVED})
            work.add(queue, "fails", 10, {**options, **REMOVED})
            # Neither does it count that such a job is put off by its own will.
            for name in ("fails-delays-itself", "fails-rate-limits"):
                work.add(queue, name, 2, options)
    truth = work.settle()
    assert truth["all at once"]["fails-first"]["failed"] == 20
    assert truth["all at once"]["fails-delays-itself"]["retried"] == 2
    assert_counted(exporter, truth)
    for _ in range(3):
        assert work.retryAll("one by one", "failed") > 0
        work.call("all at once", "retryJobs", {"state": "failed"})
        assert_counted(exporter, work.settle())
    assert UNKNOWN not in reported(exporter)["one by one"]
    # Completed jobs can be retried as well.
    assert work.retryAll("one by one", "completed") > 0
    work.call("all at once", "retryJobs", {"state": "completed"})
    assert_counted(exporter, work.settle())
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0


def test_attempts_that_are_set_back_by_hand_fail_and_are_counted_from_there(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    """6.x: Job.retry() with `resetAttemptsMade`."""
    exporter = wait_following(start_exporter(server.url))
    work = start_work("bullmq6", server.port)
    work.work("q")
    for name in ("fails", "fails-delays-itself"):
        work.add("q", name, 5, {"attempts": 3, "backoff": 10, "removeOnComplete": False})
    work.settle()
    for options in ({"resetAttemptsMade": True}, {}, {"resetAttemptsMade": True}):
        assert work.retryAll("q", "failed", options) == 5
        assert_counted(exporter, work.settle())
    assert work.truth()["q"]["fails"] == {
        "added": 5, "retried": 5 * 2 * 3, "failed": 5 * 4, "retries_exhausted": 5 * 4
    }  # fmt: skip


@VERSIONS
@CLOCKS
def test_jobs_that_failed_before_the_exporter_began_are_not_retried_by_what_is_no_failed_attempt(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str, clock: str
) -> None:
    options = {"attempts": 5, "backoff": {"type": "fixed", "delay": 10}}
    work = start_work(version, server.port, clock=clock)
    work.work("failed")
    work.add("failed", "fails", 5, {"attempts": 2})
    work.add("failed", "fails-first", 5, {**ONCE, **REMOVED})
    work.work("deferred", {"concurrency": 5})
    names = ("fails-delays-itself", "fails-rate-limits")
    jobs = [
        {"name": name, "data": {"times": 3}, "opts": options} for name in names for _ in range(3)
    ]
    work.call("deferred", "pause")
    work.addJobs("deferred", jobs)
    # An attempt of each has failed when the exporter begins.
    for job in jobs:
        job["opts"] = {**options, "backoff": {"type": "fixed", "delay": 3_600_000}}
    work.addJobs("deferred", jobs)
    work.call("deferred", "resume")
    with server.client() as client:
        eventually(lambda: client.zcard("bull:failed:failed") == 10)
        eventually(lambda: client.zcard("bull:deferred:delayed") == 6)
        eventually(lambda: client.zcard("bull:deferred:completed") == 6)
    exporter = wait_following(start_exporter(server.url))
    before = work.truth()
    work.call("deferred", "promoteJobs")
    work.retryAll("failed", "failed")
    after = work.settle()

    def since(queue: str, name: str) -> dict[str, int]:
        counts = {
            what: count - before[queue][name].get(what, 0)
            for what, count in after[queue][name].items()
        }
        return {what: count for what, count in counts.items() if count}

    assert since("deferred", "fails-delays-itself") == {"completed": 3}
    expected = {queue: {name: since(queue, name) for name in after[queue]} for queue in after}

    def right() -> bool:
        counted: Truth = {queue: dict(names) for queue, names in reported(exporter).items()}
        # Removed as soon as they were completed: nobody could read their names.
        unknown = counted.setdefault("failed", {}).pop(UNKNOWN, {}).get("completed", 0)
        known = counted["failed"].setdefault("fails-first", {})
        known["completed"] = known.get("completed", 0) + unknown
        assert counted == expected
        return True

    eventually(right)


@VERSIONS
def test_a_failed_job_that_is_retried_while_the_exporter_is_away_keeps_its_name_and_is_no_retry(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
    version: str,
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    exporter = start_exporter(server.url, **state)
    work = start_work(version, server.port)
    work.work("q")
    work.add("q", "fails-first", 50, {**ONCE, **REMOVED})
    work.add("q", "fails-first", 5, {"attempts": 2, **REMOVED})
    assert_counted(exporter, work.settle())
    assert exporter.terminate() == 0
    work.retryAll("q", "failed")
    truth = work.settle()
    assert truth["q"] == {
        "fails-first": {
            "added": 55, "retried": 5, "failed": 50, "retries_exhausted": 50, "completed": 55
        }
    }  # fmt: skip
    assert_counted(start_exporter(server.url, **state), truth)

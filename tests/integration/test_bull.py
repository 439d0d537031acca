"""What is reported of Bull's queues is what Bull itself says, for each version and server."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.bullmq import History, StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.job_counts import expected_counts, reported_counts
from tests.support.servers import Server
from tests.support.truth import assert_truth_is_reported
from tests.support.waiting import eventually

MakeHistory = Callable[..., History]

VERSIONS = ("bull3", "bull4")


@pytest.mark.parametrize("version", VERSIONS)
def test_every_count_and_every_job_is_what_bull_says(
    any_server: Server, start_exporter: StartExporter, history: MakeHistory, version: str
) -> None:
    queue = f"history-{version}"
    made = history(version, any_server.port, queue)
    exporter = start_exporter(any_server.url)

    assert_truth_is_reported(exporter, queue, made.truth, paused=False)
    assert_truth_is_reported(exporter, queue, made.run("pause"), paused=True)
    assert_truth_is_reported(exporter, queue, made.run("resume"), paused=False)
    assert exporter.metrics.value("bullmq_queue_info", queue=queue, version="bull") == 1
    assert exporter.metrics.value("bullmq_exporter_unwatched_queues", reason="bull") == 0


def test_queues_that_are_named_are_read_as_bulls(
    server: Server, start_exporter: StartExporter, history: MakeHistory
) -> None:
    made = history("bull4", server.port, "jobs")
    exporter = start_exporter(server.url, "--queues", "jobs")
    assert_truth_is_reported(exporter, "jobs", made.truth, paused=False)
    made.run("pause")
    # Before Bull 3.22 this is all that shows it.
    with server.client() as client:
        client.delete("bull:jobs:meta")
    assert_truth_is_reported(exporter, "jobs", made.truth, paused=True)
    assert_truth_is_reported(exporter, "jobs", made.run("resume"), paused=False)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("oldest", [0, 1, 5, 9])
def test_the_oldest_waiting_job_is_found_whatever_its_priority(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    version: str,
    oldest: int,
) -> None:
    now = int(1000 * time.time())
    # 0 is no priority: such jobs come last.
    jobs = [
        {"name": "send", "data": {}, "opts": {"priority": priority, "timestamp": now - 1000 * age}}
        for priority in (5, 1, 0, 9, 1, 0, 5, 9)
        for age in (60 + priority,)
    ]
    longest = {"priority": oldest, "timestamp": now - 7_200_000}
    work = start_work(version, server.port)
    work.addJobs("jobs", [{"name": "send", "data": {}, "opts": longest}, *jobs])
    exporter = start_exporter(server.url)
    eventually(lambda: reported_counts(exporter, "jobs")["waiting"] == 9)
    value = exporter.metrics.value("bullmq_queue_oldest_waiting_timestamp_seconds", queue="jobs")
    assert value == (now - 7_200_000) / 1000


def test_a_failed_attempt_waits_since_the_end_of_its_backoff(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    options = {"attempts": 3, "backoff": {"type": "exponential", "delay": 40}}
    work = start_work("bull4", server.port)
    work.add("jobs", "fails", 1, options)
    work.work("jobs", {"settings": {"lockDuration": 1000}})
    eventually(lambda: work.truth()["jobs"]["fails"].get("failed"))
    work.close()
    # As after its second attempt: due after (2² - 1) × 40 ms (backoffs.js).
    with server.client() as client:
        client.zrem("bull:jobs:failed", "1")
        client.hset("bull:jobs:1", mapping={"attemptsMade": 2, "processedOn": 1_700_000_000_000})
        client.hdel("bull:jobs:1", "finishedOn")
        client.lpush("bull:jobs:wait", "1")
    exporter = start_exporter(server.url)
    oldest = "bullmq_queue_oldest_waiting_timestamp_seconds"
    eventually(lambda: exporter.metrics.value(oldest, queue="jobs") == 1_700_000_000.12)


@pytest.mark.parametrize("version", VERSIONS)
def test_repeatable_jobs_are_schedulers(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    hour, end = 3_600_000, int(1000 * time.time()) + 86_400_000
    every = {"every": hour, "jobId": "nightly", "endDate": end}
    cron = {"cron": "0 4 * * 1", "tz": "Europe/Berlin", "limit": 9}
    work = start_work(version, server.port)
    work.call("jobs", "add", "sync", {"source": 1}, {"repeat": every})
    work.call("jobs", "add", "report", {}, {"repeat": cron})
    work.call("jobs", "add", "report", {}, {"repeat": {**cron, "cron": "0 5 * * 1"}})
    work.call("jobs", "add", "beat", {}, {"repeat": {"every": 300}, "removeOnComplete": True})
    exporter = start_exporter(server.url, EXPORTER_DISCOVERY_INTERVAL="1")
    eventually(lambda: exporter.metrics.value("bullmq_queue_schedulers", queue="jobs") == 4)
    found = {
        each["name"]: each
        for each in exporter.api.get("/v1/jobs/queues/jobs/schedulers").json["schedulers"]
    }
    sync, report = found["sync"], found["report"]
    assert (sync["every"], sync["pattern"], sync["tz"]) == (hour, None, None)
    assert sync["endDate"] == end
    assert sync["nextRun"] % hour == 0
    assert (report["pattern"], report["tz"], report["limit"]) == (
        "0 5 * * 1",
        "Europe/Berlin",
        9,
    ) or report["pattern"] == "0 4 * * 1"
    assert report["lastRun"] is None
    duplicates = "bullmq_queue_duplicate_schedulers"
    eventually(lambda: exporter.metrics.value(duplicates, queue="jobs") == 1)

    work.work("jobs")
    ran = "bullmq_scheduler_last_run_timestamp_seconds"
    eventually(lambda: ran_of(exporter, ran, "beat"))


def ran_of(exporter: Exporter, name: str, scheduler: str) -> float | None:
    samples = exporter.metrics.samples(name, queue="jobs")
    return next((at for labels, at in samples.items() if labels[0].startswith(scheduler)), None)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_queue_at_rest_is_there_until_it_is_obliterated(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    # As n8n has it.
    work.add("jobs", "ok", 3, {"removeOnComplete": True, "removeOnFail": True})
    work.work("jobs")
    work.settle()
    exporter = start_exporter(server.url, EXPORTER_DISCOVERY_INTERVAL="0.2")
    assert sum(reported_counts(exporter, "jobs").values()) == 0
    empty = exporter.api.get("/v1/jobs/queues/jobs?status=failed")
    assert (empty.status, empty.json["jobs"]) == (200, [])
    for paused, method in ((1, "pause"), (0, "resume"), (1, "pause")):
        work.call("jobs", method)
        eventually(
            lambda paused=paused: (
                exporter.metrics.value("bullmq_queue_paused", queue="jobs") == paused
            )
        )
    polled = exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
    assert polled is not None
    eventually(
        lambda: exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count") > polled
    )
    assert not exporter.lines("queues are gone")
    work.call("jobs", "obliterate", {"force": True})
    eventually(lambda: exporter.metrics.value("bullmq_queue_paused", queue="jobs") is None)
    eventually(lambda: exporter.lines("queues are gone"))
    assert exporter.api.get("/v1/jobs/queues/jobs?status=failed").status == 404


def test_one_job_is_answered_with_its_logs_progress_and_stalls(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bull4", server.port)
    work.addJobs("jobs", [{"name": "logs", "data": {"lines": 3}, "opts": {"priority": 4}}])
    work.work("jobs")
    work.settle()
    with server.client() as client:
        client.hset("bull:jobs:1", "stalledCounter", 2)
    exporter = start_exporter(server.url)
    job = eventually(
        lambda: (
            (got := exporter.api.get("/v1/jobs/queues/jobs/jobs/1")).status == 200
            and got.json["job"]
        )
    )
    assert (job["state"], job["failedReason"]) == ("failed", "in the middle")
    assert job["logs"]["lines"] == ["line 1", "line 2", "line 3"]
    assert (job["priority"], job["stalledCount"]) == (4, 2)
    assert job["progress"]["done"] == 40
    [group] = exporter.api.get("/v1/jobs/queues/jobs/failures").json["groups"]
    assert (group["reason"], group["count"]) == ("in the middle", 1)


def test_queues_of_bull_and_of_bullmq_in_one_redis_are_each_read_as_what_they_are(
    server: Server, start_exporter: StartExporter, history: MakeHistory, start_work: StartWork
) -> None:
    made = {
        (prefix, version): history(version, server.port, version, prefix)
        for prefix in ("bull", "{tenant}")
        for version in ("bull4", "bullmq5", "bullmq6")
    }
    other = start_work("bull4", server.port)
    other.work("both")
    other.add("both", "ok", 3)
    other.settle()
    other.close()
    start_work("bullmq5", server.port).add("both", "ok", 2)
    exporter = start_exporter(server.url, "--prefix", "bull,{tenant}")
    for (prefix, version), of_version in made.items():
        counts = expected_counts(of_version.truth, paused=False)
        eventually(
            lambda prefix=prefix, version=version, counts=counts: (
                reported_counts(exporter, version, prefix=prefix) == counts
            )
        )
        [info] = [
            sample.labels["version"]
            for sample in exporter.metrics.families()["bullmq_queue_info"].samples
            if (sample.labels["queue"], sample.labels["prefix"]) == (version, prefix)
        ]
        assert info.startswith("bullmq:") is (version != "bull4"), info
    # One name for two: BullMQ's, and that is logged.
    both = reported_counts(exporter, "both", prefix="bull")
    assert (both["waiting"], both["completed"]) == (2, 3)
    [line] = exporter.lines("queues are used by Bull and by BullMQ")
    assert line["detail"].startswith("both; reported as BullMQ's")


def test_a_setting_leaves_the_queues_of_bull_out(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bull4", server.port)
    work.add("jobs", "ok", 1)
    exporter = start_exporter(server.url, EXPORTER_BULL="false")
    unwatched = "bullmq_exporter_unwatched_queues"
    eventually(lambda: exporter.metrics.value(unwatched, reason="bull") == 1)
    assert exporter.metrics.samples("bullmq_job_count", queue="jobs") == {}
    [line] = exporter.lines("queues of Bull 3 or 4 are not watched")
    assert line["detail"] == "jobs; see bull (EXPORTER_BULL)"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_repeatable_job_that_has_run_for_the_last_time_is_not_overdue(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    # Two hours ago.
    work = start_work(version, server.port, clock="-2h")
    ends = {"repeat": {"every": 200, "limit": 2}}
    work.call("jobs", "add", "ends", {}, ends)
    work.call("jobs", "add", "dies", {}, {"repeat": {"every": 200}})
    work.work("jobs")
    eventually(lambda: work.truth().get("jobs", {}).get("ends", {}).get("completed") == 2)
    work.close()
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.metrics.value("bullmq_queue_schedulers", queue="jobs") == 2)
    next_run = "bullmq_scheduler_next_run_timestamp_seconds"
    assert ran_of(exporter, next_run, "ends") is None
    overdue = ran_of(exporter, next_run, "dies")
    assert overdue is not None
    assert overdue < time.time() - 7000
    found = exporter.api.get("/v1/jobs/queues/jobs/schedulers").json["schedulers"]
    assert {each["name"]: (each["ended"], each["overdue"]) for each in found} == {
        "ends": (True, False),
        "dies": (False, True),
    }

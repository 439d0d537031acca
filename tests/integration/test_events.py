"""Counters and durations are what really happened: real BullMQ workers, real servers."""

from __future__ import annotations

import asyncio
import json
import math
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from bullmq import Queue, Worker
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.queues.queue_event_counter import CLOCK_SKEW_MS
from tests.support.bullmq import StartWork
from tests.support.counters import Truth, assert_counted, reported, total, wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.programs import faked_time
from tests.support.prometheus import StartPrometheus
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])


def assert_every_end_has_a_duration(exporter: Exporter) -> None:
    ended = total(exporter, "bullmq_job_completed_total") + total(
        exporter, "bullmq_job_failed_total"
    )
    assert total(exporter, "bullmq_job_process_duration_seconds_count") == ended


@VERSIONS
def test_the_counters_are_what_the_workers_wrote_down(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    exporter = start_exporter(server.url)
    retries = {"attempts": 3}
    backoff = {"attempts": 3, "backoff": {"type": "fixed", "delay": 30}}

    # Its worker is killed with five jobs in hand.
    killed = start_work(version, server.port)
    killed.add("indexing", "stalls", 5, backoff)
    # Its locks end when it is dead, not because a busy machine did not let it renew them.
    killed.work("indexing", {"concurrency": 5, "lockDuration": 600_000})
    with server.client() as client:
        eventually(lambda: client.llen("bull:indexing:active") == 5)
        killed.close()
        assert client.delete(*client.keys("bull:indexing:*:lock")) == 5

    work = start_work(version, server.port)
    for queue, keep in (
        ("ingestion", {"removeOnComplete": True}),
        ("indexing", {"removeOnFail": 50}),
        ("deletion", {}),
    ):
        work.add(queue, "plain", 1100, keep)
        work.add(queue, "fails", 150, {**retries, **keep})
        work.add(queue, "fails", 50, {**backoff, **keep, "priority": 7})
        work.add(queue, "fails-first", 150, {**retries, **keep})
        work.add(queue, "fails-first", 150, {**backoff, **keep, "delay": 20})
        work.add(queue, "unrecoverable", 50, {**retries, **keep})
        work.add(queue, "delays-itself", 15, {**retries, **keep, "removeOnComplete": False})
    # Of those that are removed at once nothing shows that they were no failed attempts.
    work.add("deletion", "rate-limits", 1, retries)
    for queue in ("ingestion", "indexing", "deletion"):
        options = {"concurrency": 20, "lockDuration": 30_000, "stalledInterval": 200}
        work.work(queue, {**options, "maxStalledCount": 3})
    truth: Truth = work.settle()
    truth["indexing"]["stalls"] |= {"added": 5, "stalled": 5}
    assert sum(of["added"] for of_queue in truth.values() for of in of_queue.values()) == 5001

    assert_counted(exporter, truth)
    assert_every_end_has_a_duration(exporter)
    taken = total(exporter, "bullmq_job_wait_duration_seconds_count")
    # Each attempt waited; so did those that came to nothing: stalled, delayed, rate limited.
    ends = sum(
        of.get(what, 0)
        for of_queue in truth.values()
        for of in of_queue.values()
        for what in ("completed", "failed", "retried", "stalled")
    )
    assert taken == ends + 3 * 15 + 1
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert exporter.metrics.value("bullmq_exporter_tracked_jobs") == 0
    assert exporter.log.count('"level": "warning"') == 0


async def test_jobs_of_the_python_client_are_counted_as_they_ended(
    any_server: Server, start_exporter: StartExporter
) -> None:
    options = {"connection": {"host": "127.0.0.1", "port": any_server.port}}
    queue = Queue("counted-from-python", options)
    ends: Counter[tuple[str, str]] = Counter()

    async def work(job: Any, _: str) -> None:
        if job.name == "fails" or (job.name == "fails-first" and not job.attemptsMade):
            raise ValueError("no mailbox")

    exporter = wait_following(start_exporter(any_server.url))
    worker = Worker("counted-from-python", work, {**options, "concurrency": 3})
    worker.on("completed", lambda job, _: ends.update([(job.name, "completed")]))
    try:
        for i in range(30):
            name = ("fails", "fails-first", "works")[i % 3]
            backoff = {"backoff": {"type": "fixed", "delay": 10}} if i % 2 else {}
            await queue.add(name, {"i": i}, {"attempts": 2, **backoff})
        # The worker hears of an end after it is in Redis.
        for _ in range(9000):
            if ends.total() == 20 and (await queue.getJobCounts("failed"))["failed"] == 10:
                break
            await asyncio.sleep(0.02)
    finally:
        await worker.close(force=True)
        await queue.close()
    assert ends == {("works", "completed"): 10, ("fails-first", "completed"): 10}

    def right() -> bool:
        assert reported(exporter).get("counted-from-python") == {
            "works": {"added": 10, "completed": 10},
            "fails-first": {"added": 10, "retried": 10, "completed": 10},
            "fails": {"added": 10, "retried": 10, "failed": 10, "retries_exhausted": 10},
        }
        return True

    await asyncio.to_thread(eventually, right)


def test_durations_fall_into_the_buckets_they_belong_to(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    exporter = start_exporter(server.url)
    work.add("ingestion", "sleeps-600", 4)
    work.add("ingestion", "plain", 4, {"delay": 1100})
    work.work("ingestion", {"concurrency": 8})
    work.settle()

    def buckets(metric: str, name: str) -> dict[float, float]:
        found = exporter.metrics.samples(f"{metric}_bucket", queue="ingestion", name=name)
        return {float(bound): count for (bound,), count in found.items()}

    def assert_durations(metric: str, name: str, true: list[int]) -> None:
        """`true` ones are in ms."""
        eventually(lambda: buckets(metric, name).get(math.inf) == 4)
        for bound, count in buckets(metric, name).items():
            assert count == sum(each <= bound * 1000 for each in true), bound
        seconds = exporter.metrics.value(f"{metric}_sum", queue="ingestion", name=name)
        assert seconds == pytest.approx(sum(true) / 1000)

    with server.client() as client:
        at = {
            (fields[b"event"], fields.get(b"prev"), int(fields[b"jobId"])): int(
                entry.split(b"-")[0]
            )
            for entry, fields in client.xrange("bull:ingestion:events")
            if b"jobId" in fields
        }
    # Jobs have the numbers that BullMQ gives them: 1 to 4 sleep, 5 to 8 are delayed.
    worked = [
        at[b"completed", b"active", job] - at[b"active", b"waiting", job] for job in range(1, 5)
    ]
    assert all(590 < each < 60_000 for each in worked), worked
    assert_durations("bullmq_job_process_duration_seconds", "sleeps-600", worked)
    # A delay is no wait: it begins when the job could be taken.
    waited = [
        at[b"active", b"waiting", job] - at[b"waiting", b"delayed", job] for job in range(5, 9)
    ]
    assert_durations("bullmq_job_wait_duration_seconds", "plain", waited)


@VERSIONS
def test_a_killed_exporter_goes_on_where_it_was_and_counts_what_happened_meanwhile(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
    version: str,
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    work = start_work(version, server.port)
    keep = {"attempts": 2, "backoff": {"type": "fixed", "delay": 20}}

    def add_some() -> None:
        for queue, options in (("ingestion", keep), ("indexing", {**keep, "removeOnFail": True})):
            work.add(queue, "plain", 100, {"removeOnComplete": True})
            work.add(queue, "fails", 30, options)
            work.add(queue, "fails-first", 30, options)
            work.add(queue, "sleeps-600", 20, {"removeOnComplete": True})

    exporter = start_exporter(server.url, **state)
    work.work("ingestion", {"concurrency": 10})
    work.work("indexing", {"concurrency": 10})
    for _ in range(3):
        add_some()
        time.sleep(1.2)
        before = reported(exporter)
        exporter.process.kill()
        exporter.process.wait()
        add_some()
        time.sleep(0.5)
        exporter = start_exporter(server.url, **state)
        after: Truth = eventually(lambda: reported(exporter))  # noqa: B023
        for queue, names in before.items():
            for name, counts in names.items():
                for what, count in counts.items():
                    assert after[queue][name][what] >= count, (queue, name, what)
    truth = work.settle()
    assert_counted(exporter, truth)
    assert_every_end_has_a_duration(exporter)
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert exporter.terminate() == 0

    # An end that is no kill loses nothing either, nor does one without anything to do.
    exporter = start_exporter(server.url, **state)
    assert_counted(exporter, truth)


@VERSIONS
def test_what_finished_in_queues_that_went_is_counted_once(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
    version: str,
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}

    def removed(exporter: Exporter) -> dict[tuple[str, ...], float]:
        return exporter.metrics.samples("bullmq_removed_queues_jobs_total")

    work = start_work(version, server.port)

    def finish(queue: str, completing: int, failing: int) -> None:
        work.add(queue, "plain", completing)
        work.add(queue, "fails", failing)
        work.settle()

    def obliterate(queue: str) -> None:
        work.call(queue, "obliterate", {"force": True})

    exporter = wait_following(start_exporter(server.url, **state))
    assert removed(exporter) == {("completed",): 0, ("failed",): 0}
    completed = "bullmq_job_completed_total"
    for queue in ("tenant", "other"):
        work.work(queue, {"concurrency": 10})
    finish("tenant", 20, 5)
    eventually(lambda: total(exporter, completed) == 20)
    assert removed(exporter) == {("completed",): 0, ("failed",): 0}
    obliterate("tenant")
    eventually(lambda: removed(exporter) == {("completed",): 20, ("failed",): 5})
    # Its own series go on where they were; of these, what is new is counted when it goes again.
    finish("tenant", 3, 0)
    eventually(lambda: total(exporter, completed) == 23)
    obliterate("tenant")
    eventually(lambda: removed(exporter) == {("completed",): 23, ("failed",): 5})
    # One that goes while nobody looks.
    finish("other", 4, 1)
    eventually(lambda: total(exporter, completed) == 4)
    assert exporter.terminate() == 0
    work.close()  # a living worker writes `meta` anew
    with server.client() as client:
        client.delete(*client.keys("bull:other:*"))
    for _ in range(2):
        exporter = wait_following(start_exporter(server.url, **state))
        eventually(lambda: removed(exporter) == {("completed",): 27, ("failed",): 6})  # noqa: B023
        assert exporter.terminate() == 0


def test_a_queue_that_appears_shortly_before_a_restart_is_counted_after_it(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    state = {
        "EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state"),
        "EXPORTER_DISCOVERY_INTERVAL": "3600",
    }
    with server.client() as client:
        client.hset("bull:old:meta", "version", "bullmq:5.56.3")
    exporter = wait_following(start_exporter(server.url, **state))
    truth: Truth = {}
    for version in ("bullmq5", "bullmq6"):
        work = start_work(version, server.port)
        work.add(version, "plain", 80)
        work.add(version, "fails", 20)
        work.work(version, {"concurrency": 20})
        truth |= work.settle()
    time.sleep(2 * CLOCK_SKEW_MS / 1000)  # all of it is over well before the end
    assert exporter.terminate() == 0
    exporter = start_exporter(server.url, **state)
    assert_counted(exporter, truth)
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert '"level": "warning"' not in exporter.log


def test_a_host_an_hour_ahead_loses_no_failures_at_a_restart(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    """It is right again at the restart."""
    state = {
        "EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state"),
        "EXPORTER_DISCOVERY_INTERVAL": "3600",
    }
    work = start_work("bullmq5", server.port)
    work.work("old")
    exporter = wait_following(start_exporter(server.url, **state, **faked_time("+1h")))
    work.add("old", "plain", 1)
    eventually(lambda: total(exporter, "bullmq_job_completed_total") == 1)
    work.work("new")
    work.add("new", "fails", 50)
    truth = work.settle()
    assert exporter.terminate() == 0
    exporter = start_exporter(server.url, **state)
    assert_counted(exporter, truth)
    for unknown in ("bullmq_exporter_events_missed_total", "bullmq_exporter_uncertain_gaps_total"):
        assert total(exporter, unknown) == 0


def test_without_a_state_file_counters_begin_at_zero_with_what_happens_from_now_on(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    work.add("ingestion", "plain", 5)
    work.add("ingestion", "fails", 5)
    with server.client() as client:  # a job whose name nobody knows
        client.lpush("bull:ingestion:wait", "nobody-knows")
        client.hset("bull:ingestion:nobody-knows", "data", "{}")
    exporter = start_exporter(server.url)
    wait_following(exporter)
    work.work("ingestion", {"concurrency": 1})
    expected = {"plain": {"completed": 5}, "fails": {"failed": 5, "retries_exhausted": 5}}

    def right() -> bool:
        of_queue = dict(reported(exporter).get("ingestion", {}))
        assert of_queue.pop("__unknown__", None) == {"completed": 1}
        return of_queue == expected

    eventually(right)


@VERSIONS
def test_failures_that_were_trimmed_unread_are_counted_by_what_is_kept(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    exporter = start_exporter(server.url)
    work = start_work(version, server.port)
    work.work("ingestion", {"concurrency": 10})
    work.add("ingestion", "plain", 40)
    work.add("ingestion", "fails", 20)
    assert_counted(exporter, work.settle())

    exporter.process.send_signal(signal.SIGSTOP)
    work.add("ingestion", "plain", 200, {"removeOnComplete": 1000})
    work.add("ingestion", "fails", 120, {"attempts": 2, "removeOnFail": 5000})
    work.settle()
    with server.client() as client:
        client.xtrim("bull:ingestion:events", maxlen=0, approximate=False)
    exporter.process.send_signal(signal.SIGCONT)
    work.add("ingestion", "plain", 30)
    work.add("ingestion", "fails", 10)
    truth = work.settle()["ingestion"]

    def right() -> bool:
        now = reported(exporter).get("ingestion", {})  # none while Redis has not answered in time
        for name in ("plain", "fails"):
            for what in ("completed", "failed"):
                assert now.get(name, {}).get(what) == truth[name].get(what), (name, what)
        return True

    eventually(right)
    missed = exporter.metrics.value("bullmq_exporter_events_missed_total", queue="ingestion")
    # Each job had at least four: added, waiting, active, completed or failed.
    assert missed and missed >= 4 * 320
    time.sleep(6)  # a further check, and nothing is mended twice
    assert right()
    [line] = eventually(lambda: exporter.lines("events were missed"))
    assert line["count"] == missed
    mended = exporter.lines("missed jobs are counted, as far as they are kept")
    assert sorted((line["what"], line["count"]) for line in mended) == [
        ("COMPLETED", 200),
        ("FAILED", 120),
    ]


def test_what_was_trimmed_while_the_exporter_was_down_is_missed_and_failures_are_counted_once(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    exporter = start_exporter(server.url, **state)
    work = start_work("bullmq5", server.port)
    work.work("ingestion", {"concurrency": 10})
    work.add("ingestion", "fails", 20)
    assert_counted(exporter, work.settle())
    exporter.terminate()
    work.add("ingestion", "fails", 300)
    work.settle()
    with server.client() as client:
        client.xtrim("bull:ingestion:events", maxlen=100, approximate=False)
    exporter = start_exporter(server.url, **state)

    def failed() -> float | None:
        return exporter.metrics.value("bullmq_job_failed_total", queue="ingestion", name="fails")

    eventually(lambda: failed() == 320)
    missed = exporter.metrics.value("bullmq_exporter_events_missed_total", queue="ingestion")
    # Five events each (with `retries-exhausted`), and a `drained` now and then.
    assert missed and 5 * 300 - 100 <= missed <= 6 * 300

    # Prometheus knows these series: a restart shows them as they were.
    assert exporter.terminate() == 0
    exporter = wait_following(start_exporter(server.url, **state))
    assert (
        exporter.metrics.value("bullmq_exporter_events_missed_total", queue="ingestion") == missed
    )
    assert failed() == 320


@VERSIONS
def test_what_a_stream_that_is_deleted_under_load_leaves_unknown_is_said(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    exporter = wait_following(start_exporter(server.url))
    uncertain = partial(exporter.metrics.value, "bullmq_exporter_uncertain_gaps_total")
    assert uncertain() == 0
    work = start_work(version, server.port)
    work.work("ingestion", {"concurrency": 10})
    work.add("ingestion", "plain", 50)
    eventually(lambda: total(exporter, "bullmq_job_completed_total"))
    with server.client() as client:
        for deleted in range(1, 3):
            work.add("ingestion", "plain", 300)
            client.delete("bull:ingestion:events")
            work.add("ingestion", "plain", 300)
            eventually(lambda: uncertain() == deleted)  # noqa: B023
    truth = work.settle()["ingestion"]["plain"]["completed"]
    # What was read of each stream is counted, and nothing of it twice.
    assert 0 < total(exporter, "bullmq_job_completed_total") <= truth


@VERSIONS
def test_emptied_and_obliterated_queues_are_counted_on(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    exporter = start_exporter(server.url)
    work = start_work(version, server.port)
    work.add("ingestion", "plain", 30)
    work.work("indexing")
    work.add("indexing", "plain", 10)
    eventually(lambda: reported(exporter).get("ingestion") == {"plain": {"added": 30}})
    work.call("ingestion", "obliterate", {"force": True})
    work.add("ingestion", "plain", 7)

    def added(queue: str) -> float | None:
        return exporter.metrics.value("bullmq_job_added_total", queue=queue, name="plain")

    eventually(lambda: added("ingestion") == 37)
    with server.client() as client:
        client.flushall()
    eventually(lambda: added("ingestion") is None)
    fresh = start_work(version, server.port)
    fresh.add("ingestion", "plain", 5)
    fresh.work("ingestion")
    # It goes on where it was: Prometheus, which saw 37, sees an increase of 5.
    eventually(lambda: added("ingestion") == 42)
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert "Traceback" not in exporter.log


def test_prometheus_sees_the_first_failures_as_an_increase_and_goes_from_a_spike_to_the_job(
    server: Server,
    start_exporter: StartExporter,
    start_work: StartWork,
    scrape: StartPrometheus,
) -> None:
    exporter = start_exporter(server.url)
    prometheus = scrape(exporter)
    eventually(lambda: prometheus.query("bullmq_up"))
    work = start_work("bullmq5", server.port)
    work.work("ingestion")
    work.add("ingestion", "fails", 4)
    work.add("ingestion", "sleeps-600", 1)
    work.settle()

    failed = "bullmq_job_failed_total{name='fails'}[1m]"
    spike = f"max_over_time({failed}) - min_over_time({failed})"
    eventually(lambda: [float(row["value"][1]) for row in prometheus.query(spike)] == [4])

    def exemplars(series: str) -> set[str]:
        now = time.time()
        rows = prometheus.get("query_exemplars", query=series, start=now - 300, end=now + 60)
        return {exemplar["labels"]["job_key"] for row in rows for exemplar in row["exemplars"]}

    eventually(lambda: "bull:ingestion:4" in exemplars("bullmq_job_failed_total"))
    durations = "bullmq_job_process_duration_seconds_bucket"
    eventually(lambda: "bull:ingestion:5" in exemplars(durations))


def test_exemplars_are_valid_openmetrics_and_stay_within_their_length(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = start_exporter(server.url)
    work = start_work("bullmq6", server.port)
    work.work("ingestion")
    work.add("ingestion", "fails", 1, {"jobId": "odd \\ id 1"})
    for queue, job_id in (("indexing", "x" * 200), ("deletion", 'a "quoted" id')):
        work.add(queue, "fails", 1, {"jobId": job_id})
        work.work(queue)
    work.settle()

    def job_keys(queue: str) -> list[str | None]:
        page = exporter.metrics.get("/metrics", Accept="application/openmetrics-text").text
        return [
            sample.exemplar.labels["job_key"] if sample.exemplar else None
            for family in parse_openmetrics(page)
            for sample in family.samples
            if sample.name == "bullmq_job_failed_total"
            and sample.labels["queue"] == queue
            and sample.value == 1
        ]

    eventually(lambda: job_keys("ingestion") == ["bull:ingestion:odd \\ id 1"])
    eventually(lambda: job_keys("indexing") == job_keys("deletion") == [None])
    assert "job_key" not in exporter.metrics.get("/metrics", Accept="text/plain").text


def test_job_names_beyond_the_limit_are_counted_together(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = start_exporter(server.url, EXPORTER_EVENTS_MAX_NAMES="2")
    work = start_work("bullmq5", server.port)
    work.work("ingestion")
    for name in ("one", "two", "three", "four"):
        work.add("ingestion", name, 2)
    work.settle()
    two, four = {"added": 2, "completed": 2}, {"added": 4, "completed": 4}
    assert_counted(exporter, {"ingestion": {"one": two, "two": two, "__other__": four}})


def test_beyond_the_limit_of_tracked_jobs_all_are_counted_all_the_same(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = start_exporter(server.url, EXPORTER_EVENTS_MAX_JOBS="10")
    work = start_work("bullmq6", server.port)
    work.add("ingestion", "plain", 100)
    work.add("ingestion", "fails", 20, {"attempts": 2})
    eventually(lambda: exporter.metrics.value("bullmq_exporter_untracked_jobs_total") == 110)
    assert exporter.metrics.value("bullmq_exporter_tracked_jobs") == 10
    work.work("ingestion", {"concurrency": 3})
    assert_counted(exporter, work.settle())
    assert exporter.metrics.value("bullmq_exporter_tracked_jobs") == 0


def test_a_key_that_is_no_stream_is_left_out_and_said_once(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    work.add("ingestion", "plain", 1)
    with server.client() as client:
        client.hset("bull:broken:meta", "version", "bullmq:5.56.3")
        client.set("bull:broken:events", "no stream")
        exporter = wait_following(start_exporter(server.url))
        work.work("ingestion")
        eventually(lambda: reported(exporter).get("ingestion") == {"plain": {"completed": 1}})
        assert exporter.metrics.value("bullmq_up") == 1
        [line] = eventually(lambda: exporter.lines("events unreadable; skipped"))
        assert line["queue"] == "broken"
        client.delete("bull:broken:events")
    work.add("broken", "plain", 3)
    eventually(lambda: reported(exporter).get("broken"))


def test_without_the_right_to_read_streams_counters_are_absent_and_all_else_is_reported(
    own_server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", own_server.port)
    work.add("ingestion", "plain", 2)
    with own_server.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", "reader", "on", ">a-password", "~*", "+@all", "-xread"
        )
        exporter = start_exporter(f"redis://reader:a-password@127.0.0.1:{own_server.port}")
        [line] = eventually(lambda: exporter.lines("events cannot be followed"))
        assert "XREAD" in line["reason"].upper()
        assert exporter.metrics.value("bullmq_job_count", queue="ingestion", state="waiting") == 2
        assert exporter.metrics.samples("bullmq_job_added_total") == {}
        assert exporter.metrics.value("bullmq_exporter_event_lag_seconds") is None
        assert exporter.metrics.value("bullmq_exporter_events_followed") == 0
        time.sleep(1)
        assert len(exporter.lines("events cannot be followed")) == 1
        admin.execute_command("ACL", "SETUSER", "reader", "+xread")
    work.add("ingestion", "plain", 3)
    eventually(
        lambda: (
            exporter.metrics.value("bullmq_job_added_total", queue="ingestion", name="plain") == 3
        )
    )
    assert exporter.metrics.value("bullmq_exporter_events_followed") == 1


def test_of_each_target_is_reported_whether_its_events_are_followed(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    config = tmp_path / "exporter.yml"
    targets = [
        {"name": "one", "redis": {"port": server.port}},
        {"name": "away", "redis": {"port": 1}},
    ]
    config.write_text(json.dumps({"targets": targets}))
    exporter = start_exporter("", f"--config={config}")

    def followed() -> dict[str, float]:
        reported = exporter.metrics.samples("bullmq_exporter_events_followed")
        return {target: value for (target,), value in reported.items()}

    eventually(lambda: followed().get("one") == 1)
    assert followed() == {"one": 1, "away": 0}
    assert exporter.terminate() == 0
    exporter = start_exporter("", f"--config={config}", EXPORTER_EVENTS_ENABLED="false")
    assert followed() == {}


def test_a_state_file_that_is_none_is_said_and_counting_begins_anew(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"no state at all")
    exporter = start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(path))
    [line] = eventually(
        lambda: exporter.lines("the state file cannot be used: counters start over")
    )
    assert str(path) in line["reason"]
    work = start_work("bullmq5", server.port)
    work.add("ingestion", "plain", 2)
    assert_counted(exporter, {"ingestion": {"plain": {"added": 2}}})
    assert (tmp_path / "state.unusable").read_bytes() == b"no state at all"


def test_a_restart_of_redis_with_its_data_loses_and_doubles_nothing(
    own_server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = start_exporter(own_server.url)
    work = start_work("bullmq5", own_server.port)
    work.add("ingestion", "plain", 50)
    work.work("ingestion")
    truth = work.settle()
    assert_counted(exporter, truth)
    own_server.stop()
    eventually(lambda: exporter.metrics.value("bullmq_up") == 0)
    assert exporter.metrics.samples("bullmq_job_completed_total") == {}
    own_server.start()
    work.add("ingestion", "plain", 20)
    assert_counted(exporter, work.settle())
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert exporter.metrics.value("bullmq_up") == 1

"""Counters of Bull's queues beside those of BullMQ, over outages, restarts and without rights."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from exporter.queues.queue_event_counter import CLOCK_SKEW_MS
from tests.support.bullmq import BULL, StartWork
from tests.support.counters import Truth, assert_counted, reported, total, wait_following
from tests.support.exporters import Exporter, StartExporter, run_exporter
from tests.support.readme import in_6_2, readme_acl
from tests.support.servers import SERVERS, Server, running
from tests.support.waiting import eventually

UNHEARD = "bullmq_exporter_bull_unheard_seconds_total"
FOLLOWED = "bullmq_exporter_events_followed"


def with_exhausted(truth: Truth) -> Truth:
    """What the workers do not say: every job that failed has used up its attempts."""
    return {
        queue: {
            name: counts | ({"retries_exhausted": counts["failed"]} if "failed" in counts else {})
            for name, counts in names.items()
        }
        for queue, names in truth.items()
    }


def wait_hearing(exporter: Exporter, *queues: str) -> Exporter:
    """What happens in these queues is heard from then on."""
    wait_following(exporter)
    missed = "bullmq_exporter_events_missed_total"
    for queue in queues:
        eventually(lambda queue=queue: exporter.metrics.samples(missed, queue=queue))
    return exporter


def completed(exporter: Exporter, name: str = "initial-import") -> float:
    return total(exporter, "bullmq_job_completed_total", name=name)


@pytest.mark.parametrize("kind", SERVERS)
def test_without_the_right_to_hear_channels_only_counters_of_bull_are_absent(
    kind: str, tmp_path: Path, start_exporter: StartExporter, start_work: StartWork
) -> None:
    with running(kind, tmp_path) as server, server.client() as admin:
        line = readme_acl("a-password")
        line = in_6_2(line) if kind == "redis-6.2" else line
        assert {"+psubscribe", "&bull:*"} < set(line)
        admin.execute_command(*(word for word in line if word != "&bull:*"))
        bull, bullmq = start_work("bull4", server.port), start_work("bullmq5", server.port)
        for queue, work in (("jobs", bull), ("ingestion", bullmq)):
            work.work(queue)
            work.add(queue, "before", 2)
            work.settle()
        url = f"redis://exporter:a-password@127.0.0.1:{server.port}"
        exporter = start_exporter(url)
        missed = "bullmq_exporter_events_missed_total"
        eventually(lambda: exporter.metrics.samples(missed, queue="ingestion"))
        [refused] = eventually(lambda: exporter.lines("events cannot be followed"))
        assert "ACL SETUSER exporter +psubscribe &bull:*" in refused["reason"]
        checked = run_exporter("--check", "--redis-url", url)
        assert "ACL SETUSER exporter +psubscribe &bull:*" in checked.stdout
        assert exporter.metrics.value(FOLLOWED) == 0
        assert exporter.metrics.samples(missed, queue="jobs") == {}
        count = "bullmq_job_count"
        assert exporter.metrics.value(count, queue="jobs", state="completed") == 2
        bullmq.add("ingestion", "import", 3)
        eventually(lambda: completed(exporter, "import") == 3)
        time.sleep(CLOCK_SKEW_MS / 1000)  # see below
        bull.add("jobs", "initial-import", 3)
        bull.settle()
        # It is tried again; what is kept of those that finished meanwhile is counted.
        admin.execute_command(*line)
        eventually(lambda: completed(exporter) == 3)
        bull.add("jobs", "initial-import", 4)
        eventually(lambda: completed(exporter) == 7)
        assert exporter.metrics.value(FOLLOWED) == 1
        assert completed(exporter, "before") == 0
        assert len(exporter.lines("events cannot be followed")) == 1
        checked = run_exporter("--check", "--redis-url", url)
        assert "cannot be heard" not in checked.stdout


def test_queues_of_both_kinds_in_one_redis_are_counted_once(
    any_server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    with any_server.client() as client:
        client.flushall()
    exporter = start_exporter(
        any_server.url, EXPORTER_PREFIX="bull,other", EXPORTER_EVENTS_STATE_FILE=f"{tmp_path}/state"
    )
    wait_following(exporter)
    assert exporter.metrics.value(UNHEARD) is None
    # Without a queue of Bull nothing is opened or written for it.
    assert not list(tmp_path.glob("state.bull*"))
    works = {
        "bull three": start_work("bull3", any_server.port),
        "bull four": start_work("bull4", any_server.port),
        "elsewhere": start_work("bull4", any_server.port, "other"),
        "bullmq five": start_work("bullmq5", any_server.port),
        "bullmq six": start_work("bullmq6", any_server.port, "other"),
    }
    for queue, work in works.items():
        work.add(queue, "before", 1, {"delay": 3_600_000})
    eventually(lambda: exporter.metrics.value("bullmq_exporter_queues") == 5)
    wait_hearing(exporter, *works)
    for queue, work in works.items():
        work.call(queue, "pause")
        work.add(queue, "initial-import", 20, {"removeOnComplete": True})
        work.add(queue, "fails", 5, {"attempts": 2})
    eventually(lambda: total(exporter, "bullmq_job_added_total", name="initial-import") == 100)
    expected: Truth = {}
    for queue, work in works.items():
        work.work(queue, {"concurrency": 2})
        work.call(queue, "resume")
    for queue, work in works.items():
        eventually(
            lambda queue=queue, work=work: (
                work.truth()[queue]["initial-import"].get("completed") == 20
                and work.truth()[queue]["fails"].get("failed") == 5
            )
        )
        expected |= with_exhausted(work.truth())

    def right() -> bool:
        found = reported(exporter)
        for queue, names in found.items():
            # Those of Bull's queues that were there before were not heard of when they came.
            names.pop("before", None)
            expected[queue].pop("before", None)
        assert found == expected
        return True

    eventually(right)
    reasons = "bullmq_job_failure_reasons_total"
    for queue in works:
        eventually(lambda queue=queue: total(exporter, reasons, queue=queue) == 5)
    assert total(exporter, "bullmq_exporter_events_missed_total") == 0
    assert exporter.metrics.value(FOLLOWED) == 1
    assert exporter.metrics.value(UNHEARD) is not None
    eventually((tmp_path / "state.bull").exists)


@pytest.mark.parametrize("version", BULL)
def test_what_happens_while_nothing_is_heard_is_counted_as_far_as_it_is_kept(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.work("jobs")
    work.add("jobs", "before", 3)
    work.settle()
    exporter = wait_hearing(start_exporter(server.url), "jobs")
    work.add("jobs", "initial-import", 10)
    eventually(lambda: completed(exporter) == 10)
    # What finished earlier may have done so before the exporter began, by another clock.
    time.sleep(CLOCK_SKEW_MS / 1000)
    with server.client() as client:
        for number in (1, 2):
            unheard = exporter.metrics.value(UNHEARD) or 0
            # The connection is lost, and jobs finish before it is there again.
            client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            work.add("jobs", "initial-import", 5)
            eventually(lambda unheard=unheard: (exporter.metrics.value(UNHEARD) or 0) > unheard)
            eventually(lambda number=number: completed(exporter) == 10 + 5 * number)
    work.add("jobs", "initial-import", 1)
    eventually(lambda: completed(exporter) == 21)
    assert completed(exporter, "before") == 0
    assert exporter.metrics.value(FOLLOWED) == 1


def test_a_restart_goes_on_with_the_state_file_and_says_how_long_nothing_was_heard(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    state = {"EXPORTER_EVENTS_STATE_FILE": f"{tmp_path}/state"}
    work = start_work("bull4", server.port)
    work.work("jobs")
    work.add("jobs", "before", 3)
    work.settle()
    exporter = wait_hearing(start_exporter(server.url, **state), "jobs")
    work.add("jobs", "initial-import", 10)
    work.add("jobs", "fails", 4, {"attempts": 2})
    truth = with_exhausted(work.settle())
    del truth["jobs"]["before"]
    assert_counted(exporter, truth)
    unheard = exporter.metrics.value(UNHEARD)
    assert unheard is not None
    time.sleep(CLOCK_SKEW_MS / 1000)  # as above
    assert exporter.terminate() == 0
    # Kept, and so counted; removed at once, and so known to nobody.
    work.add("jobs", "initial-import", 7)
    work.add("jobs", "removed", 5, {"removeOnComplete": True})
    work.settle()
    time.sleep(1)
    exporter = wait_hearing(start_exporter(server.url, **state), "jobs")
    eventually(lambda: completed(exporter) == 17)
    assert (exporter.metrics.value(UNHEARD) or 0) >= unheard + 1
    assert completed(exporter, "removed") == 0
    assert completed(exporter, "before") == 0
    assert total(exporter, "bullmq_job_failed_total", name="fails") == 4
    work.add("jobs", "removed", 5, {"removeOnComplete": True})
    eventually(lambda: total(exporter, "bullmq_job_completed_total") == 17 + 5)


def test_a_new_queue_is_found_as_soon_as_it_is_heard(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bull4", server.port)
    work.work("first")
    work.add("first", "ok", 1)
    exporter = start_exporter(server.url, EXPORTER_DISCOVERY_INTERVAL="3600")
    wait_hearing(exporter, "first")
    work.work("second")
    work.add("second", "before", 1)
    wait_hearing(exporter, "second")
    unheard = exporter.metrics.value(UNHEARD)
    work.add("second", "initial-import", 5, {"removeOnComplete": True})
    work.settle()
    # With the one that came before, which is kept. (On a busy machine others are gone before their
    # names are read.)
    eventually(lambda: total(exporter, "bullmq_job_completed_total", queue="second") == 6)
    assert exporter.metrics.value(UNHEARD) == unheard

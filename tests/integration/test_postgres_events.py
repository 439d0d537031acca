"""Counters of jobs in PostgreSQL, exact in whatever order transactions commit."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg
import psycopg.sql
import pytest

from exporter.queues.queue import Queue
from exporter.queues.tallies import Count, Tallies
from exporter.settings import EventsSettings, PostgresSettings
from exporter.stores.postgres import standby
from exporter.stores.postgres.client import PostgresReader, Row
from exporter.stores.postgres.errors import TooSlow
from exporter.stores.postgres.events import event_reads, follower
from exporter.stores.postgres.events.follower import Follower
from tests.support.bullmq import StartWork, Work
from tests.support.counters import assert_counted, reported, total, wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.postgres import SUPERUSER, Database, PostgresServer, pooled
from tests.support.waiting import eventually

UNCERTAIN = "bullmq_exporter_uncertain_gaps_total"
MISSED = "bullmq_exporter_events_missed_total"


@pytest.fixture
def work(database: Database, start_work: StartWork) -> Work:
    started: Work = start_work("bullmq6", database.url)
    return started


def reader_of(database: Database) -> PostgresReader:
    settings = PostgresSettings(
        host="127.0.0.1",
        port=database.server.port,
        database=database.name,
        user=SUPERUSER,
        tls=False,
    )
    return PostgresReader(settings, connections=1)


def follow(start: StartExporter, url: str, state_file: Path | None = None) -> Exporter:
    variables = {"EXPORTER_EVENTS_STATE_FILE": str(state_file)} if state_file else {}
    return wait_following(start("", "--postgres-url", url, **variables))


def assert_none_in_doubt(exporter: Exporter) -> None:
    assert total(exporter, MISSED) == 0
    assert exporter.metrics.value(UNCERTAIN) == 0


def test_the_counters_are_what_the_workers_wrote_down(
    database: Database, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = follow(start_exporter, database.url)
    retries = {"attempts": 3}
    backoff = {"attempts": 3, "backoff": {"type": "fixed", "delay": 30}}

    # Its worker is killed with five jobs in hand.
    killed = start_work("bullmq6", database.url)
    killed.add("indexing", "stalls", 5, backoff)
    killed.work("indexing", {"concurrency": 5, "lockDuration": 600_000})
    active = "SELECT count(*) FROM job WHERE queue = 'indexing' AND state = 'active'"
    eventually(lambda: database.execute(active) == [(5,)])
    killed.close()
    database.execute("UPDATE job SET locked_until_ms = 1 WHERE state = 'active'")

    work = start_work("bullmq6", database.url)
    for queue, keep in (("ingestion", {"removeOnComplete": True}), ("indexing", {})):
        work.add(queue, "plain", 200, keep)
        work.add(queue, "fails", 20, {**retries, **keep})
        work.add(queue, "fails", 10, {**backoff, **keep, "priority": 7})
        work.add(queue, "fails-first", 20, {**retries, **keep})
        work.add(queue, "fails-first", 20, {**backoff, **keep, "delay": 20})
        work.add(queue, "unrecoverable", 10, {**retries, **keep})
        work.add(queue, "delays-itself", 5, {**retries, "removeOnComplete": False})
    for queue in ("ingestion", "indexing"):
        options = {"concurrency": 10, "lockDuration": 30_000, "stalledInterval": 200}
        work.work(queue, {**options, "maxStalledCount": 3})
    truth = work.settle()
    truth["indexing"]["stalls"] |= {"added": 5, "stalled": 5}
    for of_queue in truth.values():
        # move_to_failed writes `retries-exhausted` for every job that fails for good.
        for of in of_queue.values():
            if "failed" in of:
                of["retries_exhausted"] = of["failed"]

    assert_counted(exporter, truth)
    ended = sum(
        of.get(what, 0)
        for of_queue in truth.values()
        for of in of_queue.values()
        for what in ("completed", "failed")
    )
    assert total(exporter, "bullmq_job_process_duration_seconds_count") == ended
    eventually(lambda: exporter.metrics.value("bullmq_exporter_tracked_jobs") == 0)
    assert_none_in_doubt(exporter)
    reasons = exporter.metrics.samples("bullmq_job_failure_reasons_total", queue="ingestion")
    assert sum(reasons.values()) == sum(of.get("failed", 0) for of in truth["ingestion"].values())
    assert {reason.split()[0] for _, reason in reasons} == {"never", "no"}


class Producers:
    """Adds jobs in transactions of random lengths; knows what was committed, by queue."""

    def __init__(self, database: Database, queues: list[str]) -> None:
        self._url, self._queues = database.url, queues
        self.added: Counter[str] = Counter()
        self._lock = threading.Lock()

    def run(self, seed: int, transactions: int) -> None:
        chance = random.Random(seed)
        with psycopg.connect(self._url, options="-c search_path=bullmq") as connection:
            for number in range(transactions):
                added: Counter[str] = Counter()
                for job in range(chance.randint(1, 4)):
                    queue = chance.choice(self._queues)
                    # With an id of its own: BullMQ takes others from a sequence that it creates
                    # first, and transactions wait for each other.
                    connection.execute(
                        "SELECT add_job(%s, %s, 'send', '{}', '{}', 0, 0, 0, 1, NULL, NULL, NULL,"
                        " NULL, NULL, false)",
                        (queue, f"{seed}-{number}-{job}"),
                    )
                    added[queue] += 1
                    time.sleep(chance.choice((0, 0, 0.01, 0.05, 0.3)))
                if chance.random() < 0.15:
                    connection.rollback()
                    continue
                connection.commit()
                with self._lock:
                    self.added += added

    def run_all(self, number: int, transactions: int) -> None:
        threads = [
            threading.Thread(target=self.run, args=(seed, transactions)) for seed in range(number)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def added(exporter: Exporter) -> dict[str, int]:
    """How many jobs were added, by queue."""
    return {
        queue: number
        for queue, names in reported(exporter).items()
        if (number := names.get("send", {}).get("added"))
    }


@pytest.mark.takes(seconds=20)
def test_transactions_that_commit_out_of_order_are_counted_once(
    database: Database, start_exporter: StartExporter
) -> None:
    """An id is taken long before its transaction commits, when higher ones have been read."""
    producers = Producers(database, [f"queue-{number}" for number in range(5)])
    exporter = follow(start_exporter, database.url)
    producers.run_all(number=12, transactions=12)
    assert producers.added.total() > 100
    eventually(lambda: added(exporter) == producers.added)
    assert_none_in_doubt(exporter)


def test_a_transaction_that_is_open_for_long_is_counted_when_it_commits(
    database: Database, start_exporter: StartExporter, work: Work
) -> None:
    exporter = follow(start_exporter, database.url)
    with psycopg.connect(database.url, options="-c search_path=bullmq") as connection:
        connection.execute(
            "SELECT add_job('mail', 'late', 'send', '{}', '{}', 0, 0, 0, 1, NULL, NULL, NULL,"
            " NULL, NULL, false)"
        )
        for number in range(1, 4):
            work.add("mail", "send", 1, {})
            eventually(lambda number=number: added(exporter) == {"mail": number})
        # Rounds go by, and nothing that was read is read again.
        rounds = exporter.metrics.value("bullmq_exporter_events_read_total")
        work.add("other", "send", 1, {})
        eventually(lambda: added(exporter) == {"mail": 3, "other": 1})
        assert exporter.metrics.value("bullmq_exporter_events_read_total") == rounds + 2
        connection.commit()
    eventually(lambda: added(exporter) == {"mail": 4, "other": 1})
    assert_none_in_doubt(exporter)


def test_a_kill_loses_and_doubles_nothing_with_a_state_file(
    database: Database, start_exporter: StartExporter, work: Work, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    exporter = follow(start_exporter, database.url, state)
    work.add("mail", "send", 5, {})
    eventually(lambda: added(exporter) == {"mail": 5})
    exporter.process.send_signal(signal.SIGKILL)
    exporter.process.wait(60)
    work.add("mail", "send", 7, {"removeOnComplete": True})
    work.work("mail", {})
    work.work("new", {})
    work.add("new", "fails", 2, {"removeOnFail": True})
    truth = work.settle()
    truth["new"]["fails"]["retries_exhausted"] = 2
    again = follow(start_exporter, database.url, state)
    assert_counted(again, truth)
    assert_none_in_doubt(again)


ADDED = """publish_event('mail', 'added', '{"jobId": "x", "name": "send"}')"""


def keep_events(database: Database, number: int) -> None:
    """As `streams: { events: { maxLen } }` of the application's Queue does."""
    database.execute(
        f"INSERT INTO meta VALUES ('mail', 'opts.maxLenEvents', '{number}')"
        f" ON CONFLICT (queue, field) DO UPDATE SET value = '{number}'"
    )


def test_what_was_trimmed_unread_is_said(
    database: Database, start_exporter: StartExporter, work: Work, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    exporter = follow(start_exporter, database.url, state)
    work.add("mail", "send", 5, {})
    work.add("quiet", "send", 1, {})
    eventually(lambda: added(exporter) == {"mail": 5, "quiet": 1})
    assert exporter.terminate() == 0
    keep_events(database, 200)
    database.execute(f"SELECT {ADDED} FROM generate_series(1, 600)")
    work.add("quiet", "send", 1, {})
    [(kept,)] = database.execute(
        "SELECT count(*) FROM event WHERE queue = 'mail' AND event = 'added'"
    )
    assert kept < 600, "nothing was trimmed"
    again = follow(start_exporter, database.url, state)
    # Of `quiet` its first events are still there: nothing of it can be missing.
    eventually(lambda: added(again) == {"mail": 5 + kept, "quiet": 2})
    assert again.metrics.value(UNCERTAIN) == 1
    [line] = again.lines("events were missed")
    assert (line["queue"], line["count"], line["at_least"]) == ("mail", 1, True)
    assert again.metrics.samples(MISSED) == {("mail",): 1, ("quiet",): 0}


@pytest.mark.parametrize("kept", [1, 10])
def test_a_queue_that_keeps_too_few_events_is_named_once_until_it_keeps_enough(
    database: Database, start_exporter: StartExporter, work: Work, kept: int
) -> None:
    work.add("mail", "send", 1, {})
    keep_events(database, kept)
    exporter = follow(start_exporter, database.url)

    def off() -> dict[tuple[str, ...], float]:
        return exporter.metrics.samples("bullmq_queue_events_off")

    def missed() -> float:
        return total(exporter, MISSED)

    assert off() == {}
    for gaps in range(1, 4):
        # More than BullMQ leaves between two deletions, in one transaction.
        database.execute(f"SELECT {ADDED} FROM generate_series(1, 600)")
        eventually(lambda gaps=gaps: missed() == gaps)
    assert off() == {("mail",): 1}
    keep_events(database, 10_000)
    # The exporter looks at it each minute, and when many events have come.
    database.execute(f"SELECT {ADDED} FROM generate_series(1, 100)")
    eventually(lambda: off() == {})
    assert missed() == 3
    assert exporter.terminate() == 0
    what = (
        "the queue keeps too few events to be read; set streams.events.maxLen of its Queue to 10000"
    )
    [line] = exporter.lines(what)
    assert (line["queue"], line["max_len"]) == ("mail", kept)
    assert len(exporter.lines("the queue keeps enough events again")) == 1
    assert not exporter.lines("events were missed")


def test_a_limit_of_0_events_deletes_none(
    database: Database, start_exporter: StartExporter, work: Work
) -> None:
    work.add("mail", "first", 1, {})
    keep_events(database, 0)
    exporter = follow(start_exporter, database.url)
    database.execute(f"SELECT {ADDED} FROM generate_series(1, 11000)")
    eventually(lambda: added(exporter) == {"mail": 11_000})
    assert_none_in_doubt(exporter)
    assert exporter.metrics.samples("bullmq_queue_events_off") == {}


def test_another_log_in_the_place_of_the_old_one_is_counted_by_its_time(
    own_postgres: PostgresServer,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
) -> None:
    """A standby that lags is promoted: what it lacks was counted, and its ids are used again."""
    database = own_postgres.create_database()
    work = start_work("bullmq6", database.url)
    work.add("mail", "send", 5, {})
    state = tmp_path / "state"
    exporter = follow(start_exporter, database.url, state)
    work.add("mail", "send", 3, {})
    eventually(lambda: added(exporter) == {"mail": 3})
    with own_postgres.running_standby() as standby:
        copy = Database(standby, database.name)
        copy.execute("SELECT pg_wal_replay_pause()")
        work.add("mail", "send", 4, {})  # lost with the primary
        eventually(lambda: added(exporter) == {"mail": 7})
        assert exporter.terminate() == 0
        work.close()
        own_postgres.stop(signal.SIGQUIT)
        copy.execute("SELECT pg_wal_replay_resume()")
        copy.execute("SELECT pg_promote()")
        after = start_work("bullmq6", copy.url)
        after.add("mail", "send", 10, {})
        again = follow(start_exporter, copy.url, state)

        def right() -> bool:
            assert added(again) == {"mail": 17}
            return True

        eventually(right)
        assert again.metrics.value(UNCERTAIN) == 1
        after.add("mail", "send", 1, {})
        eventually(lambda: added(again) == {"mail": 18})
        again.terminate()
        after.close()


def test_tables_that_are_made_anew_are_read_from_their_start(
    own_postgres: PostgresServer, start_exporter: StartExporter, start_work: StartWork
) -> None:
    database = own_postgres.create_database()
    work = start_work("bullmq6", database.url)
    exporter = follow(start_exporter, database.url)
    work.add("mail", "send", 5, {})
    eventually(lambda: added(exporter) == {"mail": 5})
    work.close()
    database.execute("DROP SCHEMA bullmq CASCADE")
    again = start_work("bullmq6", database.url)  # which makes the tables
    again.add("mail", "send", 2, {})
    eventually(lambda: added(exporter) == {"mail": 7})
    assert exporter.metrics.value(UNCERTAIN) == 1


async def test_ids_of_a_queue_that_go_back_are_noticed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where somebody restores tables by hand between two reads."""
    queue = Queue.named("bullmq", "mail")
    reader = reader_of(database)
    follows = Follower(reader, EventsSettings(), lambda: (queue,))

    async def tallies_then() -> Tallies:
        for _ in range(3):
            await follows._run_step()
        found = await follows.tallies()
        assert found is not None
        return found

    def added_in(tallies: Tallies) -> int:
        return tallies.queues[queue].by_name["send"].values[Count.ADDED]

    await tallies_then()
    database.execute(f"SELECT {ADDED} FROM generate_series(1, 50)")
    assert added_in(await tallies_then()) == 50
    database.execute(f"DELETE FROM event; SELECT setval('event_seq', 10); SELECT {ADDED}")
    monkeypatch.setattr(follower, "EDGES_INTERVAL_SECONDS", 0.0)
    follows._begin_anew()  # as if the minute were over
    tallies = await tallies_then()
    assert added_in(tallies) == 51
    assert tallies.uncertain_gaps == 1
    database.execute(f"SELECT {ADDED}")
    assert added_in(await tallies_then()) == 52
    await reader.close()


def test_a_standby_has_no_counters_and_says_why(
    own_postgres: PostgresServer,
    start_exporter: StartExporter,
    start_work: StartWork,
    tmp_path: Path,
) -> None:
    database = own_postgres.create_database()
    work = start_work("bullmq6", database.url)
    work.add("mail", "send", 3, {})
    with own_postgres.running_standby() as standby:
        url = Database(standby, database.name).url
        exporter = start_exporter("", "--postgres-url", url)
        [line] = eventually(lambda: exporter.lines("events cannot be followed"))
        assert "is a standby" in line["reason"]
        assert exporter.metrics.value("bullmq_job_count", queue="mail", state="waiting") == 3
        assert exporter.metrics.samples("bullmq_job_added_total") == {}
        # Promoted, it is followed.
        Database(standby, database.name).execute("SELECT pg_promote()")
        wait_following(exporter)
        work.close()


def test_events_are_followed_through_a_pooler(
    database: Database, start_exporter: StartExporter, work: Work, tmp_path: Path
) -> None:
    with pooled(database) as url:
        exporter = follow(start_exporter, url)
        work.add("mail", "send", 30, {"removeOnComplete": True})
        work.work("mail", {"concurrency": 3})
        assert_counted(exporter, work.settle())
        assert_none_in_doubt(exporter)


def test_jobs_that_are_drained_are_no_longer_tracked(
    database: Database, start_exporter: StartExporter, work: Work
) -> None:
    exporter = follow(start_exporter, database.url)
    work.add("mail", "send", 5, {})
    eventually(lambda: exporter.metrics.value("bullmq_exporter_tracked_jobs") == 5)
    work.call("mail", "clean", 0, 0, "wait")
    eventually(lambda: exporter.metrics.value("bullmq_exporter_tracked_jobs") == 0)


def test_what_is_long_and_odd_in_events_is_counted(
    database: Database, start_exporter: StartExporter, work: Work
) -> None:
    exporter = follow(start_exporter, database.url)
    work.add("mail", "send", 1, {"jobId": "a" * 5000})
    database.execute(
        "SELECT publish_event('mail', 'added', '{}'), publish_event('mail', 'odd', '[1]'),"
        " publish_event('mail', 'completed', '{\"jobId\": {\"a\": 1}}'),"
        " publish_event('mail', 'waiting', '\"text\"')"
    )
    database.execute("INSERT INTO event (queue, event, created_at_ms) VALUES ('mail', 'x', -5)")
    work.add("mail", "send", 1, {})
    eventually(lambda: reported(exporter).get("mail", {}).get("send") == {"added": 2})
    assert reported(exporter)["mail"].keys() <= {"send", "__unknown__"}
    assert_none_in_doubt(exporter)


async def test_a_transaction_that_is_open_for_too_long_is_waited_for_no_longer(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(follower, "MAX_OPEN_IDS", 10)
    queue = Queue.named("bullmq", "mail")
    reader = reader_of(database)
    follows = Follower(reader, EventsSettings(), lambda: (queue,))
    publish = """SELECT publish_event('mail', 'added', '{"jobId": "1", "name": "send"}')"""

    async def rounds() -> Tallies:
        for _ in range(3):
            await follows._run_step()
        found = await follows.tallies()
        assert found is not None
        return found

    await rounds()
    with psycopg.connect(database.url, options="-c search_path=bullmq") as connection:
        connection.execute(publish)
        database.execute(publish)
        assert (await rounds()).uncertain_gaps == 0
        database.execute(f"{publish} FROM generate_series(1, 20)")
        tallies = await rounds()
        assert tallies.uncertain_gaps == 1
        assert len([line for line in caplog.messages if "open for very long" in line]) == 1
        connection.rollback()
    assert (await rounds()).queues[queue].by_name["send"].values[Count.ADDED] == 21
    await reader.close()


async def test_a_server_that_shows_no_timeline_is_followed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon Aurora refuses the functions that would; so does any primary with this one."""
    refused = psycopg.sql.SQL("SELECT pg_wal_replay_pause()")
    queue = Queue.named("bullmq", "mail")
    reader = reader_of(database)
    with monkeypatch.context() as patch:
        patch.setattr(follower, "TIMELINE", refused)
        patch.setattr(standby, "STANDBY", refused)
        is_behind = standby.Standby(reader)
        await is_behind.check()
        await is_behind.check()
        follows = Follower(reader, EventsSettings(), lambda: (queue,))
        await follows._run_step()
    database.execute("""SELECT publish_event('mail', 'added', '{"jobId": "1", "name": "send"}')""")
    # When the timeline is known later, nothing has changed for that.
    follows._begin_anew()
    await follows._run_step()
    follows._begin_anew()
    await follows._run_step()
    tallies = await follows.tallies()
    assert tallies is not None
    assert tallies.queues[queue].by_name["send"].values[Count.ADDED] == 1
    assert tallies.uncertain_gaps == 0
    await reader.close()


def test_large_return_values_are_not_waited_for(
    database: Database, start_exporter: StartExporter
) -> None:
    """To leave them out PostgreSQL unpacks them: so many take longer than a statement may."""
    exporter = follow(start_exporter, database.url)
    database.execute(
        "INSERT INTO event (queue, event, data, created_at_ms)"
        " SELECT 'mail', 'completed', jsonb_build_object('jobId', number::text, 'returnvalue',"
        "   (SELECT string_agg(md5((number * 1000000 + part)::text), '')"
        "    FROM generate_series(1, 20000) AS part)), 1795500000000"
        " FROM generate_series(1, 60) AS number"
    )
    database.execute("INSERT INTO meta VALUES ('mail', 'version', 'bullmq:6.7.0')")
    eventually(lambda: total(exporter, "bullmq_job_completed_total") == 60)
    assert_none_in_doubt(exporter)


async def test_an_event_that_cannot_be_read_is_missed_and_the_next_ones_are_read(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue.named("bullmq", "mail")
    reader = reader_of(database)
    follows = Follower(reader, EventsSettings(), lambda: (queue,))
    read = event_reads.EventReads._read

    async def too_slow_with_the_second(
        self: event_reads.EventReads, wanted: Sequence[event_reads.Wanted], most: int
    ) -> list[Row]:
        rows = await read(self, wanted, most)
        if any(job_id == "2" for _, _, _, _, job_id, *_ in rows):
            raise TooSlow("a statement took over 200 ms")
        return rows

    await follows._run_step()
    monkeypatch.setattr(event_reads.EventReads, "_read", too_slow_with_the_second)
    for number in range(1, 5):
        data = json.dumps({"jobId": str(number), "name": "send"})
        database.execute(f"SELECT publish_event('mail', 'added', '{data}')")
    for _ in range(5):
        await follows._run_step()
    tallies = await follows.tallies()
    assert tallies is not None
    assert tallies.queues[queue].by_name["send"].values[Count.ADDED] == 3
    assert tallies.queues[queue].missed == 1
    assert caplog.messages.count("an event cannot be read: skipped") == 1
    await reader.close()


@pytest.mark.parametrize("since", ["the first job", "later"])
def test_a_queue_whose_first_events_are_deleted_before_it_is_found_has_missed_some(
    since: str, database: Database, start_exporter: StartExporter, work: Work
) -> None:
    exporter = follow(start_exporter, database.url)
    first = 1 if since == "the first job" else 40
    # In one transaction, as if it was found only afterwards: more ids than BullMQ keeps.
    database.execute(
        "INSERT INTO meta VALUES ('mail', 'opts.maxLenEvents', '500'), ('mail', 'version', 'x');"
        "INSERT INTO event (queue, event, data, created_at_ms)"
        " SELECT 'mail', 'added', jsonb_build_object('jobId', number::text, 'name', 'send'), 1"
        f" FROM generate_series({first}, {first} + 519) AS number"
    )
    eventually(lambda: added(exporter) == {"mail": 520})
    missed = 0 if since == "the first job" else 1
    assert exporter.metrics.samples(MISSED) == {("mail",): missed}
    assert exporter.metrics.value(UNCERTAIN) == missed

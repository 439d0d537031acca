"""Jobs in PostgreSQL with values that BullMQ seldom writes, or that only SQL does."""

from __future__ import annotations

from typing import Any

from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.postgres import EACH_DATABASE, Database
from tests.support.waiting import eventually

STATES = ("active", "completed", "delayed", "failed", "prioritized", "waiting", "waiting-children")


def counts(exporter: Exporter, queue: str) -> dict[str, float]:
    samples = exporter.metrics.samples("bullmq_job_count", queue=queue)
    return {state: number for (state,), number in samples.items() if number}


def listed(exporter: Exporter, queue: str, state: str) -> list[str]:
    path = f"/v1/jobs/queues/{queue}?status={state}"
    return [job["id"] for job in exporter.api.get(path).json["jobs"]]


@EACH_DATABASE
def test_jobs_with_a_negative_priority_wait_before_all_others(
    database: Database, start_work: StartWork, start_exporter: StartExporter
) -> None:
    work = start_work("bullmq6", database.url)
    for priority in (0, -1, 2, -5):
        work.addJobs(
            "mail", [{"name": "send", "opts": {"priority": priority, "jobId": f"p{priority}"}}]
        )
    # BullMQ has them in no count, though by its own word they wait, and workers take them first.
    bullmqs = work.call("mail", "getJobCounts", *STATES)
    assert {state: number for state, number in bullmqs.items() if number} == {
        "waiting": 1,
        "prioritized": 1,
    }
    assert work.call("mail", "getJobState", "p-5") == "waiting"

    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: counts(exporter, "mail") == {"waiting": 3, "prioritized": 1})
    assert listed(exporter, "mail", "waiting") == ["p-5", "p-1", "p0"]
    assert exporter.api.get("/v1/jobs/queues/mail/jobs/p-5").json["job"]["state"] == "waiting"
    found = exporter.api.get("/v1/jobs/queues/mail?status=waiting&text=send").json
    assert [job["id"] for job in found["jobs"]] == ["p-5", "p-1", "p0"]
    assert found["search"] == {"seen": 3, "complete": True}
    # Since when the oldest waits: it may be one of them.
    database.execute("UPDATE job SET added_at_ms = 1000 WHERE id = 'p-1'")
    oldest = "bullmq_queue_oldest_waiting_timestamp_seconds"
    eventually(lambda: exporter.metrics.value(oldest, queue="mail") == 1)

    work.call("mail", "pause")
    eventually(lambda: counts(exporter, "mail") == {"paused": 3, "prioritized": 1})
    assert listed(exporter, "mail", "paused") == ["p-5", "p-1", "p0"]
    work.call("mail", "resume")
    # As many as are not counted at each poll.
    database.add_jobs("mail", 1200, priority=-7)
    eventually(lambda: counts(exporter, "mail") == {"waiting": 1203, "prioritized": 1})


@EACH_DATABASE
def test_rows_that_only_sql_writes_are_counted_as_bullmq_counts_them(
    database: Database, start_work: StartWork, start_exporter: StartExporter
) -> None:
    # As a later migration may.
    database.execute("ALTER TYPE job_state ADD VALUE 'archived'")
    database.execute(
        """
        INSERT INTO meta VALUES ('odd', 'version', NULL), ('odd', 'paused', NULL),
          ('odd', 'concurrency', NULL), ('odd', 'max', 'many'), ('', 'version', 'x');
        INSERT INTO job (queue, id, seq, name, state, data, opts, added_at_ms, process_at_ms,
          processed_at_ms, finished_at_ms, locked_until_ms, stacktrace, priority)
        VALUES ('odd', 'archived', 1, 'x', 'archived', '{}', '{}', 1, 1, 1, 1, 1, NULL, 0),
          ('odd', 'done', 2, '', 'completed', 'null', 'null', 1, NULL, NULL, NULL, NULL, '1', 9),
          ('odd', 'done-2', 3, '', 'completed', '[]', '7', 1, NULL, NULL, 5, NULL, '{}', 0),
          ('odd', 'failed', 4, '', 'failed', '"x"', '"x"', 1, NULL, NULL, NULL, NULL, NULL, 0),
          ('odd', 'delayed', 5, '', 'delayed', '{}', '[]', 1, NULL, NULL, NULL, NULL, NULL, -3),
          ('odd', 'active', 6, '', 'active', '{}', '{}', 1, NULL, NULL, NULL, NULL, NULL, 0),
          ('odd', 'last', 7, '', 'waiting', '{}', '{}', 9223372036854775807, NULL, NULL,
            -9223372036854775808, NULL, NULL, 2147483647),
          ('odd', '', 8, '', 'waiting', '{}', '{}', -1, NULL, NULL, NULL, NULL, NULL, 0);
        INSERT INTO rate_limit VALUES ('odd', -1, 9223372036854775807);
        INSERT INTO scheduler (queue, scheduler_id) VALUES ('odd', ''), ('odd', 'never');
        INSERT INTO job_dependency (parent_queue, parent_id, child_queue, child_id, child_key)
        VALUES ('odd', 'failed', 'odd', 'archived', 'odd:archived')
        """
    )
    work = start_work("bullmq6", database.url)
    bullmqs: dict[str, Any] = work.call("odd", "getJobCounts", *STATES)
    assert sum(bullmqs.values()) == 7  # all but the one of a state that it does not know

    exporter = start_exporter("", "--postgres-url", database.url)
    eventually(lambda: exporter.metrics.value("bullmq_queue_schedulers", queue="odd") == 2)
    samples = exporter.metrics.samples("bullmq_job_count", queue="odd")
    assert {state: number for (state,), number in samples.items()} == bullmqs | {"paused": 0}
    for state, number in bullmqs.items():
        assert len(listed(exporter, "odd", state)) == number
    job = exporter.api.get("/v1/jobs/queues/odd/jobs/archived").json["job"]
    assert (job["id"], job["state"]) == ("archived", None)
    parent = exporter.api.get("/v1/jobs/queues/odd/jobs/failed").json["job"]
    [child] = parent["children"]["jobs"]
    assert (child["id"], child["state"]) == ("archived", None)
    # Jobs whose place in the order is unknown: what is behind them is not said to be all.
    newest_first = exporter.api.get(
        "/v1/jobs/queues/odd?status=completed&text=done&order=desc"
    ).json
    assert newest_first["search"]["seen"] == len(newest_first["jobs"]) == 2
    for path in ("/schedulers", "/failures", ""):
        assert exporter.api.get(f"/v1/jobs/queues/odd{path}").status == 200, path
    collected = exporter.metrics.samples("bullmq_exporter_collector_success")
    assert set(collected.values()) == {1}
    [line] = exporter.lines("value unreadable; omitted")
    assert (line["value"], line["reason"]) == ("rate limit", "'many' is not a number")
    assert exporter.outages == []

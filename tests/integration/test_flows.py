"""Flows: since when a parent waits for its children, and what has become of them."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.bullmq import StartWork
from tests.support.exporters import Exporter, StartExporter
from tests.support.servers import Server
from tests.support.waiting import eventually

OLDEST = "bullmq_queue_oldest_waiting_children_timestamp_seconds"


def flow(name: str, children: list[dict[str, Any]], queue: str = "parents") -> dict[str, Any]:
    return {"name": name, "queueName": queue, "opts": {"jobId": name}, "children": children}


def child(job_id: str, name: str, queue: str = "children", **opts: Any) -> dict[str, Any]:
    return {"name": name, "queueName": queue, "opts": {"jobId": job_id, **opts}}


def job(exporter: Exporter, queue: str, job_id: str) -> dict[str, Any]:
    answer = exporter.api.get(f"/v1/jobs/queues/{queue}/jobs/{job_id}")
    assert answer.status == 200, answer.body
    return dict(answer.json["job"])


def children(exporter: Exporter, parent: str) -> dict[str, tuple[str, Any, Any]]:
    """Of each child the outcome, the state and the reason."""
    return {
        each["id"]: (each["outcome"], each.get("state"), each.get("failedReason"))
        for each in job(exporter, "parents", parent)["children"]["jobs"]
    }


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_a_parent_reports_what_became_of_each_child(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    before = time.time()
    work.flow(
        flow(
            "import",
            [
                child("fails", "fails"),
                child("ignored", "fails", ignoreDependencyOnFailure=True),
                child("dropped", "fails", removeDependencyOnFailure=True),
                child("not-kept", "fails", removeOnFail=True),
                child("done", "works"),
                child("later", "works", delay=3_600_000),
                child("urgent", "works", "idle", priority=2),
                child("waits", "works", "idle"),
                child("evicted", "works", "idle"),
                child("runs", "sleeps-600000", "slow"),
            ],
        )
    )
    after = time.time()
    work.flow(flow("strict", [child("breaks", "fails", failParentOnFailure=True)]))
    with server.client() as client:
        client.delete("bull:idle:evicted")
    for queue in ("children", "slow", "parents"):
        work.work(queue)
    exporter = start_exporter(server.url)
    eventually(lambda: job(exporter, "slow", "runs")["state"] == "active")
    eventually(lambda: job(exporter, "parents", "strict")["state"] == "failed")
    eventually(lambda: children(exporter, "import").get("ignored", ("",))[0] == "ignored")
    eventually(lambda: job(exporter, "children", "dropped")["state"] == "failed")
    eventually(lambda: children(exporter, "import")["done"][0] == "processed")
    eventually(lambda: children(exporter, "import")["fails"][1] == "failed")
    assert children(exporter, "import") == {
        "fails": ("unprocessed", "failed", "no answer for fails"),
        "ignored": ("ignored", "failed", "no answer for ignored"),
        "done": ("processed", None, None),
        "later": ("unprocessed", "delayed", None),
        "urgent": ("unprocessed", "prioritized", None),
        "waits": ("unprocessed", "waiting", None),
        "evicted": ("unprocessed", "removed", None),
        "runs": ("unprocessed", "active", None),
    }
    assert children(exporter, "strict") == {"breaks": ("failed", "failed", "no answer for breaks")}
    assert job(exporter, "parents", "import")["state"] == "waiting-children"
    [since] = exporter.metrics.samples(OLDEST).values()
    assert before - 1 <= since <= after + 1
    queues = exporter.api.get("/v1/jobs/queues?detail=true").json["queues"]
    reported = {queue["name"]: queue["oldestWaitingChildren"] for queue in queues}
    assert reported == {
        "parents": round(since * 1000),
        **dict.fromkeys(("children", "slow", "idle")),
    }


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_a_parent_waits_from_when_its_last_wait_began_until_its_child_is_retried(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.flow(flow("import", [child("late", "fails-first", attempts=1)]))
    work.work("children")
    exporter = start_exporter(server.url)
    eventually(lambda: children(exporter, "import")["late"][:2] == ("unprocessed", "failed"))
    assert exporter.metrics.value(OLDEST, queue="parents") is not None
    work.retry("children", "late")
    eventually(lambda: job(exporter, "parents", "import")["state"] == "waiting")
    eventually(lambda: exporter.metrics.samples(OLDEST) == {})


def test_a_child_in_a_queue_that_may_not_be_read_has_no_state(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    work.flow(
        flow(
            "import",
            [
                child("here", "works"),
                child("elsewhere", "works") | {"prefix": "other"},
            ],
        )
    )
    with server.client() as client:
        client.acl_setuser(
            "reads-bull",
            enabled=True,
            reset=True,
            passwords=["+secret"],
            keys=["bull:*"],
            categories=["+@read"],
            commands=["+ping", "+evalsha_ro", "+eval_ro"],
        )
    exporter = start_exporter(server.url, REDIS_USER="reads-bull", REDIS_PASSWORD="secret")
    eventually(lambda: exporter.api.get("/v1/jobs/queues").json["queues"])
    assert children(exporter, "import") == {
        "here": ("unprocessed", "waiting", None),
        "elsewhere": ("unprocessed", None, None),
    }


def test_children_are_looked_up_in_bounded_batches_and_long_reasons_are_cut(
    server: Server, start_exporter: StartExporter
) -> None:
    """Also where the list is so long that a child may lie between its ends."""
    ids = [f"c{number}" for number in range(100)]
    with server.client() as client:
        client.hset("bull:parents:meta", "version", "bullmq:5.56.3")
        client.hset("bull:parents:1", "name", "import")
        client.sadd("bull:parents:1:dependencies", *(f"bull:children:{each}" for each in ids))
        for each in ids:
            client.hset(f"bull:children:{each}", "name", "x")
        client.rpush("bull:children:wait", *range(3000), *ids[:98], *range(3000, 6000))
        client.zadd("bull:children:failed", {"c98": 1})
        client.hset("bull:children:c98", "failedReason", "r" * 100_000)
        client.delete("bull:children:c97")
    reported = children_of(start_exporter(server.url))
    assert [reported.pop(each) for each in ("c97", "c98", "c99")] == [
        ("removed", None),
        ("failed", "[left out: 100000 bytes]"),
        ("waiting", None),  # in no list, which a look at the ends cannot show
    ]
    assert set(reported.values()) == {("waiting", None)}
    assert len(reported) == 97


def children_of(exporter: Exporter) -> dict[str, tuple[Any, Any]]:
    return {name: reported[1:] for name, reported in children(exporter, "1").items()}


def test_a_value_that_is_no_time_is_left_out_and_said(
    server: Server, start_exporter: StartExporter
) -> None:
    with server.client() as client:
        client.hset("bull:parents:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:parents:waiting-children", {"1": float("inf")})
    exporter = start_exporter(server.url)
    assert exporter.metrics.value("bullmq_exporter_unreadable_values") == 1
    assert exporter.metrics.samples(OLDEST) == {}
    [line] = eventually(lambda: exporter.lines("value unreadable; omitted"))
    assert line["value"] == "oldest waiting for children"

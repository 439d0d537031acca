"""Failures in the API: of jobs that are kept, of those that are gone, of those still to come."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.queues.failure_evidence import MAX_QUEUE_BYTES, MAX_TEXT_BYTES
from exporter.queues.failure_reasons import fold
from exporter.web.jobs_api import RETRYING_JOBS
from tests.support.bullmq import StartWork
from tests.support.counters import total, wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.failing import PREFIX, fail, write_failed
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
FAILED = "bullmq_job_failed_total"
PATH = "/v1/jobs/queues/mail/failures"
REFUSED = "connect ECONNREFUSED 10.0.3.17:993"
# With attempts that are an hour apart.
LATER = {"attempts": 3, "backoff": {"type": "fixed", "delay": 3_600_000}}
DECLINED = "Card declined for cus_8812 (req_908zqqx65g)"


def throws(reason: str, number: int, options: dict[str, Any], **data: Any) -> list[dict[str, Any]]:
    job = {"name": "throws", "data": {"reason": reason, **data}, "opts": options}
    return [job for _ in range(number)]


def failures(exporter: Exporter, query: str = "") -> dict[str, Any]:
    answer: dict[str, Any] = exporter.api.get(f"{PATH}{query}").json
    return answer


def group(exporter: Exporter, reason: str = REFUSED, query: str = "") -> dict[str, Any]:
    groups = {each["fingerprint"]: each for each in failures(exporter, query)["groups"]}
    found: dict[str, Any] = groups[fold(reason).fingerprint]
    return found


def until(check: Callable[[], Any]) -> Any:
    def checked() -> Any:
        try:
            return check()
        except LookupError:
            return None

    return eventually(checked)


@pytest.fixture
def following(server: Server, start_exporter: StartExporter) -> Exporter:
    """An exporter that follows the queue `mail`, which is made by hand."""
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
    return wait_following(start_exporter(server.url))


@VERSIONS
def test_jobs_that_are_removed_at_once_are_a_group_with_all_that_was_seen(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.call("mail", "getJobCounts")
    exporter = wait_following(start_exporter(server.url))
    work.work("mail", {"concurrency": 1})
    before = int(time.time() * 1000)
    fail(work, throws(REFUSED, 7, {"removeOnFail": True}))
    later = {"removeOnFail": True, **LATER, "attempts": 2}
    work.addJobs("mail", throws(DECLINED, 1, later, ingestionSourceId="source-1"))
    # Until its second attempt the hash is there.
    until(lambda: group(exporter, DECLINED)["evidence"][0]["stacktrace"])
    work.call("mail", "promoteJobs")

    until(lambda: group(exporter, DECLINED)["seen24h"] == 1)
    found = group(exporter)
    assert (found["count"], found["seen24h"], found["retried24h"]) == (0, 7, 0)
    # An hour may have passed.
    assert sum(found["hours"][-2:]) == 7
    assert found["names"] == [{"name": "throws", "count": 7}]
    assert found["exampleReason"] == REFUSED
    assert found["attempts"] == {"min": 1, "max": 1}
    assert before - 60_000 < found["firstSeen"] <= found["lastSeen"]
    assert [job["id"] for job in found["evidence"]] == ["7", "6", "5"]
    for job in found["evidence"]:
        assert (job["removed"], job["willBeRetried"], job["attemptsMade"]) == (True, False, 1)
        assert (job["name"], job["failedReason"]) == ("throws", REFUSED)
        assert job["finishedOn"] <= found["lastSeen"]

    found = group(exporter, DECLINED)
    assert (found["seen24h"], found["retried24h"]) == (1, 1)
    assert found["ingestionSources"] == [{"id": "source-1", "count": 1}]
    [job] = found["evidence"]
    assert (job["removed"], job["attemptsMade"], job["willBeRetried"]) == (True, 2, False)
    assert DECLINED in job["stacktrace"][0] and "work.mjs" in job["stacktrace"][0]
    assert "work.mjs" in found["frame"]
    whole = failures(exporter)
    assert (whole["failed"], whole["groupsTotal"], whole["complete"]) == (0, 2, True)
    assert whole["seenSince"] <= found["firstSeen"]
    assert [each["seen24h"] for each in whole["groups"]] == [7, 1]


def test_what_is_kept_and_what_was_seen_are_one_group(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    work.work("mail", {"concurrency": 1})
    fail(work, throws(REFUSED, 4, {}))
    exporter = wait_following(start_exporter(server.url))
    # What failed before is kept, and was not seen.
    found = group(exporter)
    assert (found["count"], found["seen24h"], found["hours"], found["evidence"]) == (
        4,
        None,
        None,
        [],
    )
    oldest = found["firstSeen"]

    fail(work, throws(REFUSED, 20, {"removeOnFail": 5}, ingestionSourceId="source-1"))
    fail(work, throws(DECLINED, 1, {}))
    until(lambda: group(exporter)["seen24h"] == 20 and len(failures(exporter)["groups"]) == 2)
    until(lambda: group(exporter, DECLINED)["evidence"][0]["stacktrace"])
    found = group(exporter)
    # BullMQ keeps the newest five when one of these fails; then one more failed.
    assert found["count"] == 5
    assert found["names"][0]["count"] == 20
    assert found["firstSeen"] > oldest  # that one was removed by now
    # Of jobs that failed in the same millisecond BullMQ keeps any.
    kept = {job["id"] for job in work.call("mail", "getFailed")}
    evidence = found["evidence"]
    assert [job["removed"] for job in evidence] == [job["id"] not in kept for job in evidence]
    assert len(evidence) == 3
    other = group(exporter, DECLINED)
    assert (other["count"], other["seen24h"], other["evidence"][0]["removed"]) == (1, 1, False)

    fingerprint = fold(DECLINED).fingerprint
    alone = failures(exporter, f"?fingerprint={fingerprint}")
    assert [each["fingerprint"] for each in alone["groups"]] == [fingerprint]
    assert (alone["failed"], alone["groupsTotal"]) == (1, 1)
    none = failures(exporter, "?fingerprint=0123456789ab")
    assert (none["failed"], none["groupsTotal"], none["groups"]) == (0, 0, [])
    with server.client() as client:
        client.delete(f"{PREFIX}{other['evidence'][0]['id']}")
    assert group(exporter, DECLINED)["evidence"][0]["removed"] is True


def test_what_was_seen_is_known_after_a_kill(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    settings = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    work = start_work("bullmq5", server.port)
    work.call("mail", "getJobCounts")
    exporter = wait_following(start_exporter(server.url, **settings))
    work.work("mail", {"concurrency": 1})
    fail(work, throws(REFUSED, 6, {"removeOnFail": True}))
    # What is exposed is saved.
    eventually(lambda: total(exporter, FAILED) == 6)
    before = group(exporter)
    since = failures(exporter)["seenSince"]
    exporter.process.kill()
    exporter.process.wait()

    fail(work, throws(REFUSED, 2, {"removeOnFail": True}))
    again = wait_following(start_exporter(server.url, **settings))
    eventually(lambda: total(again, FAILED) == 8)
    after = group(again)
    assert (after["seen24h"], after["firstSeen"]) == (8, before["firstSeen"])
    assert [job["id"] for job in after["evidence"]] == ["8", "7", "6"]
    assert failures(again)["seenSince"] == since


def test_hostile_reasons_are_bounded_in_bytes(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    number = 10_000
    state = tmp_path / "state"
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, EXPORTER_EVENTS_STATE_FILE=str(state)))
        with client.pipeline(transaction=False) as pipe:
            for i in range(number):
                word = "".join(chr(0x61 + (i // 26**k) % 26) for k in range(4))
                reason = f"{word}\0<b>\u202e " + word[::-1] * (i % 2000)
                write_failed(pipe, str(i), reason)
            pipe.execute()
    eventually(lambda: total(exporter, FAILED) == number)
    assert state.stat().st_size < MAX_QUEUE_BYTES + (1 << 20)
    found = failures(exporter, "?limit=1000")
    assert 100 < found["groupsTotal"] < number
    jobs = [job for each in found["groups"] for job in each["evidence"]]
    assert all(len(job["failedReason"].encode()) <= MAX_TEXT_BYTES for job in jobs)
    assert str(number - 1) in {job["id"] for job in jobs}


def test_jobs_that_will_be_tried_again_are_part_of_their_group(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    work = start_work("bullmq5", server.port)
    work.call("mail", "getJobCounts")
    exporter = wait_following(start_exporter(server.url))
    work.work("mail", {"concurrency": 1})
    work.addJobs("mail", [*throws(REFUSED, 3, LATER), *throws(DECLINED, 1, {})])
    eventually(lambda: total(exporter, FAILED) == 1)

    found = until(lambda: (g := group(exporter))["willBeRetried"] == 3 and g)
    assert (found["count"], found["seen24h"], found["retried24h"]) == (0, 0, 3)
    assert found["names"] == [{"name": "throws", "count": 3}]
    assert found["evidence"][0]["willBeRetried"] is True
    assert found["evidence"][0]["removed"] is False
    whole = failures(exporter)
    assert (whole["willBeRetried"], whole["willBeRetriedComplete"]) == (3, True)
    assert group(exporter, DECLINED)["willBeRetried"] == 0


def test_a_retry_may_wait_in_any_state_and_is_looked_for_among_the_next_jobs_only(
    server: Server, following: Exporter
) -> None:
    backlog = RETRYING_JOBS + 500
    with server.client() as client:
        tried = {"name": "send", "data": "{}", "failedReason": REFUSED, "atm": 1}
        for job_id in ("waits", "has a priority", "is delayed", "is far behind"):
            client.hset(f"{PREFIX}{job_id}", mapping=tried)
        for number in range(backlog):
            client.hset(f"{PREFIX}{number}", mapping={"name": "send", "data": "{}"})
        # The next job is the last one of the list.
        ids = ["is far behind", *map(str, range(backlog)), "waits"]
        client.rpush(f"{PREFIX}wait", *ids)
        client.zadd(f"{PREFIX}prioritized", {"has a priority": 1})
        client.zadd(f"{PREFIX}delayed", {"is delayed": 4096 * (time.time() * 1000 + 60_000)})
    assert group(following)["willBeRetried"] == 3
    assert failures(following)["willBeRetriedComplete"] is False


def test_a_window_is_one_of_what_was_seen_too(following: Exporter, server: Server) -> None:
    with server.client() as client:
        write_failed(client, "1", REFUSED)
    until(lambda: group(following)["seen24h"] == 1)
    assert group(following, query="?window=1h")["seen24h"] == 1
    eventually(lambda: not failures(following, "?window=1s")["groups"])


@pytest.mark.parametrize(
    "setting", ["EXPORTER_EVENTS_MAX_REASONS=0", "EXPORTER_EVENTS_ENABLED=false"]
)
def test_without_reasons_of_events_the_api_has_what_is_kept(
    server: Server, start_exporter: StartExporter, setting: str, tmp_path: Path
) -> None:
    name, _, value = setting.partition("=")
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        client.zadd(f"{PREFIX}failed", {"1": time.time() * 1000})
        job = {"name": "send", "data": "{}", "failedReason": REFUSED, "atm": 1}
        client.hset(f"{PREFIX}1", mapping=job)
        state = tmp_path / "state"
        exporter = start_exporter(
            server.url, EXPORTER_EVENTS_STATE_FILE=str(state), **{name: value}
        )
        write_failed(client, "2", DECLINED)
    if "MAX_REASONS" in setting:
        wait_following(exporter)
    whole = failures(exporter)
    [found] = whole["groups"]
    assert (whole["seenSince"], found["count"], found["exampleId"]) == (None, 1, "1")
    nothing = [found[name] for name in ("seen24h", "hours", "retried24h", "retriedHours")]
    assert (nothing, found["evidence"]) == ([None] * 4, [])
    exporter.process.terminate()
    exporter.process.wait()
    assert not state.exists() or b"declined" not in state.read_bytes()


def test_what_is_hidden_is_in_no_evidence(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    secret, source = "correct-horse", "staple-battery"
    state = tmp_path / "state"
    settings = {
        "EXPORTER_API_REDACT": "*password*,*source*",
        "EXPORTER_EVENTS_STATE_FILE": str(state),
    }
    reason = f'login refused {{"user": "anna", "password": "{secret}"}}'
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, **settings))
        job = {
            "name": "send",
            "data": json.dumps({"ingestionSourceId": source}),
            "failedReason": reason,
            "stacktrace": json.dumps([f"Error: {reason}\n    at login (/app/imap.js:1:2)"]),
            "atm": 1,
        }
        client.hset(f"{PREFIX}1", mapping=job)
        write_failed(client, "1", reason)
        until(lambda: failures(exporter)["groups"][0]["evidence"][0]["stacktrace"])
        client.delete(f"{PREFIX}1")
    for shown in (json.dumps(failures(exporter)), json.dumps(failures(exporter, "?window=1h"))):
        assert "login refused" in shown and "at login" in shown
        assert secret not in shown and source not in shown
    exporter.process.terminate()
    exporter.process.wait()
    saved = state.read_bytes()
    assert b"login refused" in saved
    assert secret.encode() not in saved and source.encode() not in saved


def test_what_is_hidden_from_now_on_was_not_when_it_was_seen(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    secret, source = "correct-horse", "staple-battery"
    settings = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    reason = f"login refused, password: {secret}"
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, **settings))
        data = json.dumps({"ingestionSourceId": source})
        trace = json.dumps([f"Error: {reason}\n    at login (/app/imap.js:1:2)"])
        job = {"name": "send", "data": data, "failedReason": reason, "stacktrace": trace}
        client.hset(f"{PREFIX}1", mapping=job)
        write_failed(client, "1", reason)
        until(lambda: failures(exporter)["groups"][0]["evidence"][0]["stacktrace"])
        client.delete(f"{PREFIX}1")
        assert secret in json.dumps(failures(exporter))
        exporter.process.terminate()
        exporter.process.wait()
        redact = {"EXPORTER_API_REDACT": "*password*,*source*"}
        again = wait_following(start_exporter(server.url, **settings, **redact))
    shown = json.dumps(until(lambda: failures(again)["groups"]))
    assert "login refused" in shown
    assert secret not in shown and source not in shown

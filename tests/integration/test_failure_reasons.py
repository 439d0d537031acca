"""Failures by reason, as real workers fail."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.queues.failure_reasons import fold
from exporter.queues.reason_counts import OTHER
from exporter.queues.text import MAX_LABEL_BYTES
from tests.support.bullmq import StartWork
from tests.support.counters import total, wait_following
from tests.support.exporters import Exporter, StartExporter
from tests.support.failing import PREFIX, fail, write_failed
from tests.support.servers import Server
from tests.support.waiting import eventually

VERSIONS = pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
FAILED = "bullmq_job_failure_reasons_total"
RETRIED = "bullmq_job_retry_reasons_total"

# What twelve faults say, each with what differs from job to job.
FAULTS: tuple[Callable[[int], str], ...] = (
    lambda i: f"Card declined for cus_{i * 7919:x} (req_9{i}zqqx65g)",
    lambda i: f"connect ECONNREFUSED 10.0.{i % 250}.17:993",
    lambda i: f"IMAP authentication failed for user{i}@example.com",
    lambda i: f"Request failed with status code {429}, retry after {i} seconds",
    lambda _: "Request failed with status code 503",
    lambda i: f'duplicate key value violates unique constraint "mails_pkey" (id)=({i})',
    lambda i: f"ENOENT: no such file or directory, open '/data/mail/{i}/message-{i}.eml'",
    lambda i: f"getaddrinfo ENOTFOUND mail{i}.example.org",
    lambda i: f"Index documents: payload of {i * 1000} bytes is too large",
    lambda i: f"timeout of {1000 + i}ms exceeded",
    lambda _: "Cannot read properties of undefined (reading 'headers')",
    lambda i: f"Сообщение {i} не найдено",
)
TIMES = {number: 3 + number for number in range(len(FAULTS))}


def by_text(exporter: Exporter, metric: str) -> Counter[str]:
    """The counts by the text of their reason, without the zeros."""
    family = exporter.metrics.families().get(metric.removesuffix("_total"))
    counted: Counter[str] = Counter()
    for sample in family.samples if family else ():
        if sample.value:
            counted[sample.labels["reason"]] += int(sample.value)
    return counted


def jobs(options: dict[str, Any], first: int = 0) -> list[dict[str, Any]]:
    """Each fault as many times as TIMES says."""
    return [
        {"name": "throws", "data": {"reason": FAULTS[fault](first + i)}, "opts": options}
        for fault, times in TIMES.items()
        for i in range(times)
    ]


TRUTH = Counter({fold(FAULTS[fault](1)).label: times for fault, times in TIMES.items()})


def assert_sums(exporter: Exporter) -> None:
    assert total(exporter, FAILED) == total(exporter, "bullmq_job_failed_total")
    assert total(exporter, RETRIED) == total(exporter, "bullmq_job_retried_total")


@VERSIONS
def test_each_failure_and_each_attempt_counts_under_its_reason_though_the_jobs_are_gone(
    server: Server, start_exporter: StartExporter, start_work: StartWork, version: str
) -> None:
    work = start_work(version, server.port)
    work.call("mail", "getJobCounts")
    exporter = wait_following(start_exporter(server.url))
    work.work("mail", {"concurrency": 5})
    fail(work, jobs({"removeOnFail": True}))
    with server.client() as client:
        assert not client.zcard(f"{PREFIX}failed")
    # With and without a backoff before the next attempt. These are kept, since the reason of an
    # attempt is in the job's hash alone: where that is gone before it is read, it is unknown.
    fail(work, jobs({"attempts": 3, "backoff": {"type": "fixed", "delay": 50}}, first=1000))
    fail(work, jobs({"attempts": 2}, first=2000))

    def right() -> bool:
        for metric in (FAILED, RETRIED):
            expected = Counter({text: 3 * times for text, times in TRUTH.items()})
            assert by_text(exporter, metric) == expected
        return True

    eventually(right)
    assert_sums(exporter)
    first_seen = exporter.metrics.samples("bullmq_job_failure_reason_first_seen_timestamp_seconds")
    assert len(first_seen) == len(TRUTH)
    assert all(abs(at - time.time()) < 600 for at in first_seen.values())


def test_counts_by_reason_go_on_after_a_kill_and_what_was_trimmed_is_unknown(
    server: Server, start_exporter: StartExporter, start_work: StartWork, tmp_path: Path
) -> None:
    settings = {"EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state")}
    work = start_work("bullmq5", server.port)
    work.call("mail", "getJobCounts")
    exporter = wait_following(start_exporter(server.url, **settings))
    work.work("mail", {"concurrency": 5})
    fail(work, jobs({"removeOnFail": True}))
    eventually(lambda: by_text(exporter, FAILED) == TRUTH)
    exporter.process.kill()
    exporter.process.wait()

    fail(work, jobs({"removeOnFail": 1000}, first=1000))
    with server.client() as client:
        client.xtrim(f"{PREFIX}events", maxlen=0, approximate=False)
    fail(work, jobs({"removeOnFail": True}, first=2000))
    again = wait_following(start_exporter(server.url, **settings))
    missed = sum(TIMES.values())

    def right() -> bool:
        counted = by_text(again, FAILED)
        assert counted == Counter(
            {**{text: 2 * times for text, times in TRUTH.items()}, "unknown": missed}
        )
        return True

    eventually(right)
    assert_sums(again)


def test_hostile_reasons_are_bounded_and_the_sum_is_right(
    server: Server, start_exporter: StartExporter
) -> None:
    number = 10_000
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url))
        with client.pipeline(transaction=False) as pipe:
            for i in range(number):
                word = "".join(chr(0x61 + (i // 26**k) % 26) for k in range(4))
                reason = f'{word}\0"\\\n{{}}<!channel>\u202e ' + word[::-1] * (i % 300)
                write_failed(pipe, str(i), reason)
            pipe.execute()

    eventually(lambda: total(exporter, FAILED) == number)
    families = exporter.metrics.families()
    samples = families[FAILED.removesuffix("_total")].samples
    assert len(samples) <= 20 + 2
    assert {OTHER} <= {sample.labels["fingerprint"] for sample in samples}
    assert all(len(sample.labels["reason"]) <= 120 for sample in samples)
    assert all(len(sample.labels["reason"].encode()) <= MAX_LABEL_BYTES for sample in samples)
    assert_sums(exporter)


def test_a_new_reason_is_seen_beside_5000_failed_jobs_that_are_kept(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    """Open Archiver keeps 5,000: a full set hides the beginning of something else."""
    work = start_work("bullmq5", server.port)
    work.call("mail", "getJobCounts")
    # All of them are looked through, on a busy machine as well.
    exporter = wait_following(start_exporter(server.url, EXPORTER_API_SEARCH_SECONDS="60"))
    work.work("mail", {"concurrency": 50})
    keep = {"removeOnFail": 5000}
    old = [{"name": "throws", "data": {"reason": FAULTS[0](i)}, "opts": keep} for i in range(5100)]
    fail(work, old)
    new = [{"name": "throws", "data": {"reason": FAULTS[3](i)}, "opts": keep} for i in range(5)]
    fail(work, new)
    with server.client() as client:
        assert client.zcard(f"{PREFIX}failed") == 5000
    before, begun = (fold(FAULTS[number](1)) for number in (0, 3))
    eventually(lambda: by_text(exporter, FAILED) == Counter({before.label: 5100, begun.label: 5}))
    failures = exporter.api.get("/v1/jobs/queues/mail/failures").json
    counts = {group["fingerprint"]: group["count"] for group in failures["groups"]}
    assert counts == {before.fingerprint: 4995, begun.fingerprint: 5}
    first_seen = "bullmq_job_failure_reason_first_seen_timestamp_seconds"
    since = [
        next(iter(exporter.metrics.samples(first_seen, fingerprint=each.fingerprint).values()))
        for each in (before, begun)
    ]
    assert since[0] < since[1]


def test_one_setting_turns_it_off(server: Server, start_exporter: StartExporter) -> None:
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, EXPORTER_EVENTS_MAX_REASONS="0"))
        write_failed(client, "1", "no")
    eventually(lambda: total(exporter, "bullmq_job_failed_total") == 1)
    assert not exporter.metrics.samples(FAILED)


def test_what_is_redacted_shows_in_no_reason(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    secret = "correct-horse"
    settings = {
        "EXPORTER_API_REDACT": "*password*",
        "EXPORTER_EVENTS_STATE_FILE": str(tmp_path / "state"),
    }
    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, **settings))
        reason = f'login refused {{"user": "anna", "password": "{secret}"}}'
        write_failed(client, "1", reason)
    eventually(lambda: total(exporter, FAILED) == 1)
    [text] = by_text(exporter, FAILED)
    assert text.startswith("login refused") and secret not in text
    exporter.process.terminate()
    exporter.process.wait()
    assert secret.encode() not in (tmp_path / "state").read_bytes()


def test_what_is_redacted_from_now_on_does_not_come_back_from_the_state_file(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    secret, state = "correcthorse", tmp_path / "state"
    settings = {"EXPORTER_EVENTS_STATE_FILE": str(state)}
    texts = (
        f"login refused, password: {secret}",
        "no route to host",
        "token: [hidden] is no token",
    )

    def seen(exporter: Exporter) -> dict[str, int]:
        eventually(lambda: total(exporter, FAILED) == len(texts))
        return by_text(exporter, FAILED)

    def end(exporter: Exporter) -> None:
        exporter.process.terminate()
        exporter.process.wait()

    with server.client() as client:
        client.hset(f"{PREFIX}meta", "version", "bullmq:5.56.3")
        exporter = wait_following(start_exporter(server.url, **settings))
        for number, text in enumerate(texts):
            write_failed(client, str(number), text)
    before = seen(exporter)
    assert len(before) == len(texts)
    end(exporter)

    settings["EXPORTER_API_REDACT"] = "*password*"
    for _ in range(2):  # what is hidden already stays as it is
        exporter = wait_following(start_exporter(server.url, **settings))
        after = seen(exporter)
        [hidden] = before.keys() - after.keys()
        assert "login refused" in hidden
        assert after["earlier reasons"] == 1
        end(exporter)

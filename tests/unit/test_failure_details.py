"""What is read of jobs that failed, and when it is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from exporter.queues.errors import StoreUnavailable
from exporter.queues.failure_evidence import (
    FailedAttempt,
    FailureEvidence,
    JobEvidence,
    excerpt,
)
from exporter.queues.failure_reasons import fold
from exporter.queues.jobs import Job
from exporter.queues.queue import Queue, State
from exporter.stores.events.failure_details import (
    BATCH_SIZE,
    MAX_WAITING,
    READS_PER_SECOND,
    FailureDetails,
)

QUEUE, OTHER = Queue.named("bull", "mail"), Queue.named("bull", "index")
NOW = 1_795_500_000_000


def attempt(job_id: str, reason: str = "refused") -> FailedAttempt:
    folded, text = fold(reason), excerpt(reason)
    return FailedAttempt(job_id.encode(), None, NOW, None, True, folded, text)


def reason_of(number: int) -> str:
    """A reason of its own for each number."""
    return "".join(chr(0x61 + int(digit)) for digit in str(number)) + " failed"


class Store:
    """Jobs by queue and id, and what was asked for."""

    def __init__(self) -> None:
        self.jobs: dict[bytes, Job] = {}
        self.asked: list[tuple[Queue, Sequence[bytes]]] = []
        self.is_away = False

    async def read(self, queue: Queue, ids: Sequence[bytes]) -> Sequence[Job]:
        self.asked.append((queue, ids))
        if self.is_away:
            raise StoreUnavailable("away")
        return [self.jobs[each] for each in ids if each in self.jobs]

    def add(self, job_id: str, reason: str = "refused", **more: Any) -> None:
        values: dict[str, Any] = {
            **{"id": job_id, "raw_id": job_id.encode(), "name": "send", "state": State.FAILED},
            **{"data": {"ingestionSourceId": "source-1"}, "failed_reason": reason},
            **{"timestamp": 1, "processed_on": 2, "finished_on": 3, "attempts_made": 2},
            **{"stacktrace": ["first", "last"], "return_value": None, **more},
        }
        self.jobs[job_id.encode()] = Job(**values)


async def hidden(value: Any) -> Any:
    """Hides a source and the word `secret`."""
    if isinstance(value, dict):
        return dict.fromkeys(value, "[hidden]")
    return value.replace("secret", "[hidden]")


async def plain(value: Any) -> Any:
    return value


def jobs_of(details: FailureDetails) -> list[JobEvidence]:
    return [job for each in details.seen(QUEUE, NOW).reasons for job in each.jobs]


async def test_the_newest_job_of_each_reason_is_read() -> None:
    store = Store()
    details = FailureDetails(NOW, store.read, plain)
    store.add("2")
    details.note(QUEUE, [attempt("1"), attempt("2"), attempt("9", "declined")], NOW)
    details.note(OTHER, [attempt("3")], NOW)
    assert await details.read_some() == 3 / READS_PER_SECOND
    assert store.asked == [(QUEUE, [b"2", b"9"]), (OTHER, [b"3"])]
    [_, second] = [job for job in jobs_of(details) if job.text == b"refused"][::-1]
    assert (second.raw_id, second.name, second.attempts) == (b"2", "send", 2)
    assert (second.trace, second.source) == (b"last", "source-1")


async def test_no_more_are_read_at_once_than_is_allowed_and_too_many_are_dropped() -> None:
    store = Store()
    details = FailureDetails(NOW, store.read, plain)
    number = MAX_WAITING + 50
    details.note(QUEUE, [attempt(str(n), reason_of(n)) for n in range(number)], NOW)
    for _ in range(MAX_WAITING // BATCH_SIZE):
        assert await details.read_some() == BATCH_SIZE / READS_PER_SECOND
    read = [job_id for _, ids in store.asked for job_id in ids]
    assert read == [b"%d" % n for n in range(MAX_WAITING)]
    # Those that were dropped are known from their events all the same.
    assert len(jobs_of(details)) == number
    store.asked.clear()
    details.note(QUEUE, [attempt("new")], NOW)
    assert await details.read_some() == 1 / READS_PER_SECOND
    assert store.asked == [(QUEUE, [b"new"])]


async def test_a_job_that_has_failed_again_for_another_reason_adds_nothing() -> None:
    store = Store()
    details = FailureDetails(NOW, store.read, plain)
    store.add("1", "another reason")
    store.add("2", stacktrace=[None], data="no object")
    details.note(QUEUE, [attempt("1"), attempt("2", "declined")], NOW)
    store.jobs[b"2"] = store.jobs[b"2"]._replace(failed_reason="declined")
    await details.read_some()
    assert [(job.trace, job.source) for job in jobs_of(details)] == [(None, None)] * 2


async def test_an_outage_is_waited_for_by_nobody() -> None:
    store = Store()
    details = FailureDetails(NOW, store.read, plain)
    store.is_away = True
    details.note(QUEUE, [attempt("1")], NOW)
    await details.read_some()
    store.is_away = False
    store.add("2")
    details.note(QUEUE, [attempt("2")], NOW)
    await details.read_some()
    assert [job.trace for job in jobs_of(details)] == [b"last", None]


async def test_what_is_hidden_is_not_kept() -> None:
    store = Store()
    details = FailureDetails(NOW, store.read, hidden)
    store.add("1", "a secret", stacktrace=["at secret"])
    details.note(QUEUE, [attempt("1", "a [hidden]")], NOW)
    await details.read_some()
    [job] = jobs_of(details)
    assert (job.text, job.trace, job.source) == (b"a [hidden]", b"at [hidden]", "[hidden]")
    again = FailureDetails(0, store.read, hidden)
    again.remember(details.memory(NOW))
    assert jobs_of(again) == [job]


async def test_what_was_kept_before_redaction_was_turned_on_is_hidden_after_a_restart() -> None:
    store = Store()
    before = FailureDetails(NOW, store.read, plain)
    store.add("1", "a secret", stacktrace=["at secret"])
    store.add("3", "refused")
    before.note(QUEUE, [attempt("1", "a secret"), attempt("2", "a secret")], NOW)
    before.note(QUEUE, [attempt("3")], NOW)
    store.add("2", "a secret", stacktrace=["at secret"])
    await before.read_some()
    assert "secret" in str(before.memory(NOW))

    later = attempt("4", "a secret")._replace(text=excerpt("a [hidden], again"))

    async def while_another_fails(value: Any) -> Any:
        if value == "at secret" and later.raw_id not in {job.raw_id for job in jobs_of(after)}:
            after.note(QUEUE, [later], NOW)
        return await hidden(value)

    after = FailureDetails(0, store.read, while_another_fails)
    after.remember(before.memory(NOW))
    await after.read_some()
    assert "secret" not in str(after.memory(NOW))
    by_id = {job.raw_id: (job.text, job.trace, job.source) for job in jobs_of(after)}
    assert by_id == {
        b"1": (b"a [hidden]", None, None),
        b"2": (b"a [hidden]", b"at [hidden]", "[hidden]"),
        b"3": (b"refused", b"last", "[hidden]"),
        b"4": (b"a [hidden], again", None, None),
    }
    reasons = {each.reason.text for each in after.seen(QUEUE, NOW).reasons}
    assert reasons == {"a [hidden]", "refused"}
    copy = FailureEvidence(0)
    copy.remember(after.memory(NOW))
    assert copy.size == after._evidence.size

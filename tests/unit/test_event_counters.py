"""Which queues are counted, and what is kept of those that go, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.queues.queue import Queue
from exporter.queues.redact import unredacted
from exporter.queues.tallies import Count, FinishedJobs, Tallies
from exporter.settings import EventsSettings
from exporter.stores.events import event_counters
from exporter.stores.events.event_counters import EventCounters
from exporter.stores.events.resolver import Resolver

MAIL, INDEX = Queue.named("bull", "mail"), Queue.named("bull", "index")
DONE = [
    (b"1000-1", [b"event", b"added", b"jobId", b"1", b"name", b"send"]),
    (b"1000-2", [b"event", b"completed", b"jobId", b"1"]),
]


class Watched:
    """Counters of queues that the test chooses."""

    def __init__(self, *queues: Queue, state_file: Path | None = None) -> None:
        self.queues: tuple[Queue, ...] | None = queues or None
        self.counters = EventCounters(
            EventsSettings(state_file=state_file),
            lambda: self.queues,
            details=None,
            redact=unredacted,
            searched_at=lambda: None,
            not_watched_until=lambda _: None,
            request_priority=RequestPriority(),
        )

    def follow(self, *queues: Queue) -> None:
        self.queues = queues
        change = self.counters.find_change()
        assert change is not None
        self.counters.apply(change, [self.counters.open(queue) for queue in change.new])
        self.counters.is_current = True

    def complete_one(self, queue: Queue) -> None:
        counter = self.counters.by_queue[queue]
        counter.read(DONE)
        counter.cursor.advance(DONE)

    async def tallies(self) -> Tallies:
        found = await self.counters.tallies()
        assert found is not None
        return found

    async def completed(self, queue: Queue) -> int:
        [tally] = (await self.tallies()).queues[queue].by_name.values()
        return tally.values[Count.COMPLETED]


def test_before_queues_are_known_nothing_is_to_change() -> None:
    watched = Watched()
    assert watched.counters.find_change() is None
    assert not watched.counters.has_begun


def test_a_change_is_found_until_it_is_applied() -> None:
    """What is asked of the store in between may fail."""
    watched = Watched(MAIL)
    first = watched.counters.find_change()
    assert first == watched.counters.find_change()
    watched.follow(MAIL, INDEX)
    assert watched.counters.find_change() is None
    assert [*watched.counters.by_queue] == [MAIL, INDEX]


async def test_a_queue_that_comes_back_is_counted_on() -> None:
    watched = Watched()
    watched.follow(MAIL, INDEX)
    watched.complete_one(MAIL)
    watched.follow(INDEX)
    assert [*(await watched.tallies()).queues] == [INDEX]
    assert (await watched.tallies()).removed == FinishedJobs(completed=1)
    # It is still there when the change that brings it back is found, and not applied.
    watched.queues = (MAIL,)
    assert watched.counters.find_change() is not None
    watched.follow(MAIL)
    assert await watched.completed(MAIL) == 1
    assert watched.counters.by_queue[MAIL].cursor.position == DONE[-1][0]
    # What finished before is counted once among the removed.
    watched.complete_one(MAIL)
    watched.follow(INDEX)
    assert (await watched.tallies()).removed == FinishedJobs(completed=2)


async def test_only_so_many_removed_queues_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_counters, "MAX_REMOVED_QUEUES", 1)
    watched = Watched()
    watched.follow(MAIL, INDEX)
    watched.complete_one(MAIL)
    watched.complete_one(INDEX)
    watched.follow(MAIL)
    watched.follow(Queue.named("bull", "other"))
    watched.follow(MAIL, INDEX)
    completed = {MAIL: 1, INDEX: 0}
    found = (await watched.tallies()).queues
    assert {queue: bool(found[queue].by_name) for queue in completed} == {MAIL: True, INDEX: False}


async def test_nothing_is_published_while_events_cannot_be_read() -> None:
    watched = Watched()
    watched.follow(MAIL)
    watched.counters.is_current = False
    assert await watched.counters.tallies() is None


class Stopped(Exception):
    """Ends `run`, as a cancellation would."""


async def run(watched: Watched, *, is_done: bool = True) -> None:
    """One round, in which a job of MAIL is completed if the counter is new; then the end."""

    async def ask(*_: object, **__: object) -> dict[bytes, object]:
        return {}

    resolver = Resolver(
        ask,  # type: ignore[arg-type]
        None,
        redact=unredacted,
        request_priority=RequestPriority(),
        now=watched.counters.now,
    )

    async def read() -> None:
        watched.follow(MAIL)
        if not watched.counters.by_queue[MAIL].tallies:
            watched.complete_one(MAIL)
        if not is_done:
            counter = watched.counters.by_queue[MAIL]
            counter.read([(b"1001-1", [b"event", b"completed", b"jobId", b"unknown"])])
            resolver.note(counter)

    await watched.counters.run(
        read,  # type: ignore[arg-type]
        failed=lambda: None,
        resolver=resolver,
        deadline=Deadline(),
    )


@pytest.mark.parametrize("is_done", [True, False])
async def test_a_restart_goes_on_unless_something_was_counted_in_part(
    is_done: bool, tmp_path: Path
) -> None:
    await run(Watched(state_file=tmp_path / "state"), is_done=is_done)
    again = Watched(state_file=tmp_path / "state")
    await run(again)
    assert await again.completed(MAIL) == 1
    assert again.counters.begins_now is False
    restored = (await again.tallies()).queues[MAIL].by_name["send"].restored
    assert restored is is_done

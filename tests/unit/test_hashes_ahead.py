"""A job's hash is read after its events: it may include attempts whose events are still unread."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from exporter.queues.event_log import Entry
from exporter.queues.job_facts import JobFacts
from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Count, Layout
from exporter.queues.tracked_jobs import JobBudget

JOB = b"1"


@dataclass
class Life:
    """A job's events, and its hash after each: every attempt but the last one fails."""

    version: str
    entries: list[Entry] = field(default_factory=list)
    hashes: list[JobFacts] = field(default_factory=list)

    def live(self, retries: list[str], *, ends: str) -> None:
        at = 10
        made = started = processed_on = 0

        def write(event: str, prev: str = "", *, locked: bool = False, over: bool = False) -> None:
            nonlocal at
            at += 10
            fields = [b"event", event.encode(), b"jobId", JOB]
            fields += [b"prev", prev.encode()] if prev else []
            self.entries.append((b"%d-0" % at, fields))
            self.hashes.append(
                JobFacts(
                    *(b"import", b"%d" % made, None, b"%d" % started),
                    *(b"%d" % processed_on, b"%d" % at if over else None),
                    locked=locked,
                    has_failed_reason=made > 0,
                    opts=b'{"attempts": %d}' % (len(retries) + 1),
                )
            )

        write("waiting")
        for way in [*retries, ""]:
            started += 1
            processed_on = at + 10
            write("active", "waiting", locked=True)
            made += 1
            if way == "backoff":
                write("delayed")
                write("waiting", "delayed")
            elif way:
                write("waiting", "failed" if self.version == "bullmq5" else "active")
        write(ends, "active", over=True)

    @property
    def failed(self) -> list[int]:
        """The entries that a failed attempt wrote, by their numbers."""
        return [
            number
            for number, (_, fields) in enumerate(self.entries)
            if fields[1] == b"delayed"
            or (fields[-1] in (b"failed", b"active") and b"waiting" in fields)
        ]


def counted(version: str, seed: int) -> tuple[int, int, list[Entry]]:
    """How many retries are counted of a job that is not known, how many there were, and where.

    It begins to be followed anywhere in its life; its hash is as new as it may be.
    """
    chance = random.Random(seed)
    life = Life(version)
    ways = [chance.choice(["at once", "backoff"]) for _ in range(chance.randrange(4))]
    life.live(ways, ends=chance.choice(["completed", "failed"]))
    counter = QueueEventCounter(
        Queue.named("bull", "q"), Layout((1,), (1,)), JobBudget(10), max_names=10
    )
    # With `waiting` after `failed`, which 5.x writes for a retry by hand, too, none begins.
    firsts = [n for n, (_, fields) in enumerate(life.entries) if fields[-1] != b"failed"]
    begins = read = chance.choice(firsts)
    hash_at = read  # the first entry that the hash does not include
    while read < len(life.entries):
        # As a stream is read: what was written before the last look at the hash is read in parts,
        # and then, to the end, what is new.
        end = chance.randint(read + 1, len(life.entries))
        counter.read(life.entries[read:end])
        if end >= hash_at and chance.random() < 0.7:
            counter.note_caught_up()
        read = end
        hash_at = chance.randint(max(end, hash_at), len(life.entries))
        if counter.unresolved():
            counter.resolve({JOB: life.hashes[hash_at - 1]})
    retried = sum(tally.values[Count.RETRIED] for tally in counter.tallies.values())
    truth = sum(begins <= number for number in life.failed)
    return retried, truth, life.entries[begins:]


@pytest.mark.parametrize("version", ["bullmq5", "bullmq6"])
def test_each_retry_of_a_job_that_is_not_known_counts_once(version: str) -> None:
    for seed in range(1000):
        retried, truth, entries = counted(version, seed)
        assert retried == truth, (seed, entries)

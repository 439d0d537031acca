"""Jobs that are listed although their hash is gone: evicted by Redis, or deleted by somebody."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from exporter.concurrency.batches import batched
from exporter.concurrency.rounds import ReadInRounds
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading
from exporter.settings import Settings
from exporter.stores.redis.client import Command, RedisReader
from exporter.stores.redis.eviction_policy import EvictionPolicy

log = logging.getLogger(__name__)

# How many jobs are checked at each end of each list and set.
EDGE_JOBS = 5
# How many queues one round checks (the next round continues), and how many at once: at most 500
# commands, between which Redis serves others. Each batch is up to four round trips.
MAX_QUEUES_PER_ROUND = 250
QUEUE_BATCH_SIZE = 50
# How far from each end of a list a job is searched for again.
LIST_REACH = 1000
# Maximum number of queues that one round names in the log.
MAX_LOGGED_QUEUES = 5

LISTS = (b"wait", b"paused", b"active")
# Which keys hold the jobs of a state; pausing in 6.x leaves jobs in `wait` (poll.counts_of).
KEYS = {
    State.WAITING: (b"wait",),
    State.PAUSED: (b"paused", b"wait"),
    State.ACTIVE: (b"active",),
}


class _Place(NamedTuple):
    """A list or a sorted set of a queue."""

    queue: Queue
    state: State
    name: bytes

    @property
    def key(self) -> bytes:
        return self.queue.base + self.name

    @property
    def edges(self) -> list[Command]:
        command = "LRANGE" if self.name in LISTS else "ZRANGE"
        return [(command, self.key, 0, EDGE_JOBS - 1), (command, self.key, -EDGE_JOBS, -1)]

    def exists(self, job_id: bytes) -> Command:
        return ("EXISTS", self.queue.job_key(job_id))

    def is_listed(self, job_id: bytes) -> list[Command]:
        """Two commands; one of them finds the job."""
        if self.name in LISTS:
            return [
                ("LPOS", self.key, job_id, "RANK", rank, "MAXLEN", LIST_REACH) for rank in (1, -1)
            ]
        return [("ZSCORE", self.key, job_id)] * 2


class MissingJobs(ReadInRounds[Mapping[State, int]]):
    """Searches for missing jobs at the ends of each queue's lists and sets."""

    name = "missing_jobs"
    max_share = 1.0
    problem = "missing jobs cannot be searched for"
    consequence = "bullmq_queue_missing_jobs is absent and BullMQJobsMissing cannot fire"

    def __init__(self, redis: RedisReader, settings: Settings) -> None:
        super().__init__(settings.discovery_interval)
        self._redis = redis
        self._policy = EvictionPolicy(redis)

    async def collect(
        self, readings: Sequence[QueueReading], *, seconds: float
    ) -> Mapping[Queue, Mapping[State, int]]:
        """The number of missing jobs of each checked queue by state, after a round; 0 if none is
        missing.

        States without jobs, and those that could not be read, have no entry. Raises
        RedisUnavailable.
        """
        with_jobs = {each.queue: each for each in readings if any(each.counts.values())}

        async def read(queues: list[Queue]) -> dict[Queue, Mapping[State, int]]:
            places = [place for queue in queues for place in _places(with_jobs[queue])]
            return await count_missing(self._redis, places)

        before = self._rounds.known
        found = await self._rounds.read(list(with_jobs), _batches, read, seconds=seconds)
        begun = [
            queue for queue in found if _total(found[queue]) and not _total(before.get(queue, {}))
        ]
        if begun:
            await self._log(begun)
        return found

    async def _log(self, queues: Sequence[Queue]) -> None:
        policy = await self._policy.read()
        hint: dict[str, Any] = {} if policy is None else {"maxmemory_policy": policy}
        for queue in queues[:MAX_LOGGED_QUEUES]:
            states = ", ".join(
                f"{number} {state}" for state, number in self._rounds.known[queue].items() if number
            )
            log.warning(
                "jobs have no data: evicted or deleted",
                extra={"queue": queue.name, "missing": states} | hint,
            )
        if len(queues) > MAX_LOGGED_QUEUES:
            log.warning(
                "jobs of more queues have no data",
                extra={"count": len(queues) - MAX_LOGGED_QUEUES},
            )


def _batches(queues: Iterable[Queue]) -> Iterator[list[Queue]]:
    return batched(islice(queues, MAX_QUEUES_PER_ROUND), QUEUE_BATCH_SIZE)


def _total(states: Mapping[State, int]) -> int:
    return sum(states.values())


def _places(reading: QueueReading) -> Iterator[_Place]:
    for state, number in reading.counts.items():
        if number:
            for name in KEYS.get(state, (state.encode(),)):
                if name != b"wait" or state is State.WAITING or reading.paused:
                    yield _Place(reading.queue, state, name)


async def count_missing(
    redis: RedisReader, places: Sequence[_Place]
) -> dict[Queue, Mapping[State, int]]:
    """How many jobs at the ends of these have no hash. Raises RedisUnavailable.

    BullMQ removes a job's hash and its id in one script. So a job is missing only if its hash did
    not exist, its id was still listed after that, and its hash did not exist in a second check.
    """
    answers = await redis.pipeline([command for place in places for command in place.edges])
    ids: list[tuple[_Place, list[bytes]]] = []
    for at, place in enumerate(places):
        head, tail = answers[2 * at : 2 * at + 2]
        if isinstance(head, list) and isinstance(tail, list):
            ids.append((place, [each for each in dict.fromkeys(head + tail) if not _marks(each)]))
    numbers = await redis.pipeline(
        [("EXISTS", *map(place.queue.job_key, some)) for place, some in ids if some]
    )
    replies = iter(numbers)
    unclear = [
        (place, job_id)
        for place, some in ids
        if some and next(replies) != len(some)
        for job_id in some
    ]
    missing = Counter((place.queue, place.state) for place, _ in await _confirmed(redis, unclear))
    found: dict[Queue, dict[State, int]] = {}
    for place, _ in ids:
        number = missing[place.queue, place.state]
        found.setdefault(place.queue, {})[place.state] = number
    return dict(found)


async def _confirmed(
    redis: RedisReader, jobs: Iterable[tuple[_Place, bytes]]
) -> list[tuple[_Place, bytes]]:
    jobs = list(jobs)
    first = await redis.pipeline([place.exists(job_id) for place, job_id in jobs])
    gone = [job for job, exists in zip(jobs, first, strict=True) if exists == 0]
    again = await redis.pipeline(
        [
            command
            for place, job_id in gone
            for command in (*place.is_listed(job_id), place.exists(job_id))
        ]
    )
    rows = [again[at : at + 3] for at in range(0, len(again), 3)]
    return [
        job
        for job, (left, right, exists) in zip(gone, rows, strict=True)
        if exists == 0 and (_is_found(left) or _is_found(right))
    ]


def _is_found(answer: Any) -> bool:
    return answer is not None and not isinstance(answer, Exception)


def _marks(job_id: bytes) -> bool:
    """Whether it is not a job but the marker that lists could end with before BullMQ 5.0."""
    return job_id.startswith(b"0:")

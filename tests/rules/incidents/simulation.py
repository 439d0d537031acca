"""Queues with their jobs, workers and schedulers, in steps, as the exporter exposes them.

A history is a function of time: at each step it gets the application as it is when all is well
(`App`) and changes what is wrong then. What follows from that (jobs that wait, retries, ages,
counters) the simulation keeps.
"""

from __future__ import annotations

import math
import random
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

# By queue ("" for what is the exporter's own), and name of the metric with its further labels:
# bullmq_job_count|state=waiting.
Samples = dict[tuple[str, str], float]
LOCK_SECONDS = 30
NEW_SERIES_AT_ZERO_SECONDS = 60  # metrics.scrape_interval
FAILED_JOBS_KEPT = 5000
REASONS_WITH_SERIES = 20  # events.max_reasons
OTHER_REASONS = "__other__"
STALLED = "job stalled more than allowable limit"


@dataclass
class Jobs:
    """How the jobs of one name come and end."""

    per_minute: float
    fails: float = 0.0  # the share of attempts that fail
    reasons: tuple[str, ...] = ("timeout",)  # why, one after the other
    attempts: int = 1
    backoff_seconds: int = 60  # doubled after each further attempt
    runs_seconds: int = 0  # 0: ends within the step in which it was taken
    hangs: bool = False  # never ends, and its worker renews its lock
    kills_worker: bool = False  # its workers die, for a minute
    priority: int = 0  # above 0: taken after all jobs without a priority


@dataclass
class Queue:
    """A queue and its workers at one moment."""

    jobs: dict[str, Jobs]
    capacity_per_minute: float = 240
    workers: int = 2  # that are connected
    takes: bool = True  # False: workers are connected and take nothing
    promotes: bool = True  # False: delayed jobs stay delayed
    adds: dict[str, int] = field(default_factory=dict)  # further jobs, at this step
    slots: int = 20  # jobs at once
    paused: bool = False
    limit_per_minute: float | None = None  # setGlobalRateLimit
    heartbeats: bool = False  # Open Archiver's
    schedulers: dict[str, int] = field(default_factory=dict)  # minutes between their runs
    broken_schedulers: tuple[str, ...] = ()  # whose next job is gone
    there: bool = True  # False: none of its keys is in Redis
    gauges: dict[str, float] = field(default_factory=dict)  # further ones


@dataclass
class App:
    """An application's queues, and the exporter that watches them, at one moment."""

    queues: dict[str, Queue]
    instance: str = "exporter:9538"
    scraped: bool = True
    redis_answers: bool = True  # to the exporter
    emptied: bool = False  # FLUSHALL, or another Redis with no data
    restarts: int = 0  # of the exporter, without a state file: counters begin at 0
    poll_seconds: int = 5
    poll_takes_seconds: float = 0.05
    polls: bool = True  # False: it answers scrapes, and reads nothing any more
    clock_behind_seconds: float = 0  # the application's, compared with Redis's and Prometheus's
    gauges: dict[str, float] = field(default_factory=dict)  # further ones of the exporter


Happens = Callable[[App, float], None]


@dataclass(frozen=True)
class History:
    """What was exposed, step by step."""

    step_seconds: int
    instances: list[str]
    steps: list[Samples | None]  # None: it could not be scraped
    queues: set[str]


def simulate(
    normal: Callable[[], App],
    happens: Happens,
    begins: float,
    ends: float,
    minutes: int,
    step_seconds: int,
    seed: str,
) -> History:
    """`happens` gets the minutes since it began. Times are minutes of the history."""
    chance = random.Random(seed)
    exporter, history = _Exporter(), History(step_seconds, [], [], set())
    for second in range(0, minutes * 60 + 1, step_seconds):
        app = normal()
        if begins <= second / 60 < ends:
            happens(app, second / 60 - begins)
        exporter.step(app, second, step_seconds, chance)
        history.steps.append(exporter.expose(app) if app.scraped else None)
        history.instances.append(app.instance)
        history.queues.update(app.queues)
    return history


def several(expected: float, chance: random.Random) -> int:
    """A Poisson variate."""
    if expected <= 0:
        return 0
    if expected > 50:
        return max(0, round(chance.gauss(expected, math.sqrt(expected))))
    number, product, limit = 0, chance.random(), math.exp(-expected)
    while product > limit:
        number += 1
        product *= chance.random()
    return number


def share(number: int, probability: float, chance: random.Random) -> int:
    """A binomial variate."""
    if probability <= 0 or number == 0:
        return 0
    if probability >= 1:
        return number
    if number > 200:
        spread = math.sqrt(number * probability * (1 - probability))
        return min(number, max(0, round(chance.gauss(number * probability, spread))))
    return sum(chance.random() < probability for _ in range(number))


@dataclass
class _Batch:
    """Jobs of one name and attempt that became ready, or will, at one moment."""

    ready: float
    name: str
    attempt: int
    number: int


@dataclass
class _Active:
    """A job that runs for longer than a step."""

    name: str
    attempt: int
    started: float
    ends: float
    stalled: int = 0


@dataclass
class _Reasons:
    """Why jobs failed, as far as the exporter knows: by the metric that counts them and reason."""

    since: float | None = None
    first_seen: dict[str, float] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    shown_since: dict[tuple[str, str], float] = field(default_factory=dict)
    failures: int = 0

    def count(self, metric: str, reasons: tuple[str, ...], number: int, now: float) -> None:
        for _ in range(number):
            reason = reasons[self.failures % len(reasons)]
            self.failures += 1
            self.first_seen.setdefault(reason, now)
            own = sum(known == metric for known, _ in self.counts)
            if (metric, reason) not in self.counts and own >= REASONS_WITH_SERIES:
                reason = OTHER_REASONS
            self.shown_since.setdefault((metric, reason), now)
            self.counts[metric, reason] += 1

    def expose(self, now: float) -> Iterator[tuple[str, float]]:
        if not self.counts:
            return
        assert self.since is not None
        yield "bullmq_queue_failure_reasons_since_timestamp_seconds", self.since
        for (metric, reason), number in self.counts.items():
            shown = now - self.shown_since[metric, reason] > NEW_SERIES_AT_ZERO_SECONDS
            yield f"{metric}|{_reason_labels(reason)}", number if shown else 0
        for reason in {reason for _, reason in self.counts} - {OTHER_REASONS}:
            name = "bullmq_job_failure_reason_first_seen_timestamp_seconds"
            yield f"{name}|{_reason_labels(reason)}", self.first_seen[reason]


def _reason_labels(reason: str) -> str:
    is_own = reason != OTHER_REASONS
    fingerprint = f"{zlib.crc32(reason.encode()):012x}" if is_own else reason
    return f"fingerprint={fingerprint}|reason={reason}"


@dataclass
class _QueueState:
    waiting: deque[_Batch] = field(default_factory=deque)
    prioritized: deque[_Batch] = field(default_factory=deque)
    delayed: list[_Batch] = field(default_factory=list)
    active: list[_Active] = field(default_factory=list)
    next_runs: dict[str, float] = field(default_factory=dict)
    last_runs: dict[str, float] = field(default_factory=dict)
    counters: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    seen: dict[str, float] = field(default_factory=dict)  # since when, of each job name
    reasons: _Reasons = field(default_factory=_Reasons)
    failed: int = 0
    heartbeat: float | None = None
    limited_until: float | None = None
    workers_gone: float | None = None  # since when
    killed_until: float = 0
    rest: float = 0  # of the capacity, below one job

    def count(self, what: str, name: str, number: int, now: float) -> None:
        self.seen.setdefault(name, now)
        self.counters[what, name] += number

    def step(self, queue: Queue, now: float, seconds: int, chance: random.Random) -> None:
        if self.reasons.since is None:
            self.reasons.since = now
        for name, jobs in queue.jobs.items():
            number = several(jobs.per_minute * seconds / 60, chance) + queue.adds.get(name, 0)
            if number:
                self.count("added", name, number, now)
                self._enqueue(queue, _Batch(now, name, 1, number))
        alive = queue.workers > 0 and now >= self.killed_until
        if alive:
            self.workers_gone = None
        elif self.workers_gone is None:
            self.workers_gone = now
        self.next_runs = {
            name: run for name, run in self.next_runs.items() if name in queue.schedulers
        }
        for name, every in queue.schedulers.items():
            self.next_runs.setdefault(name, (now // (every * 60) + 1) * every * 60)
        if alive and queue.takes:
            if queue.heartbeats:
                self.heartbeat = now
            self._make_ready(queue, now)
            self._give_back(queue, now, chance)
            self._end(queue, now, chance)
            if not queue.paused:
                self._take(queue, now, seconds, chance)
        elif alive:
            self._end(queue, now, chance)

    def _enqueue(self, queue: Queue, batch: _Batch) -> None:
        jobs = queue.jobs.get(batch.name)
        (self.prioritized if jobs and jobs.priority else self.waiting).append(batch)

    def _make_ready(self, queue: Queue, now: float) -> None:
        if not queue.promotes:
            return
        due = [batch for batch in self.delayed if batch.ready <= now]
        self.delayed = [batch for batch in self.delayed if batch.ready > now]
        for batch in due:
            self._enqueue(queue, _Batch(now, batch.name, batch.attempt, batch.number))
        for name, run in self.next_runs.items():
            waits = any(batch.name == name for batch in self.waiting)
            if run <= now and not waits and name not in queue.broken_schedulers:
                self.count("added", name, 1, now)
                self.waiting.append(_Batch(now, name, 1, 1))

    def _give_back(self, queue: Queue, now: float, chance: random.Random) -> None:
        """A living worker moves jobs of dead ones back; at the second time they fail."""
        for job in [job for job in self.active if job.ends == -1]:
            self.active.remove(job)
            self.count("stalled", job.name, 1, now)
            if job.stalled:
                self._fail(job.name, 1, (STALLED,), now)
            else:
                self.waiting.appendleft(_Batch(now, job.name, -job.attempt, 1))

    def _end(self, queue: Queue, now: float, chance: random.Random) -> None:
        ended = [job for job in self.active if 0 <= job.ends <= now]
        self.active = [job for job in self.active if job not in ended]
        for job in ended:
            self._finish(queue, _Batch(now, job.name, job.attempt, 1), now, chance)

    def _fail(self, name: str, number: int, reasons: tuple[str, ...], now: float) -> None:
        self.failed += number
        self.reasons.count("bullmq_job_failure_reasons_total", reasons, number, now)
        self.count("failed", name, number, now)
        self.count("retries_exhausted", name, number, now)

    def _finish(self, queue: Queue, batch: _Batch, now: float, chance: random.Random) -> None:
        jobs = queue.jobs.get(batch.name) or Jobs(0)
        failing = share(batch.number, jobs.fails, chance)
        self.count("completed", batch.name, batch.number - failing, now)
        if failing and batch.attempt < jobs.attempts:
            self.count("retried", batch.name, failing, now)
            self.reasons.count("bullmq_job_retry_reasons_total", jobs.reasons, failing, now)
            due = now + jobs.backoff_seconds * 2 ** (batch.attempt - 1)
            self.delayed.append(_Batch(due, batch.name, batch.attempt + 1, failing))
        elif failing:
            self._fail(batch.name, failing, jobs.reasons, now)

    def _take(self, queue: Queue, now: float, seconds: int, chance: random.Random) -> None:
        self.rest += queue.capacity_per_minute * seconds / 60 * chance.uniform(0.85, 1.15)
        limit = math.inf
        if queue.limit_per_minute is not None:
            limit = queue.limit_per_minute * seconds / 60
            self.rest = min(self.rest, limit)
        left = int(self.rest)
        self.rest = min(self.rest - left, 1)
        taken = 0
        while left and (line := self.waiting or self.prioritized):
            batch = line[0]
            free = queue.slots - len(self.active)
            jobs = queue.jobs.get(batch.name) or Jobs(0)
            number = min(left, batch.number)
            if jobs.runs_seconds or jobs.hangs or jobs.kills_worker:
                number = min(number, 1 if jobs.kills_worker else free)
            if free <= 0 or not number:
                break
            batch.number -= number
            if not batch.number:
                line.popleft()
            left, taken = left - number, taken + number
            self.count("taken", batch.name, number, now)
            if batch.name in queue.schedulers:
                self.last_runs[batch.name] = now
                every = queue.schedulers[batch.name] * 60
                self.next_runs[batch.name] = (now // every + 1) * every
            attempt, stalled = abs(batch.attempt), int(batch.attempt < 0)
            if jobs.kills_worker:
                ends = -1.0
                self.killed_until = now + 60
            elif jobs.hangs:
                ends = math.inf
            elif jobs.runs_seconds:
                ends = now + jobs.runs_seconds * chance.uniform(0.8, 1.2)
            else:
                self._finish(queue, _Batch(now, batch.name, attempt, number), now, chance)
                continue
            self.active += [_Active(batch.name, attempt, now, ends, stalled) for _ in range(number)]
            if jobs.kills_worker:
                break
        waits = bool(self.waiting or self.prioritized)
        limited = queue.limit_per_minute is not None and waits and taken >= int(limit)
        self.limited_until = now + 60 if limited else None

    def lose_workers(self, now: float) -> None:
        """Jobs whose worker has been gone for longer than a lock lasts are no longer held."""
        if self.workers_gone is not None and now - self.workers_gone >= LOCK_SECONDS:
            for job in self.active:
                job.ends = -1

    def gauges(self, queue: Queue, now: float, behind: float) -> Iterator[tuple[str, float]]:
        """What a poll reads. `behind` is how far behind the application's clock is, in seconds."""
        waiting = sum(batch.number for batch in self.waiting)
        prioritized = sum(batch.number for batch in self.prioritized)
        delayed = sum(batch.number for batch in self.delayed)
        lined_up = {batch.name for batch in self.waiting}
        planned = [
            run
            for name, run in self.next_runs.items()
            if name not in lined_up and name not in queue.broken_schedulers
        ]
        alive = queue.workers > 0 and now >= self.killed_until
        counts = {
            "waiting": 0 if queue.paused else waiting,
            "paused": waiting if queue.paused else 0,
            "prioritized": prioritized,
            "delayed": delayed + len(planned),
            "active": len(self.active),
            "failed": min(FAILED_JOBS_KEPT, self.failed),
        }
        yield from ((f"bullmq_job_count|state={state}", n) for state, n in counts.items())
        yield "bullmq_queue_paused", int(queue.paused)
        yield "bullmq_queue_workers", queue.workers if alive else 0
        yield "bullmq_queue_schedulers", len(self.next_runs)
        yield "bullmq_queue_duplicate_schedulers", 0
        yield "bullmq_queue_clock_offset_seconds", -behind
        yield "bullmq_queue_retention_limit|state=failed", FAILED_JOBS_KEPT
        ready = [batch.ready for line in (self.waiting, self.prioritized) for batch in line]
        if ready and not queue.paused:
            yield "bullmq_queue_oldest_waiting_timestamp_seconds", min(ready)
        if self.active:
            oldest = min(self.active, key=lambda job: job.started)
            yield "bullmq_queue_oldest_active_timestamp_seconds", oldest.started - behind
            yield "bullmq_queue_oldest_active_locked", int(oldest.ends != -1)
        due = [batch.ready for batch in self.delayed] + planned
        if due:
            yield "bullmq_queue_next_delayed_timestamp_seconds", min(due) - behind
        for name, run in self.next_runs.items():
            yield f"bullmq_scheduler_next_run_timestamp_seconds|scheduler={name}", run - behind
            every = queue.schedulers[name] * 60
            yield f"bullmq_scheduler_interval_seconds|scheduler={name}", every
            if name in self.last_runs:
                last = self.last_runs[name] - behind
                yield f"bullmq_scheduler_last_run_timestamp_seconds|scheduler={name}", last
        if queue.limit_per_minute is not None:
            yield "bullmq_queue_rate_limit_max", queue.limit_per_minute
            yield "bullmq_queue_rate_limit_duration_seconds", 60
        if self.limited_until is not None:
            yield "bullmq_queue_rate_limited_until_timestamp_seconds", self.limited_until
        if self.heartbeat is not None and now - self.heartbeat < 600:
            yield "bullmq_worker_heartbeat_timestamp_seconds", self.heartbeat - behind
        yield from queue.gauges.items()


COUNTERS = {
    "added": "bullmq_job_added_total",
    "completed": "bullmq_job_completed_total",
    "failed": "bullmq_job_failed_total",
    "retried": "bullmq_job_retried_total",
    "stalled": "bullmq_job_stalled_total",
    "retries_exhausted": "bullmq_job_retries_exhausted_total",
    "taken": "bullmq_job_wait_duration_seconds_count",
}


class _Exporter:
    def __init__(self) -> None:
        self._queues: dict[str, _QueueState] = {}
        self._read: Samples = {}  # by the last poll
        self._counters: Samples = {}
        self._last_poll = 0.0
        self._failed = True  # the last poll
        self._restarts = 0
        self._polled = 0
        self._poll_buckets = dict.fromkeys(("0.1", "1", "10", "+Inf"), 0)

    def step(self, app: App, now: float, seconds: int, chance: random.Random) -> None:
        if app.emptied:
            self._queues.clear()
        if app.restarts != self._restarts:
            self._restarts = app.restarts
            for state in self._queues.values():
                state.counters.clear()
                state.seen.clear()
                state.reasons = _Reasons()
        for name, queue in app.queues.items():
            if not queue.there:
                self._queues.pop(name, None)
                continue
            state = self._queues.setdefault(name, _QueueState())
            state.step(queue, now, seconds, chance)
            state.lose_workers(now)
        if app.polls and app.redis_answers:
            if self._failed or now - self._last_poll >= app.poll_seconds:
                self._last_poll, self._failed = now, False
                self._polled += 1
                for le in self._poll_buckets:
                    self._poll_buckets[le] += app.poll_takes_seconds <= float(le)
                self._read = dict(self._gauges(app, now))
            self._counters = dict(self._counts(now))
        elif not app.redis_answers:
            self._failed = True

    def _gauges(self, app: App, now: float) -> Iterator[tuple[tuple[str, str], float]]:
        for name, state in self._queues.items():
            for metric, value in state.gauges(app.queues[name], now, app.clock_behind_seconds):
                yield (name, metric), value

    def _counts(self, now: float) -> Iterator[tuple[tuple[str, str], float]]:
        for queue, state in self._queues.items():
            yield (queue, "bullmq_exporter_events_missed_total"), 0
            for name, since in state.seen.items():
                shown = now - since > NEW_SERIES_AT_ZERO_SECONDS
                for what, metric in COUNTERS.items():
                    value = state.counters[what, name] if shown else 0
                    yield (queue, f"{metric}|name={name}"), value
            for metric, value in state.reasons.expose(now):
                yield (queue, metric), value

    def expose(self, app: App) -> Samples:
        own = {
            "up": 1,
            "bullmq_up": int(app.redis_answers),
            "bullmq_exporter_build_info": 1,
            "bullmq_exporter_queues": len(self._queues),
            "bullmq_exporter_events_followed": 1,
            "bullmq_exporter_events_read_total": self._polled,
            "bullmq_exporter_event_lag_seconds": 0,
            "bullmq_exporter_clock_offset_seconds": 0,
            "bullmq_exporter_unreadable_values": 0,
            "bullmq_exporter_last_poll_timestamp_seconds": self._last_poll,
        }
        for le, polls in self._poll_buckets.items():
            own[f"bullmq_exporter_poll_duration_seconds_bucket|le={le}"] = polls
        samples = {("", name): value for name, value in (own | app.gauges).items()}
        return samples | self._read | self._counters if app.redis_answers else samples

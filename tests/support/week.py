"""A week of Open Archiver as Prometheus would have scraped it, minute by minute."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable

DAY = 24 * 60  # minutes
TARGET = 'job="bullmq",instance="sidecar:9538"'
STALE = "stale"


class Week:
    """Mail by day, imports by night, deployments, a pause, a Redis that restarts; all is well.

    Jobs are worked on as they come, oldest first. Some attempts fail and are tried again; of
    thousands of jobs a single one fails for good now and then.
    """

    def __init__(self, days: int = 7) -> None:
        self.minutes = days * DAY
        self._without_workers: dict[str, set[int]] = defaultdict(set)

    def stop_workers(self, queue: str, day: int, hour: int, minutes: int) -> None:
        start = day * DAY + hour * 60
        self._without_workers[queue] |= set(range(start, start + minutes))

    def series(self) -> list[dict[str, str]]:
        """The `input_series` of a promtool test."""
        values: dict[str, list[str]] = {}
        for name, arrivals, capacity, scheduler in (
            # Continuous syncs, and from 2:00 on the night's import of 3,000 mailboxes.
            ("ingestion", self._ingestion, 40, "schedule-continuous-sync"),
            ("indexing", self._indexing, 60, "reconcile-index"),
            ("compliance", self._compliance, 5, "enforce-retention"),
        ):
            self._work(values, name, arrivals, capacity, scheduler)
        values[f"bullmq_up{{{TARGET}}}"] = [
            "0" if self._redis_restarts(at) else "1" for at in range(self.minutes)
        ]
        values[f"up{{{TARGET}}}"] = ["1"] * self.minutes
        for name in ("build_info", "events_read_total"):
            values[f"bullmq_exporter_{name}{{{TARGET}}}"] = ["1"] * self.minutes
        return [
            {"series": series, "values": " ".join(samples)} for series, samples in values.items()
        ]

    def _work(
        self,
        values: dict[str, list[str]],
        queue: str,
        arrivals: Callable[[int, random.Random], int],
        capacity: int,
        scheduler: str,
    ) -> None:
        chance = random.Random(queue)
        waiting: list[int] = []  # when each was added
        total: dict[str, int] = dict.fromkeys(
            ("added", "completed", "failed", "retried", "stalled", "taken"), 0
        )
        next_run, heartbeat = 60, 0
        for at in range(self.minutes):
            workers = at not in self._without_workers[queue] and not self._deployed(at)
            paused = queue == "indexing" and 4 * DAY + 600 <= at < 4 * DAY + 630  # maintenance
            added = arrivals(at, chance)
            waiting += [at] * added
            total["added"] += added
            if workers:
                heartbeat = at
            if workers and not paused:
                done = min(len(waiting), round(capacity * chance.uniform(0.7, 1)))
                del waiting[:done]
                total["taken"] += done
                failing = sum(chance.random() < 0.01 for _ in range(done))
                for_good = sum(chance.random() < 0.1 for _ in range(failing))
                total["retried"] += failing - for_good
                total["failed"] += for_good
                total["completed"] += done - failing
                total["taken"] += failing
                # Its job waits in line like all others.
                if at >= next_run and (not waiting or waiting[0] > next_run):
                    next_run = (at // 60 + 1) * 60
            if self._deployed(at):
                total["stalled"] += queue == "ingestion"
            if self._exporter_restarts(at):
                total = dict.fromkeys(total, 0)
            gone = self._redis_restarts(at)
            reported: dict[str, float | None] = {
                'bullmq_job_count{state="waiting"}': 0 if paused else len(waiting),
                'bullmq_job_count{state="paused"}': len(waiting) if paused else 0,
                'bullmq_job_count{state="delayed"}': 1,
                'bullmq_job_count{state="failed"}': min(5000, 30 + total["failed"]),
                'bullmq_job_count{state="active"}': 3 if workers and queue == "ingestion" else 0,
                'bullmq_queue_retention_limit{state="failed"}': 5000,
                "bullmq_queue_paused": int(paused),
                "bullmq_queue_workers": 1 if workers else 0,
                "bullmq_worker_heartbeat_timestamp_seconds": (
                    heartbeat * 60 if at - heartbeat < 10 else None
                ),
                "bullmq_queue_oldest_waiting_timestamp_seconds": (
                    waiting[0] * 60 if waiting and not paused else None
                ),
                # A mailbox of the night takes two hours, and its worker holds it.
                "bullmq_queue_oldest_active_timestamp_seconds": (
                    (at - at % 120) * 60 if workers and queue == "ingestion" else None
                ),
                "bullmq_queue_oldest_active_locked": (
                    1 if workers and queue == "ingestion" else None
                ),
                # Once it is due, a worker that fetches makes it ready.
                "bullmq_queue_next_delayed_timestamp_seconds": (
                    next_run * 60 if at < next_run or not workers else None
                ),
                f'bullmq_scheduler_next_run_timestamp_seconds{{scheduler="{scheduler}"}}': (
                    next_run * 60
                ),
                "bullmq_queue_duplicate_schedulers": 0,
                "bullmq_exporter_events_missed_total": 0,
                'bullmq_job_wait_duration_seconds_count{name="a"}': total["taken"],
            }
            for what in ("added", "completed", "failed", "retried", "stalled"):
                reported[f'bullmq_job_{what}_total{{name="a"}}'] = total[what]
            for key, value in reported.items():
                name, _, labels = key.rstrip("}").partition("{")
                own = f"{TARGET},queue={queue!r}".replace("'", '"') + (labels and f",{labels}")
                samples = values.setdefault(f"{name}{{{own}}}", [])
                samples.append(STALE if gone or value is None else f"{value:g}")

    @staticmethod
    def _by_day(at: int, most: float) -> float:
        """Little at night, most at 14:00."""
        return most * max(0.02, math.sin((at % DAY / DAY - 0.33) * math.pi * 2) ** 3)

    def _ingestion(self, at: int, chance: random.Random) -> int:
        night = 3000 if at % DAY == 120 else 0
        return night + self._several(self._by_day(at, 12), chance)

    def _indexing(self, at: int, chance: random.Random) -> int:
        night = 35 if 120 <= at % DAY < 220 else 0
        return night + self._several(self._by_day(at, 20), chance)

    def _compliance(self, at: int, chance: random.Random) -> int:
        return 1 if at % 60 == 5 else 0

    @staticmethod
    def _several(expected: float, chance: random.Random) -> int:
        return int(expected) + (chance.random() < expected % 1)

    @staticmethod
    def _deployed(at: int) -> bool:
        """Workers are replaced on Tuesday and Thursday at 11:00, which takes two minutes."""
        return at in (DAY + 660, DAY + 661, 3 * DAY + 660, 3 * DAY + 661)

    @staticmethod
    def _exporter_restarts(at: int) -> bool:
        """Without a state file: its counters begin at 0."""
        return at in (DAY + 670, 5 * DAY + 130)

    @staticmethod
    def _redis_restarts(at: int) -> bool:
        return at == 2 * DAY + 840

"""The concurrency limit and the rate limit of a queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from exporter.queues.limits import QueueLimits
from exporter.queues.text import MAX_SAFE_INTEGER

# What Queue.rateLimit() and Worker.rateLimit() set the limiter to: Number.MAX_SAFE_INTEGER
# (BullMQ 5.56.3 queue.js, worker.js; 6.7.0 redis-queue-backend.js). No limit is higher.
BY_HAND = MAX_SAFE_INTEGER

# The end of a limiter is computed at each poll and varies with the duration of the reply: two ends
# that differ by less than this are the same.
SAME_END_SECONDS = 1.0


class Meta(NamedTuple):
    """The fields read from `meta`, unparsed, errors included."""

    version: Any = None
    concurrency: Any = None  # Queue.setGlobalConcurrency
    rate_max: Any = None  # Queue.setGlobalRateLimit; 5.56.3 has no such method
    rate_duration: Any = None  # ms

    @classmethod
    def of(cls, answer: Any) -> Meta:
        """The fields of a reply; an error is reported once, as the version."""
        return cls(answer) if isinstance(answer, Exception) else cls(*answer)


class Window(NamedTuple):
    """A queue's `limiter` key: how many jobs it has counted, and when it expires (epoch seconds).

    BullMQ counts up from 1 and lets the key expire `duration` after that (5.56.3 and 6.7.0:
    prepareJobForProcessing); the limit is reached at `max` (getRateLimitTTL).
    """

    taken: Any
    end: float | None

    @classmethod
    def of(cls, answer: Any, asked_at: float, before: Window | None) -> Window | None:
        """From [taken, remaining ms] or an error, requested at `asked_at` (epoch seconds)."""
        if not answer:
            return None
        if isinstance(answer, Exception):
            return cls(answer, None)
        taken, left = answer
        end = asked_at + left / 1000
        if before and before.end is not None and abs(before.end - end) < SAME_END_SECONDS:
            end = before.end
        return cls(taken, end)


def limits_of(
    meta: Meta, window: Window | None, number: Callable[[str, Any], float | None]
) -> QueueLimits:
    """The limits; `number` parses a value, or reports it under this name as unreadable."""

    def limit(what: str, value: Any) -> float | None:
        # Queue.setGlobalConcurrency(Infinity) is no limit, nor is a number above MAX_SAFE_INTEGER.
        read = None if value == b"Infinity" else number(what, value)
        return None if read is None or abs(read) > MAX_SAFE_INTEGER else read

    rate_max = limit("rate limit", meta.rate_max)
    duration = limit("rate limit duration", meta.rate_duration)
    taken = number("limiter", window.taken) if window else None
    until = window_end = None
    if window and taken is not None:
        if taken >= (BY_HAND if rate_max is None else min(rate_max, BY_HAND)):
            until = window.end
        elif rate_max is None:
            window_end = window.end
    return QueueLimits(
        concurrency=limit("concurrency limit", meta.concurrency),
        rate_max=rate_max,
        rate_duration=None if duration is None else duration / 1000,
        rate_limited_until=until,
        rate_window_end=window_end,
    )

"""The concurrency limit and the rate limit of a queue."""

from __future__ import annotations

from typing import NamedTuple


class QueueLimits(NamedTuple):
    """The limits of all workers of a queue together. None: there is no limit, or it is unknown.

    Times are epoch seconds.
    """

    concurrency: float | None = None  # maximum of active jobs
    rate_max: float | None = None  # maximum of jobs taken within `rate_duration`
    rate_duration: float | None = None  # seconds
    # No worker takes a job until then: the rate limit is reached.
    rate_limited_until: float | None = None
    # A worker's own `limiter` counts jobs until then. Only that worker knows how many it allows, so
    # it is unknown here whether the limit is reached.
    rate_window_end: float | None = None


NO_LIMITS = QueueLimits()

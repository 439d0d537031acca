"""The deadline by which the process ends after SIGTERM or SIGINT."""

from __future__ import annotations

import time

SHUTDOWN_SECONDS = 2.0
# Even after the deadline, what needs no waiting is still done.
MIN_SECONDS = 0.05


class Deadline:
    """Shared by all that is waited for at the end: answers, the last save, Redis, the log."""

    def __init__(self, seconds: float = SHUTDOWN_SECONDS) -> None:
        self._seconds = seconds
        self._end: float | None = None  # monotonic

    def start(self) -> None:
        if self._end is None:
            self._end = time.monotonic() + self._seconds

    def left(self) -> float:
        """Seconds that may still be waited; before the start all of them."""
        if self._end is None:
            return self._seconds
        return max(MIN_SECONDS, self._end - time.monotonic())

"""How long to wait before Redis is asked again after a failure."""

from __future__ import annotations

import random

# The longest pause: an outage ends within seconds of Redis being back.
MAX_RETRY_SECONDS = 5.0


def retry_pause(failures: int, max_pause: float = MAX_RETRY_SECONDS) -> float:
    """Seconds to wait after so many consecutive failures: up to a quarter of a second, then half,
    … at most `max_pause`.

    With jitter, so that many sidecars do not come back to one Redis together.
    """
    pause = min(max_pause, 0.25 * 2.0 ** min(failures - 1, 16))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311

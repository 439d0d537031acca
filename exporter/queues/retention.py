"""How many finished jobs are kept."""

from __future__ import annotations

from typing import Any

from exporter.queues.queue import State

# The option of a job that bounds each state (BullMQ: KeepJobs).
RETENTION_OPTIONS = {State.COMPLETED: "removeOnComplete", State.FAILED: "removeOnFail"}


def kept_jobs(option: Any) -> int | None:
    """The limit that such an option sets; None if it sets none.

    `5000` or `{count: 5000}`; `true` keeps none; an age is no limit.
    """
    keep = option.get("count") if isinstance(option, dict) else option
    if isinstance(keep, bool):
        return 0 if keep else None
    return keep if isinstance(keep, int) and keep >= 0 else None

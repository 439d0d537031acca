"""Remarks for the log and for --check."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from exporter.queues.queue import Queue

# Maximum number of names that one remark lists.
MAX_NAMES = 10


class Remark(NamedTuple):
    """One finding. `what` is the same for all of a kind; `detail` names what to set."""

    level: int  # of the log
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


def not_searched(reason: str) -> Remark:
    """The remark that new queues cannot be found."""
    return Remark(
        logging.WARNING,
        "queues cannot be searched for",
        f"{reason}; new queues are not watched, and no alert on them can fire",
    )


def listed(names: Sequence[str]) -> str:
    """The first of these names, and the number of the others."""
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def missing_names(named: Iterable[Queue], found: Sequence[Queue]) -> str:
    """Those of the named queues that were not found, with similar names that were."""
    missing = sorted(set(named) - set(found), key=lambda queue: queue.base)
    return listed([f"{queue.name}{_did_you_mean(queue, found)}" for queue in missing])


def _did_you_mean(queue: Queue, found: Iterable[Queue]) -> str:
    names = {other.name.lower(): other.name for other in found if other.prefix == queue.prefix}
    close = difflib.get_close_matches(queue.name.lower(), names, n=1)
    return f", did you mean {names[close[0]]}?" if close else ""

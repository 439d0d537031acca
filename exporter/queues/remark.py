"""Remarks for the log and for --check."""

from __future__ import annotations

import logging
from typing import NamedTuple


class Remark(NamedTuple):
    """One finding. `what` is the same for all of a kind; `detail` names what to set."""

    level: int  # of the log
    what: str
    detail: str

    def __str__(self) -> str:
        return f"{self.what}: {self.detail}"


def not_searched(reason: str) -> Remark:
    """That new queues cannot be found."""
    return Remark(
        logging.WARNING,
        "queues cannot be searched for",
        f"{reason}; new queues are not watched, and no alert on them can fire",
    )

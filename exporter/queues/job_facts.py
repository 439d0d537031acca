"""What is known of a job beyond its events."""

from __future__ import annotations

import json
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER


class JobFacts(NamedTuple):
    """The relevant fields of a job's hash; all None if it is gone."""

    name: bytes | None
    atm: bytes | None  # attempts made
    attempts_made: bytes | None  # the same, before 5.0
    ats: bytes | None  # attempts started; None before 5.0
    processed_on: bytes | None
    finished_on: bytes | None
    # Read only for jobs that need it: whether a worker holds the job now, whether its last failed
    # attempt left a reason (the text may be megabytes), and its options.
    locked: bool = False
    has_failed_reason: bool = False
    opts: bytes | None = None
    # Read only where it is counted: why its last attempt failed; None if that is not known.
    failed_reason: bytes | None = None

    @property
    def exists(self) -> bool:
        return self.name is not None

    @property
    def retries(self) -> int:
        """How many attempts failed and were retried, or will be."""
        made = number(self.atm or self.attempts_made)
        # The attempt that finished the job is counted too.
        return made - 1 if self.finished_on else made

    @property
    def every_start_failed(self) -> bool:
        """Whether there were finished attempts, and all of them failed.

        A start raises `ats` (prepareJobForProcessing), the failed attempt that ends it `atm`
        (retryJob, moveToDelayed, moveToFinished). A job that is given back for another reason (rate
        limit, DelayedError, stalled) has more starts than attempts for the rest of its life.
        """
        failed = number(self.atm)
        return failed > 0 and failed == number(self.ats) - self.locked

    @property
    def attempts(self) -> int:
        """The maximum number of attempts, if its options contain it."""
        try:
            return int(json.loads(self.opts or b"{}")["attempts"])
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            return 0

    @property
    def started(self) -> int:
        """When its last attempt began, by the worker's clock in epoch ms; 0 if none has."""
        return number(self.processed_on)

    @property
    def finished(self) -> int:
        """When it finished, by the worker's clock in epoch ms; 0 if it has not."""
        return number(self.finished_on)


NO_JOB = JobFacts(None, None, None, None, None, None)


def number(raw: bytes | None) -> int:
    """A whole number that BullMQ wrote; 0 for anything else."""
    try:
        whole = int(raw or 0)
    except ValueError:
        return 0
    # BullMQ cannot count that far, and the state file cannot store it.
    return whole if abs(whole) <= MAX_SAFE_INTEGER else 0

"""Work that yields, done at once."""

from __future__ import annotations

from exporter.metrics.family import Outcome, Work


def finish(work: Work[Outcome]) -> Outcome:
    """What the work returns, whenever it would have yielded."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome

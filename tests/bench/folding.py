"""How long a failure reason takes to fold, since each failed job has one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import count
from statistics import median

from exporter.queues.failure_reasons import fold
from tests.support.failure_reasons import corpus

REPEATS = 20
NUMBERS = count()
# What took longest of 80 patterns that were tried: quotations without content.
HOSTILE = ('"', "`", '"a","', "% ")


def fold_time(reasons: Sequence[str]) -> float:
    """Microseconds of CPU for a reason; none comes again, or it would be cached."""
    new = [f"{reason} {next(NUMBERS)}" for _ in range(REPEATS) for reason in reasons]
    began = time.process_time()
    for reason in new:
        fold(reason)
    return (time.process_time() - began) / len(new) * 1e6


def folding(rounds: int) -> None:
    reasons = [
        reason
        for part in ("tuned", "held_out")
        for reasons in corpus(part).values()
        for reason in reasons
    ]
    typical = [reason for reason in reasons if 60 <= len(reason) <= 100]
    text = " ".join(reasons)
    measured: dict[str, Sequence[str]] = {
        f"{len(typical)} reasons of 60 to 100 characters": typical,
        "a reason that comes again (cached)": [],
    }
    for length in (500, 1000, 2000, 4000):
        starts = range(0, len(text) - length, len(text) // 20)
        measured[f"{length} characters"] = [text[at : at + length] for at in starts]
    for length in (1000, 2000, 4000, 1_000_000):
        hostile = [part * (length // len(part)) for part in HOSTILE]
        measured[f"{length} hostile characters"] = hostile
    print("\n| folding a failure reason | µs of CPU | least to most |\n| --- | --- | --- |")
    for name, chosen in measured.items():
        times = [fold_time(chosen) if chosen else cached_time() for _ in range(rounds)]
        print(f"| {name} | {median(times):,.1f} | {min(times):,.1f} to {max(times):,.1f} |")


def cached_time() -> float:
    began = time.process_time()
    for _ in range(10_000):
        fold("job stalled more than allowable limit")
    return (time.process_time() - began) / 10_000 * 1e6

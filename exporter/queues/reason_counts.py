"""How many jobs of a queue failed for which reason: exact, and bounded.

A label value that applications write is unbounded, so only the reasons that matter most have a
series of their own. All others count under OTHER, and unknown reasons under UNKNOWN: the sum is
always the number of failures.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from exporter.queues.failure_reasons import FoldedReason

# Used in place of a fingerprint: for reasons without a series of their own, for failures whose
# reason could not be read, and for the counts of reasons that have lost their series. These counts
# move to RETIRED at once, so its rate means nothing.
OTHER = "__other__"
UNKNOWN = "__unknown__"
RETIRED = "__retired__"
RESERVED = {OTHER: "other reasons", UNKNOWN: "unknown", RETIRED: "earlier reasons"}

# The weight of a reason is the number of its failures; a failure counts half after this time (ms).
WEIGHT_HALF_LIFE_MS = 3_600_000
# A reason takes over the series of another one if it has this many times its weight.
TAKEOVER = 2.0
# Maximum number of reasons without a series whose weight is remembered.
MAX_CANDIDATES = 50
# A reason that has not occurred for this time (ms) is new again: seven days.
FORGET_AFTER_MS = 7 * 86_400_000
# Maximum number of reasons of a queue for which it is remembered when they were seen.
MAX_SEEN = 200


class Seen(NamedTuple):
    """When a reason was first and last seen (epoch ms, by Redis's clock)."""

    first: int
    last: int


class ReasonCount(NamedTuple):
    """A series. `restored`: it was exposed before, so it is not new when it is exposed again."""

    text: str
    total: int
    restored: bool


class _Series:
    __slots__ = ("_frozen", "at", "count", "label", "reason", "restored", "weight")

    def __init__(self, reason: FoldedReason, *, restored: bool = False) -> None:
        self.reason, self.label, self.restored = reason, reason.label, restored
        self.count, self.weight, self.at = 0, 0.0, 0
        self._frozen: ReasonCount | None = None

    def freeze(self) -> ReasonCount:
        """The same object as before while nothing has changed."""
        frozen = self._frozen
        if frozen is None or frozen.total != self.count or frozen.restored != self.restored:
            frozen = self._frozen = ReasonCount(self.label, self.count, self.restored)
        return frozen

    def weight_at(self, at: int) -> float:
        return _decayed(self.weight, at - self.at)

    def add(self, at: int, weight: float) -> None:
        self.count += 1
        # Times of a queue's events may go back a little.
        self.weight, self.at = self.weight_at(at) + weight, max(at, self.at)


def _host_clock() -> int:
    return int(1000 * time.time())


class ReasonCounts:
    """Counts of one kind by reason, of at most `limit` reasons.

    A reason keeps its series while it is among those that occurred most often recently. At most
    `limit` series an hour pass to other reasons, so that hostile reasons cannot flood Prometheus
    with series.

    `now` is the present in epoch ms. A failure is weighed as of now if its event has a later time:
    somebody may have chosen the id of an event, and all later ids in that stream are as large.
    Otherwise the weight of its reason would not decrease until that time, and no series would pass
    to another reason.
    """

    __slots__ = (
        *("_candidates", "_frozen", "_limit", "_now", "_refilled", "_reserved", "_series"),
        "_takeovers",
    )

    def __init__(self, limit: int, now: Callable[[], int] = _host_clock) -> None:
        self._limit, self._now = limit, now
        self._series: dict[str, _Series] = {}
        # None as soon as anything is counted. Copying 20 reasons of each kind takes 38 µs, which
        # queues without new failures would cost at each poll; copying what has changed takes 12.
        self._frozen: Mapping[str, ReasonCount] | None = None
        self._candidates: OrderedDict[str, tuple[float, int]] = OrderedDict()  # weight, as of
        self._reserved = _Reserved()
        self._takeovers, self._refilled = float(limit), 0

    @property
    def total(self) -> int:
        """The number of failures."""
        return sum(self._reserved.counts.values()) + sum(
            series.count for series in self._series.values()
        )

    def count(self, reason: FoldedReason | None, at: int) -> None:
        """Count a failure at that time (epoch ms); None: its reason is unknown."""
        self._frozen, at = None, min(at, self._now())
        if reason is None:
            self._reserved.counts[UNKNOWN] += 1
        elif (series := self._series.get(reason.fingerprint)) is not None:
            series.add(at, 1.0)
        else:
            self._count_candidate(reason, at)

    def count_unknown(self, number: int) -> None:
        """Count failures of which only the number is known."""
        self._frozen = None
        self._reserved.counts[UNKNOWN] += number

    def mark_restored(self) -> None:
        """Note that all existing series were exposed before."""
        self._frozen, reserved = None, self._reserved
        reserved.restored = {name for name, number in reserved.counts.items() if number}
        for series in self._series.values():
            series.restored = True

    def freeze(self) -> Mapping[str, ReasonCount]:
        """The series by their fingerprints; the same object as before while nothing was counted."""
        if self._frozen is None:
            self._frozen = self._copy()
        return self._frozen

    def _copy(self) -> Mapping[str, ReasonCount]:
        frozen = {fingerprint: series.freeze() for fingerprint, series in self._series.items()}
        reserved = self._reserved
        for fingerprint, number in reserved.counts.items():
            if number:
                restored = fingerprint in reserved.restored
                frozen[fingerprint] = ReasonCount(RESERVED[fingerprint], number, restored)
        return frozen

    def memory(self) -> dict[str, Any]:
        """All of it in plain values, for `remember`."""
        return {
            "reserved": dict(self._reserved.counts),
            "series": [
                (fingerprint, series.reason.text, series.count, series.weight, series.at)
                for fingerprint, series in self._series.items()
            ],
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Restore a `memory`. If the limit is lower now, the heaviest keep their series."""
        for name, number in memory["reserved"].items():
            # A later version may have more of these.
            self._reserved.counts[name if name in RESERVED else UNKNOWN] += number
        series_of_all = list(memory["series"])
        if len(series_of_all) > self._limit:
            series_of_all.sort(key=lambda series: series[3], reverse=True)
        for fingerprint, text, count, weight, at in series_of_all:
            if len(self._series) >= self._limit:
                self._reserved.counts[RETIRED] += count
                continue
            series = self._series[fingerprint] = _Series(FoldedReason(text, fingerprint))
            series.count, series.weight, series.at = count, weight, min(at, self._now())
        self.mark_restored()

    def _count_candidate(self, reason: FoldedReason, at: int) -> None:
        weight = self._weigh(reason.fingerprint, at)
        if self._has_room(weight, at):
            del self._candidates[reason.fingerprint]
            series = self._series[reason.fingerprint] = _Series(reason)
            series.add(at, weight)
        else:
            self._reserved.counts[OTHER] += 1

    def _weigh(self, fingerprint: str, at: int) -> float:
        """The weight of a reason without a series, with the failure that is counted now."""
        weight, before = self._candidates.pop(fingerprint, (0.0, at))
        weight = _decayed(weight, at - before) + 1.0
        self._candidates[fingerprint] = (weight, at)
        if len(self._candidates) > MAX_CANDIDATES:
            self._candidates.popitem(last=False)
        return weight

    def _has_room(self, weight: float, at: int) -> bool:
        """Whether a reason of this weight gets a series; the lightest reason may lose its own."""
        if len(self._series) < self._limit:
            return True
        hour = 3_600_000
        refill = self._limit * max(0, at - self._refilled) / hour if self._refilled else 0.0
        self._takeovers, self._refilled = min(self._limit, self._takeovers + refill), at
        if self._takeovers < 1.0:
            return False
        lightest = min(self._series.values(), key=lambda series: series.weight_at(at))
        if weight < TAKEOVER * lightest.weight_at(at):
            return False
        self._takeovers -= 1.0
        self._reserved.counts[RETIRED] += lightest.count
        del self._series[lightest.reason.fingerprint]
        return True


class _Reserved:
    """The counts under RESERVED fingerprints."""

    __slots__ = ("counts", "restored")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(RESERVED, 0)
        self.restored: set[str] = set()


class FrozenReasons(NamedTuple):
    """The reasons of a queue at one moment by fingerprint, and since when they count (ms)."""

    failed: Mapping[str, ReasonCount]
    retried: Mapping[str, ReasonCount]
    seen: Mapping[str, Seen]
    since: int


class QueueReasons:
    """Why the jobs of one queue failed, for good or in an attempt that is retried."""

    __slots__ = ("_frozen", "_seen", "failed", "retried", "since")

    def __init__(self, limit: int, since: int, now: Callable[[], int] = _host_clock) -> None:
        self.failed, self.retried = ReasonCounts(limit, now), ReasonCounts(limit, now)
        self.since = since
        self._seen: OrderedDict[str, Seen] = OrderedDict()
        self._frozen: FrozenReasons | None = None  # None as soon as a reason was seen

    def count_failed(self, reason: FoldedReason | None, at: int) -> None:
        """Count a job that failed for good at that time (epoch ms)."""
        self._see(reason, at)
        self.failed.count(reason, at)

    def count_retried(self, reason: FoldedReason | None, at: int) -> None:
        """Count a failed attempt that is retried."""
        self._see(reason, at)
        self.retried.count(reason, at)

    def freeze(self) -> FrozenReasons | None:
        """A copy; None if nothing has failed. The same object as before while nothing changes."""
        failed, retried, before = self.failed.freeze(), self.retried.freeze(), self._frozen
        if not failed and not retried:
            return None
        if before is not None and before.failed is failed and before.retried is retried:
            return before
        shown = dict.fromkeys((*failed, *retried))
        seen = {each: self._seen[each] for each in shown if each in self._seen}
        self._frozen = FrozenReasons(failed, retried, seen, self.since)
        return self._frozen

    def mark_restored(self) -> None:
        """Note that all series were exposed before."""
        self.failed.mark_restored()
        self.retried.mark_restored()

    def memory(self) -> dict[str, Any]:
        """All of it in plain values, for `remember`."""
        return {
            "since": self.since,
            "failed": self.failed.memory(),
            "retried": self.retried.memory(),
            "seen": [(fingerprint, *seen) for fingerprint, seen in self._seen.items()],
        }

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from a `memory`."""
        self._frozen, self.since = None, memory["since"]
        self.failed.remember(memory["failed"])
        self.retried.remember(memory["retried"])
        for fingerprint, first, last in memory["seen"]:
            self._seen[fingerprint] = Seen(first, last)

    def complete(self, *, failed: int, retried: int) -> None:
        """Count as unknown the failures from before reasons were counted, so that the sums are
        these numbers.
        """
        for counts, number in ((self.failed, failed), (self.retried, retried)):
            counts.count_unknown(max(0, number - counts.total))

    def _see(self, reason: FoldedReason | None, at: int) -> None:
        if reason is None:
            return
        self._frozen = None
        before = self._seen.pop(reason.fingerprint, None)
        if before is None or at - before.last > FORGET_AFTER_MS:
            self._seen[reason.fingerprint] = Seen(at, at)
        else:
            self._seen[reason.fingerprint] = Seen(before.first, max(at, before.last))
        if len(self._seen) > MAX_SEEN:
            self._seen.popitem(last=False)


def _decayed(weight: float, milliseconds: int) -> float:
    return float(weight * 0.5 ** (max(0, milliseconds) / WEIGHT_HALF_LIFE_MS))

"""Failures grouped by what went wrong: those of kept jobs, and those that were seen in events."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass, field
from itertools import islice

from exporter.queues.failure_evidence import ReasonEvidence
from exporter.queues.failure_reasons import FoldedReason, fold
from exporter.queues.jobs import Job
from exporter.queues.text import text

# Maximum number of characters that are read of a stack trace, and kept of a group's example.
MAX_TRACE_LENGTH = 16_000
MAX_EXAMPLE_LENGTH = 4000
# Maximum number of names, sources and frames that a group distinguishes.
MAX_NAMES = 1000

# Frames of JavaScript, whose traces begin with the innermost, and of Python, whose traces end with
# it.
JAVASCRIPT_FRAME = re.compile(
    r"^[ \t]+at (?:async )?(?:(?P<function>[^(\n]{1,200}) \()?"
    r"(?P<file>[^()\n]{1,500}?)(?::\d+){0,2}\)?$",
    re.MULTILINE,
)
PYTHON_FRAME = re.compile(
    r"^ +File \"(?P<file>[^\"\n]{1,500})\", line \d+, in (?P<function>[^\n]{1,200})$", re.MULTILINE
)
# Files of runtimes and libraries: all connections and requests pass through them, so their frames
# say little.
FOREIGN = re.compile(r"^node:|^internal/|node_modules|site-packages|<anonymous>|^native$")


@dataclass(slots=True)
class Group:
    """The failures with one folded reason. Times are epoch milliseconds.

    They are of two kinds: failed jobs that are kept, and jobs that will be retried.
    """

    reason: FoldedReason
    # The newest failed job, or the next one that will be retried.
    example_raw_id: bytes | None = None
    example_reason: str | None = None
    count: int = 0  # that have failed
    retrying: int = 0
    first_seen: int | None = None
    last_seen: int | None = None
    fewest_attempts: int | None = None
    most_attempts: int | None = None
    names: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)
    seen: ReasonEvidence | None = None  # None: not seen, or not remembered

    @property
    def frame(self) -> str | None:
        """Where most of the jobs failed, by the last trace of each; None if none has a trace."""
        return next((frame for frame, _ in self.frames.most_common(1)), None)

    def add_failed(self, job: Job) -> None:
        """Add a job that has failed; the newest comes first."""
        self.count += 1
        self._add(job)
        self._add_times(job.finished_on, job.finished_on)

    def add_retrying(self, job: Job) -> None:
        """Add a job that will be retried."""
        self.retrying += 1
        self._add(job)

    def add_seen(self, seen: ReasonEvidence) -> None:
        """Add what was seen. Counts overlap with those of the jobs: the larger one is right."""
        self.seen = seen
        self._add_times(seen.first_seen, seen.last_seen)
        self.names |= Counter(seen.names)

    def show_seen(self, seen: ReasonEvidence) -> None:
        """Add the redacted texts of what was seen, if the group is to be shown."""
        self.seen, self.reason = seen, seen.reason
        self.sources |= Counter(seen.sources)
        if self.example_raw_id is None:
            newest = seen.jobs[0]
            self.example_raw_id, self.example_reason = newest.raw_id, text(newest.text)
            for job in seen.jobs:
                self._add_attempts(job.attempts)
                if frame := innermost_frame([text(job.trace or b"")]):
                    _count(self.frames, frame)

    def _add(self, job: Job) -> None:
        if self.example_raw_id is None:
            self.example_raw_id = job.raw_id
            self.example_reason = job.failed_reason and job.failed_reason[:MAX_EXAMPLE_LENGTH]
        self._add_attempts(job.attempts_made)
        _count(self.names, job.name)
        if isinstance(source := job.ingestion_source, str):
            _count(self.sources, source)
        if frame := innermost_frame(job.stacktrace):
            _count(self.frames, frame)

    def _add_attempts(self, attempts: int | None) -> None:
        if attempts is not None:
            least, most = self.fewest_attempts, self.most_attempts
            self.fewest_attempts = attempts if least is None else min(attempts, least)
            self.most_attempts = attempts if most is None else max(attempts, most)

    def _add_times(self, first: int | None, last: int | None) -> None:
        if first is not None:
            self.first_seen = first if self.first_seen is None else min(first, self.first_seen)
        if last is not None:
            self.last_seen = last if self.last_seen is None else max(last, self.last_seen)


class Groups:
    """The groups of a queue: failures since a time (epoch ms), or all of them."""

    def __init__(self, since: int | None = None) -> None:
        self.retrying = 0
        self._since = since
        self._groups: dict[str, Group] = {}

    async def add_failed(self, jobs: AsyncIterable[Job]) -> bool:
        """Add jobs that have failed, newest first.

        Stops at the first job that is older; returns whether there was one.
        """
        async for job in jobs:
            # A long reason and its trace take a millisecond: yield to other tasks.
            await asyncio.sleep(0)
            if self._since is not None and (job.finished_on or 0) < self._since:
                return True
            self._of(fold_reason(job)).add_failed(job)
        return False

    async def add_retrying(self, jobs: AsyncIterable[Job]) -> None:
        """Add those of these waiting jobs that have a failed attempt."""
        async for job in jobs:
            await asyncio.sleep(0)
            is_recent = self._since is None or (job.processed_on or 0) >= self._since
            if job.failed_reason and is_recent:
                self.retrying += 1
                self._of(fold_reason(job)).add_retrying(job)

    def add_seen(self, reasons: Iterable[ReasonEvidence]) -> None:
        """Add what was seen."""
        for seen in reasons:
            if self._since is None or seen.last_seen >= self._since:
                self._of(seen.reason).add_seen(seen)

    def all(self) -> list[Group]:
        """The groups, the largest first."""
        return sorted(self._groups.values(), key=self._size_of, reverse=True)

    def _of(self, reason: FoldedReason) -> Group:
        group = self._groups.get(reason.fingerprint)
        if group is None:
            group = self._groups[reason.fingerprint] = Group(reason)
        return group

    def _size_of(self, group: Group) -> tuple[int, int]:
        seen = group.seen.failed_since(self._since) if group.seen else 0
        return max(group.count, seen) + group.retrying, group.last_seen or 0


def _count(counts: Counter[str], name: str) -> None:
    if name in counts or len(counts) < MAX_NAMES:
        counts[name] += 1


def fold_reason(job: Job) -> FoldedReason:
    """Why a job failed, without what is specific to this job."""
    return fold(job.failed_reason or "")


def innermost_frame(traces: list[object]) -> str | None:
    """Where the last attempt failed: `at fetch (imap.js)`.

    The innermost frame of the application's own code, or the innermost of all. None if the last
    trace is missing, or has no frame of JavaScript or Python.
    """
    newest = traces[-1] if traces else None
    if not isinstance(newest, str):
        return None
    cut = newest[:MAX_TRACE_LENGTH]
    frames = list(islice(JAVASCRIPT_FRAME.finditer(cut), 50))
    frames = frames or list(PYTHON_FRAME.finditer(newest[-MAX_TRACE_LENGTH:]))[::-1]
    if not frames:
        return None
    own = (frame for frame in frames if not FOREIGN.search(frame["file"]))
    frame = next(own, frames[0])
    # The directory of installation and the line change from release to release.
    file = re.split(r"[/\\]", frame["file"])[-1]
    return f"at {frame['function']} ({file})" if frame["function"] else f"at {file}"

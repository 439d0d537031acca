"""Failed jobs grouped by what went wrong."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterable
from dataclasses import dataclass, field
from itertools import islice

from exporter.queues.failure_reasons import FoldedReason, fold
from exporter.queues.jobs import Job

# What is looked at of a stack trace, and kept of a group's example (characters).
MAX_TRACE_LENGTH = 16_000
MAX_EXAMPLE_LENGTH = 4000
# Names, sources and frames that a group distinguishes.
MAX_NAMES = 1000

# A frame of JavaScript, the innermost first; a frame of Python, the innermost last.
JAVASCRIPT_FRAME = re.compile(
    r"^[ \t]+at (?:async )?(?:(?P<function>[^(\n]{1,200}) \()?"
    r"(?P<file>[^()\n]{1,500}?)(?::\d+){0,2}\)?$",
    re.MULTILINE,
)
PYTHON_FRAME = re.compile(
    r"^ +File \"(?P<file>[^\"\n]{1,500})\", line \d+, in (?P<function>[^\n]{1,200})$", re.MULTILINE
)
# Where what everybody uses is: through it go all connections and all requests.
FOREIGN = re.compile(r"^node:|^internal/|node_modules|site-packages|<anonymous>|^native$")


@dataclass(slots=True)
class Group:
    """The failed jobs of one fault, that is of one folded reason. Times are epoch milliseconds."""

    reason: FoldedReason
    example_raw_id: bytes  # the newest
    example_reason: str | None
    count: int = 0
    first_seen: int | None = None
    last_seen: int | None = None
    fewest_attempts: int = 0
    most_attempts: int = 0
    names: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    frames: Counter[str] = field(default_factory=Counter)

    @property
    def frame(self) -> str | None:
        """Where most of the jobs failed, of the last trace of each; None if none has a trace."""
        return next((frame for frame, _ in self.frames.most_common(1)), None)

    def add(self, job: Job) -> None:
        attempts = job.attempts_made
        self.fewest_attempts = min(self.fewest_attempts, attempts) if self.count else attempts
        self.most_attempts = max(self.most_attempts, attempts)
        self.count += 1
        if (at := job.finished_on) is not None:
            self.first_seen = at if self.first_seen is None else min(at, self.first_seen)
            self.last_seen = at if self.last_seen is None else max(at, self.last_seen)
        _count(self.names, job.name)
        if isinstance(source := job.ingestion_source, str):
            _count(self.sources, source)
        if frame := innermost_frame(job.stacktrace):
            _count(self.frames, frame)


def _count(counts: Counter[str], name: str) -> None:
    if name in counts or len(counts) < MAX_NAMES:
        counts[name] += 1


def fold_reason(job: Job) -> FoldedReason:
    """Why a job failed, without what is of this job alone."""
    return fold(job.failed_reason or "")


async def grouped(jobs: AsyncIterable[Job], *, since: int | None) -> tuple[list[Group], bool]:
    """The groups of the failed jobs that finished since then, the largest first.

    `jobs` come newest first: the first that is older ends it; whether it came is returned too.
    """
    groups: dict[str, Group] = {}
    ended = False
    async for job in jobs:
        # A long reason and its trace take a millisecond: others should have their turn.
        await asyncio.sleep(0)
        if since is not None and (job.finished_on or 0) < since:
            ended = True
            break
        reason = fold_reason(job)
        group = groups.get(reason.fingerprint)
        if group is None:
            example = job.failed_reason and job.failed_reason[:MAX_EXAMPLE_LENGTH]
            group = groups[reason.fingerprint] = Group(reason, job.raw_id, example)
        group.add(job)
    return sorted(groups.values(), key=lambda group: group.count, reverse=True), ended


def innermost_frame(traces: list[object]) -> str | None:
    """Where the last attempt failed: `at fetch (imap.js)`.

    The innermost frame of the application's own code, or the innermost of all. None if the last
    trace is none, or has no frame of JavaScript or Python.
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
    # Where it is installed, and which line it is, changes from release to release.
    file = re.split(r"[/\\]", frame["file"])[-1]
    return f"at {frame['function']} ({file})" if frame["function"] else f"at {file}"

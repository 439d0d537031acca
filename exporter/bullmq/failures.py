"""Failed jobs grouped by what went wrong."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, deque
from collections.abc import AsyncIterable
from dataclasses import dataclass, field

from exporter.bullmq.jobs import Job

# What is looked at of a reason, and shown of a group's (characters).
LONGEST_LOOKED_AT = 4000
LONGEST_REASON = 300
# Names and sources that a group tells apart.
MOST_NAMES = 1000

# What differs from job to job while the fault is the same, and what stands for it. In this order:
# what a URL or a quotation holds is not looked at again.
FOLDED = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        # An apostrophe within a word is no quotation mark.
        (r"""(?<!\w)(['"`]).{0,200}?\1(?!\w)""", "'…'"),
        (r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]]+", "<url>"),
        (r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+", "<email>"),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (r"\[[0-9a-f:.]*:[0-9a-f:.]*\](?::\d+)?", "<address>"),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b", "<address>"),
        (r"(?<![\w/])(?:[\w-]{1,63}\.)+[a-z][\w-]{1,62}:\d{2,5}\b", "<address>"),
        (r"(?<![\w/])localhost:\d{2,5}\b", "<address>"),
        (r"(?<![\w/])(?:[\w-]{1,63}\.){2,8}[a-z]{2,24}\b", "<address>"),
        (r"(?<![\w<])(?:/[\w.@%+~-]{1,255}){2,}/?", "<path>"),
        (r"\b(?:0x)?(?=[0-9a-f]*\d)[0-9a-f]{8,}\b", "<id>"),
        (r"(?<![\w<])(?=[\w-]*\d)(?=[\w-]*[a-z])[\w-]{16,}(?!\w)", "<id>"),
        # A status is part of the fault: 401 wants a new password, 503 some patience.
        (r"(?!\A[1-5]\d\d )(?<![\w.])(?<!status )(?<!code )(?<!HTTP )-?\d+(?:[.,:]\d+)*", "<n>"),
    )
)
# The innermost frame: of JavaScript the first, of Python the last.
JAVASCRIPT_FRAME = re.compile(
    r"^\s+at (?:async )?(?:(?P<function>[^(\n]{1,200}) \()?"
    r"(?P<file>[^()\n]{1,500}?)(?::\d+){0,2}\)?$",
    re.MULTILINE,
)
PYTHON_FRAME = re.compile(
    r"^ +File \"(?P<file>[^\"\n]{1,500})\", line \d+, in (?P<function>[^\n]{1,200})$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What jobs that failed for the same cause have in common."""

    reason: str  # with what differs from job to job folded
    frame: str | None  # where: `at fetch (imap.js)`

    @property
    def fingerprint(self) -> str:
        """The same for the same fault, in every process and after every restart."""
        told = f"{self.reason}\n{self.frame or ''}".encode("utf-8", "backslashreplace")
        return hashlib.sha256(told).hexdigest()[:12]


@dataclass(slots=True)
class Group:
    """The failed jobs of one fault. Times are epoch milliseconds."""

    fault: Fault
    example_id: str  # the newest
    example_reason: str | None
    count: int = 0
    first_seen: int | None = None
    last_seen: int | None = None
    fewest_attempts: int = 0
    most_attempts: int = 0
    names: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)

    def add(self, job: Job) -> None:
        attempts = job.attempts_made
        self.fewest_attempts = min(self.fewest_attempts, attempts) if self.count else attempts
        self.most_attempts = max(self.most_attempts, attempts)
        self.count += 1
        if (at := job.finished_on) is not None:
            self.first_seen = at if self.first_seen is None else min(at, self.first_seen)
            self.last_seen = at if self.last_seen is None else max(at, self.last_seen)
        if job.name in self.names or len(self.names) < MOST_NAMES:
            self.names[job.name] += 1
        source = job.ingestion_source
        if isinstance(source, str) and (source in self.sources or len(self.sources) < MOST_NAMES):
            self.sources[source] += 1


def fault_of(job: Job) -> Fault:
    """Why a job failed, by its reason and the innermost frame of its last stack trace."""
    return Fault(_folded(job.failed_reason or ""), _frame(job.stacktrace))


async def grouped(jobs: AsyncIterable[Job], *, since: int | None) -> tuple[list[Group], bool]:
    """The groups of the failed jobs that finished since then, the largest first.

    `jobs` come newest first: the first that is older ends it; whether it came is told as well.
    """
    groups: dict[Fault, Group] = {}
    ended = False
    async for job in jobs:
        if since is not None and (job.finished_on or 0) < since:
            ended = True
            break
        fault = fault_of(job)
        if fault not in groups:
            reason = job.failed_reason
            groups[fault] = Group(fault, job.id, reason and reason[:LONGEST_LOOKED_AT])
        groups[fault].add(job)
    return sorted(groups.values(), key=lambda group: group.count, reverse=True), ended


def _folded(reason: str) -> str:
    folded = " ".join(reason[:LONGEST_LOOKED_AT].split())
    for pattern, shown in FOLDED:
        folded = pattern.sub(shown, folded)
    return folded[:LONGEST_REASON]


def _frame(traces: list[object]) -> str | None:
    newest = traces[-1] if traces else None
    if not isinstance(newest, str):
        return None
    found = JAVASCRIPT_FRAME.search(newest) or deque(PYTHON_FRAME.finditer(newest), 1)
    if not found:
        return None
    if isinstance(found, deque):
        found = found.pop()
    # Where it is installed, and which line it is, changes from release to release.
    file = re.split(r"[/\\]", found["file"])[-1]
    return f"at {found['function']} ({file})" if found["function"] else f"at {file}"

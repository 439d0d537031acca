"""Failed jobs grouped by what went wrong."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import Counter
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass, field
from itertools import islice

from exporter.queues.jobs import Job

# What is looked at of a reason and of a stack trace, and shown of a group's reason (characters).
MAX_FOLDED_LENGTH = 4000
MAX_TRACE_LENGTH = 16_000
MAX_REASON_LENGTH = 300
# Names and sources that a group distinguishes.
MAX_NAMES = 1000


def _quoted(found: re.Match[str]) -> str:
    # Names within programs distinguish faults: keys of JSON, columns and constraints, constants.
    value = found["value"]
    if found["colon"] or re.fullmatch(r"[A-Z][A-Z_]+|[a-z]+(?:_[a-z]+)+", value):
        return found[0]
    return "'…'"


def _address(found: re.Match[str]) -> str:
    # A well-known port says which service it is: 993 mail, 443 the web.
    port = found["port"]
    return f"<address>:{port}" if port and int(port) < 1024 else "<address>"


def _hexadecimal(found: re.Match[str]) -> str:
    return "<id>" if any(map(str.isdigit, found[0])) else found[0]


def _token(found: re.Match[str]) -> str:
    digits = sum(map(str.isdigit, found[0]))
    # A name with a dot is more likely a file's: `report2.final.csv`.
    return "<id>" if digits > 3 or (digits and "." not in found[0]) else found[0]


def _number(found: re.Match[str]) -> str:
    # A status is part of the fault: 401 wants a new password, 503 some patience.
    before = found.string[max(0, found.start() - 20) : found.start()]
    if before.endswith("<address>:"):
        return found[0]
    if re.fullmatch("[1-5][0-9][0-9]", found[0]) and (not before or STATUS.search(before)):
        return found[0]
    return "<n>"


STATUS = re.compile(r"(?:status|code|error|HTTP(?:/[0-9.]+)?)[\s:=\"'(]*$", re.IGNORECASE)
PORT = r"(?::(?P<port>[0-9]{1,5})\b)?"
# What differs from job to job while the fault is the same, and what stands for it. In this order:
# what a URL or a quotation holds is not looked at again.
FOLDED: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), shown)
    for pattern, shown in (
        # An apostrophe within a word is no quotation mark.
        (r"""(?<!\w)(?P<mark>['"`])(?P<value>.{0,200}?)(?P=mark)(?!\w)(?P<colon>\s?:)?""", _quoted),
        (r"\b[a-z][a-z0-9+.-]{1,20}://[^\s\"'<>)\]]+", "<url>"),
        (r"<[^\s<>@]{1,200}@[^\s<>@]{1,200}>", "<id>"),
        (r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+", "<email>"),
        (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?", "<time>"),
        (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "<id>"),
        (r"(?<=ENOTFOUND )[\w.-]{1,253}|(?<=EAI_AGAIN )[\w.-]{1,253}", "<address>"),
        (r"\[[0-9a-f:.]{2,45}\]" + PORT, _address),
        (r"(?<![\w:.])(?:[0-9a-f]{1,4}:){1,7}(?::[0-9a-f]{1,4}){1,7}(?![\w:])", "<address>"),
        (r"(?<![\w:.])::1(?!\w)" + PORT, _address),
        (r"\b\d{1,3}(?:\.\d{1,3}){3}\b" + PORT, _address),
        (r"(?<![\w./-])(?:[\w-]{1,63}\.){1,8}[a-z][\w-]{1,62}:(?P<port>\d{2,5})\b", _address),
        (r"(?<![\w./-])localhost:(?P<port>\d{2,5})\b", _address),
        (r"(?<![\w./-])(?:[\w-]{1,63}\.){2,8}[a-z]{2,24}\b", "<address>"),
        (r"(?<![\w<])(?:/[\w.@%+~-]{1,255}){2,}/?", "<path>"),
        (r"\b[a-z]:\\[^\s'\"]+", "<path>"),
        (r"(?<![\w.<-])[\w.-]{16,200}(?![\w.-])", _token),
        (r"\b(?:0x)?[0-9a-f]{8,}\b", _hexadecimal),
        (r"(?<![A-Za-z_0-9.])-?[0-9]+(?:[.,:][0-9]+)*", _number),
    )
)
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


@dataclass(frozen=True, slots=True)
class Fault:
    """What jobs that failed for the same cause have in common."""

    reason: str  # with what differs from job to job folded
    frame: str | None  # where: `at fetch (imap.js)`, the application's own if there is one

    @property
    def fingerprint(self) -> str:
        """The same for the same fault, in every process and after every restart."""
        identity = f"{self.reason}\n{self.frame or ''}".encode("utf-8", "backslashreplace")
        return hashlib.sha256(identity).hexdigest()[:12]


@dataclass(slots=True)
class Group:
    """The failed jobs of one fault. Times are epoch milliseconds."""

    fault: Fault
    example_raw_id: bytes  # the newest
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
        if job.name in self.names or len(self.names) < MAX_NAMES:
            self.names[job.name] += 1
        source = job.ingestion_source
        if isinstance(source, str) and (source in self.sources or len(self.sources) < MAX_NAMES):
            self.sources[source] += 1


def fault_of(job: Job) -> Fault:
    """Why a job failed, by its reason and a frame of its last stack trace."""
    return Fault(_folded(job.failed_reason or ""), _frame(job.stacktrace))


async def grouped(jobs: AsyncIterable[Job], *, since: int | None) -> tuple[list[Group], bool]:
    """The groups of the failed jobs that finished since then, the largest first.

    `jobs` come newest first: the first that is older ends it; whether it came is returned too.
    """
    groups: dict[Fault, Group] = {}
    ended = False
    async for job in jobs:
        # Folding a long reason takes a millisecond: others should have their turn.
        await asyncio.sleep(0)
        if since is not None and (job.finished_on or 0) < since:
            ended = True
            break
        fault = fault_of(job)
        if fault not in groups:
            reason = job.failed_reason
            groups[fault] = Group(fault, job.raw_id, reason and reason[:MAX_FOLDED_LENGTH])
        groups[fault].add(job)
    return sorted(groups.values(), key=lambda group: group.count, reverse=True), ended


def _folded(reason: str) -> str:
    folded = " ".join(reason[:MAX_FOLDED_LENGTH].split())
    for pattern, shown in FOLDED:
        folded = pattern.sub(shown, folded)
    return folded[:MAX_REASON_LENGTH]


def _frame(traces: list[object]) -> str | None:
    """The innermost frame of the application's own code, or the innermost of all."""
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

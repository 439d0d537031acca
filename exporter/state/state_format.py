"""What is in the state file: a line with the format's version and a checksum, then msgpack.

A damaged or truncated file is rejected. Files from before there was a checksum are read, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

import msgpack
from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, ValidationError

from exporter.queues.queue import Queue
from exporter.queues.queue_event_counter import QueueEventCounter
from exporter.queues.tallies import Count, FinishedJobs, Layout
from exporter.queues.tracked_jobs import JobBudget

MAGIC = b"bullmq-exporter-state"
VERSION = 3

# The keys of the queues' memory, and of what was seen of failures.
QUEUES = "queues-2"
EVIDENCE = "evidence"
# The same in the oldest format, with fewer counts before the histograms.
QUEUES_1 = "queues-1"
COUNTS_1 = 6


class Saved(NamedTuple):
    """What the file holds.

    `complete_until` is the time (epoch ms) up to which it contains all queues; None: there is no
    memory. It is when the last search for queues before the save began, because that search does
    not find queues that appear later. Without a search (the queues are named, or the file is an
    older one) it is the time of the save.
    """

    queues: dict[bytes, Any]  # the memory of each by its base
    complete_until: int | None
    removed: FinishedJobs  # see Tallies
    by_server_clock: bool = False  # whether `complete_until` is certainly by the clock of event ids
    evidence: Mapping[str, Any] | None = None  # the memory of FailureEvidence
    log_identity: str | None = None  # which event log the positions belong to, if it has a name
    # If events are pushed and not stored: for how long they were not received (seconds), and until
    # when they were received (epoch ms).
    unheard: float | None = None
    heard_until: int | None = None


NOTHING_SAVED = Saved({}, None, FinishedJobs())


def _entry_id(value: bytes) -> bytes:
    if not re.fullmatch(rb"[0-9]{1,20}-[0-9]{1,20}", value):
        raise ValueError("is not the id of an entry")
    return value


EntryId = Annotated[bytes, AfterValidator(_entry_id)]
Number = int | FiniteFloat  # a float beyond 64 bits, see `encode`


class _Checked(BaseModel):
    """The types are those of `QueueEventCounter.memory`: other types would cause errors later."""

    model_config = ConfigDict(strict=True)


class _ReasonCounts(_Checked):
    reserved: dict[str, int]
    # Fingerprint, text, count, weight, and when it was weighed.
    series: tuple[tuple[str, str, int, FiniteFloat, int], ...]


class _QueueReasons(_Checked):
    since: int
    failed: _ReasonCounts
    retried: _ReasonCounts
    seen: tuple[tuple[str, int, int], ...]


class _Queue(_Checked):
    position: EntryId
    number: int | None
    first: EntryId | None
    length: int
    missed: int
    gaps: tuple[tuple[Number, Number, Number], ...]
    finished: tuple[tuple[Number, tuple[bytes, ...]], ...]
    tallies: dict[str, tuple[Number, ...]]
    jobs: tuple[tuple[bytes, str, EntryId | None, EntryId | None, int], ...]
    failed: tuple[tuple[bytes, str, int], ...] = ()
    complete_since: Number | None = None
    retry_prev: bytes | None = None
    debounced: bytes | None = None
    removed: tuple[int, int] = (0, 0)
    reasons: _QueueReasons | None = None
    ahead: tuple[int, ...] = ()


Hours = tuple[tuple[int, int], ...]
Counted = tuple[tuple[str, int], ...]
# Id, name, time, attempts, whether it was the last one, reason, stack trace and source.
Job = tuple[bytes, str | None, int, int | None, bool, bytes, bytes | None, str | None]


class _Evidence(_Checked):
    since: int
    # Base of the queue, fingerprint, text, first and last seen; failed and retried by hour; names,
    # sources and jobs.
    reasons: tuple[
        tuple[bytes, str, str, int, int, Hours, Hours, Counted, Counted, tuple[Job, ...]], ...
    ]


class _File(_Checked):
    saved: int
    searched: int | None = None
    by_redis_clock: bool = False
    removed: tuple[int, int] = (0, 0)
    bounds: tuple[tuple[int, ...], tuple[int, ...]]
    log: str | None = None
    unheard: Number | None = None
    heard_until: int | None = None
    evidence: _Evidence | None = None


def encode(memory: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The two parts of a file with this memory."""
    return file_parts(pack(memory))


def pack(memory: Mapping[str, Any]) -> bytes:
    """The content of a file with this memory after its first line."""
    # Sums of invalid times may exceed msgpack's 64 bits: a rounded sum is better than none.
    packed: bytes = msgpack.packb(memory, default=float)
    return packed


def file_parts(packed: bytes) -> tuple[bytes, bytes]:
    """The two parts of a file with this content: its first line, and the rest.

    With 16 MiB of evidence the checksum takes 24 to 42 ms, three times as long as packing, and can
    be made in a thread: hashlib lets others run meanwhile.
    """
    return b"%s %d %s\n" % (MAGIC, VERSION, _checksum(packed)), packed


def decode(data: bytes, layout: Layout) -> Saved:
    """The content of a file. May raise any exception if it is not a state file.

    Histograms whose bounds have changed are omitted.
    """
    memory = msgpack.unpackb(_packed(data), strict_map_key=False, use_list=False)
    if QUEUES_1 in memory:
        memory[QUEUES] = _with_more_counts(memory.pop(QUEUES_1))
    file = _check(_File, memory)
    same_bounds = [list(bounds) for bounds in file.bounds] == layout.bounds
    size = layout.size if same_bounds else len(Count)
    for base, queue in memory[QUEUES].items():
        _check(_Queue, queue)
        if any(len(values) < size for values in queue["tallies"].values()):
            raise ValueError("counts are missing")
        queue["tallies"] = {name: values[:size] for name, values in queue["tallies"].items()}
        QueueEventCounter(
            Queue(base, "", ""), layout, JobBudget(0), max_names=1, max_reasons=1
        ).remember(queue)
    return Saved(
        memory[QUEUES],
        file.searched or file.saved,
        FinishedJobs(*file.removed),
        file.by_redis_clock,
        memory.get(EVIDENCE),
        file.log,
        file.unheard,
        file.heard_until,
    )


def _packed(data: bytes) -> bytes:
    if not data.startswith(MAGIC):
        return data  # before version 3
    head, _, packed = data.partition(b"\n")
    _, version, checksum = head.split(b" ")
    if version != b"%d" % VERSION:
        raise ValueError(f"its format is {version[:10]!r}, this version reads {VERSION}")
    if checksum != _checksum(packed):
        raise ValueError("its checksum is wrong: it is damaged or incomplete")
    return packed


def _checksum(packed: bytes) -> bytes:
    return blake2b(packed, digest_size=16).hexdigest().encode()


def _check(model: type[_Checked], memory: Any) -> Any:
    try:
        return model.model_validate(memory)
    except ValidationError as error:
        # Without its text, which quotes the content of the file.
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}") from None


def _with_more_counts(queues: dict[bytes, Any]) -> dict[bytes, Any]:
    """Convert the memory of queues under QUEUES_1, with 0 for the counts that it lacks."""
    more = [0] * (len(Count) - COUNTS_1)
    for queue in queues.values():
        queue["tallies"] = {
            name: (*values[:COUNTS_1], *more, *values[COUNTS_1:])
            for name, values in queue["tallies"].items()
        }
    return queues

"""Parses Bull's messages; their form was taken from the PUBLISH commands of Bull 3.29 and 4.16."""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER
from exporter.stores.bull.events.frames import Text

# The messages that are counted. `progress`, `drained`, `paused` and others are ignored.
WAITING, ACTIVE, COMPLETED, FAILED, DELAYED = map(
    str.encode, ("waiting", "active", "completed", "failed", "delayed")
)
STALLED, DUPLICATED, DEBOUNCED = b"stalled", b"duplicated", b"debounced"
_WITH_ID = frozenset((WAITING, ACTIVE, STALLED, DUPLICATED, DEBOUNCED))

# `{"jobId":"5","val":…}`: the id comes first, and may be a number if the application chooses one.
_FINISHED = re.compile(rb'\s*\{\s*"jobId"\s*:\s*("(?:[^"\\]|\\.)*+"|-?[0-9.e+]{1,30})\s*[,}]')
# moveStalledJobsToWait builds this text without escaping the id.
_STALLED_TOO_OFTEN = re.compile(
    rb'\{"jobId":"(.*)", "val": "job stalled more than maxStalledCount"\}', re.DOTALL
)
# The reason that the same script writes into the job's hash, by which such jobs are grouped.
STALLED_REASON = b"job stalled more than allowable limit"


class Heard(NamedTuple):
    """The contents of a message: the job, or when a job is due (epoch ms), and why it failed."""

    kind: bytes
    job_id: bytes = b""
    due: int = 0
    reason: bytes | None = None


def split_channel(channel: bytes) -> tuple[bytes, bytes]:
    """Returns the beginning of the queue's keys, and the kind of the message.

    A channel ends with the kind, such as `completed`, or with the kind, `@` and the token of the
    client that published it, such as `waiting@…`.
    """
    end = channel.rfind(b":") + 1
    return channel[:end], channel[end:].partition(b"@")[0]


def understand(kind: bytes, payload: Text) -> Heard | None:
    """Parses a message of this kind; returns None if it says nothing about a job."""
    if kind in _WITH_ID:
        return Heard(kind, payload.kept) if payload.is_whole and payload.kept else None
    if kind == DELAYED:
        due = _milliseconds(payload.kept)
        return None if due is None else Heard(kind, due=due)
    if kind not in (COMPLETED, FAILED):
        return None
    if found := _STALLED_TOO_OFTEN.fullmatch(payload.kept):
        return Heard(kind, found[1], reason=STALLED_REASON)
    found = _FINISHED.match(payload.kept)
    if found is None:
        return None
    try:
        job_id = json.loads(found[1])
    except ValueError:
        return None
    text = job_id if isinstance(job_id, str) else found[1].decode()
    reason = _reason(payload) if kind == FAILED else None
    return Heard(kind, text.encode("utf-8", "replace"), reason=reason)


def _reason(payload: Text) -> bytes | None:
    """Returns why the job failed; None if the message does not say so, or is too long."""
    if not payload.is_whole:
        return None
    try:
        reason = json.loads(payload.kept)["val"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return reason.encode("utf-8", "replace") if isinstance(reason, str) and reason else None


def _milliseconds(text: bytes) -> int | None:
    """Returns when a job is due; the message may add the job's position among those of the same
    time as a fraction.
    """
    try:
        due = float(text)
    except ValueError:
        return None
    return int(due) if math.isfinite(due) and 0 <= due <= MAX_SAFE_INTEGER / 4096 else None

"""What Bull's messages say; read off the PUBLISHes of Bull 3.29 and 4.16."""

from __future__ import annotations

import json
import math
import re
from typing import NamedTuple

from exporter.queues.text import MAX_SAFE_INTEGER
from exporter.stores.bull.events.frames import Text

# The messages that say something of a job. `progress`, `drained`, `paused` and others do not.
WAITING, ACTIVE, COMPLETED, FAILED, DELAYED = map(
    str.encode, ("waiting", "active", "completed", "failed", "delayed")
)
STALLED, DUPLICATED, DEBOUNCED = b"stalled", b"duplicated", b"debounced"
_WITH_ID = frozenset((WAITING, ACTIVE, STALLED, DUPLICATED, DEBOUNCED))

# `{"jobId":"5","val":…}`: the id comes first, and may be a number if the application says so.
_FINISHED = re.compile(rb'\s*\{\s*"jobId"\s*:\s*("(?:[^"\\]|\\.)*+"|-?[0-9.e+]{1,30})\s*[,}]')
# moveStalledJobsToWait puts it together without escaping the id.
_STALLED_TOO_OFTEN = re.compile(
    rb'\{"jobId":"(.*)", "val": "job stalled more than maxStalledCount"\}', re.DOTALL
)
# What the same script writes into the job's hash: the reason by which such jobs are grouped.
STALLED_REASON = b"job stalled more than allowable limit"


class Heard(NamedTuple):
    """What a message says: of which job, or when a job is due (epoch ms), and why it failed."""

    kind: bytes
    job_id: bytes = b""
    due: int = 0
    reason: bytes | None = None


def split_channel(channel: bytes) -> tuple[bytes, bytes]:
    """What the queue's keys begin with, and the kind of the message.

    A kind is `completed`, or `waiting@` and the token of the client that published it.
    """
    end = channel.rfind(b":") + 1
    return channel[:end], channel[end:].partition(b"@")[0]


def understand(kind: bytes, payload: Text) -> Heard | None:
    """What a message of this kind says; None if that is nothing of a job."""
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
    """Why the job failed; None if that is not said, or is too long."""
    if not payload.is_whole:
        return None
    try:
        reason = json.loads(payload.kept)["val"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return reason.encode("utf-8", "replace") if isinstance(reason, str) and reason else None


def _milliseconds(text: bytes) -> int | None:
    """When a job is due: whole, or with the place among those of the same time as a fraction."""
    try:
        due = float(text)
    except ValueError:
        return None
    return int(due) if math.isfinite(due) and 0 <= due <= MAX_SAFE_INTEGER / 4096 else None

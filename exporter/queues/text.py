"""Text that applications wrote, in a form that can be exposed and remembered."""

from __future__ import annotations

import hashlib
import re

# Number.MAX_SAFE_INTEGER of JavaScript: BullMQ counts and computes with no larger numbers.
MAX_SAFE_INTEGER = 2**53 - 1


def text(raw: bytes) -> str:
    r"""Bytes from Redis as text that can be shown anywhere; what is not UTF-8 becomes `\xff`."""
    return raw.decode("utf-8", "backslashreplace")


# What `text` writes for a byte that is not UTF-8.
_ESCAPED_BYTE = re.compile(rb"\\x([89a-f][0-9a-f])")


def spellings(raw: bytes) -> list[bytes]:
    r"""The bytes that `raw` may stand for: itself, or bytes that are not UTF-8 and were shown as
    `\xff`.
    """
    unescaped = _ESCAPED_BYTE.sub(lambda found: bytes.fromhex(found[1].decode()), raw)
    return [raw] if unescaped == raw else [raw, unescaped]


# Bytes of UTF-8. Prometheus drops a whole scrape for one label value that is longer than its
# `label_value_length_limit`, which it counts in bytes; 200 is the lowest limit in common use.
MAX_LABEL_BYTES = 200


_HASH_DIGITS = 8


def shorten(value: str) -> str:
    """The value, or its beginning and a hash if it is longer than MAX_LABEL_BYTES.

    The hash distinguishes values with the same beginning, and is the same in every process.
    """
    encoded = value.encode("utf-8", "backslashreplace")
    if len(encoded) <= MAX_LABEL_BYTES:
        return value
    digest = hashlib.sha256(encoded).hexdigest()[:_HASH_DIGITS]
    kept = encoded[: MAX_LABEL_BYTES - len(digest) - 1].decode("utf-8", "ignore")
    return f"{kept}~{digest}"


# Ids of jobs are remembered until the jobs are finished, and for a while after that: 300 of 1 MB
# took 287 MB. Longer ones are remembered by their beginning and a hash, here and in layout.lua.
MAX_ID_BYTES = 512


_ID_HASH_DIGITS = 40


def remembered_id(job_id: bytes) -> bytes:
    """The id, or its beginning and a hash if it is longer than MAX_ID_BYTES.

    A shortened id finds nothing in Redis: the hash of such a job counts as gone.
    """
    if len(job_id) <= MAX_ID_BYTES:
        return job_id
    digest = hashlib.sha1(job_id, usedforsecurity=False).hexdigest()
    return b"%b~%b" % (job_id[: MAX_ID_BYTES - _ID_HASH_DIGITS - 1], digest.encode())


def label_text(raw: bytes) -> str:
    """Bytes from Redis as a label's value: as `text`, and at most MAX_LABEL_BYTES long."""
    return shorten(text(raw))

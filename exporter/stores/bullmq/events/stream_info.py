"""Parses the reply of XINFO STREAM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.queues.event_log import StreamInfo
from exporter.stores.redis.client import mapped


def stream_info(reply: Mapping[bytes, Any] | Sequence[Any]) -> StreamInfo:
    """A stream by XINFO STREAM. Raises ValueError or another error if the reply is invalid."""
    fields = mapped(reply)
    first = fields.get(b"first-entry")
    if b"first-entry" not in fields and fields[b"length"]:
        first = [fields[b"recorded-first-entry-id"]]  # if the reply is truncated
    info = StreamInfo(
        length=fields[b"length"],
        first=first[0] if first else None,
        last=fields[b"last-generated-id"],
        added=fields.get(b"entries-added"),
    )
    return info.checked()

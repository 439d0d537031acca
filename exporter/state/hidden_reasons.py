"""Removes failure reasons from saved counts if they are to be hidden now.

Reasons are redacted before they are counted. If redaction is turned on later, then because of
reasons that are already visible: these must not come back from the state file. (Evidence is
redacted again when it is shown.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from exporter.queues.reason_counts import RETIRED
from exporter.queues.redact import Redact


async def hide_counts(queues: Iterable[dict[str, Any]], redact: Redact) -> None:
    """Remove such reasons from the memory of counters; their counts move to RETIRED."""
    for memory in queues:
        reasons = memory.get("reasons")
        if not reasons:
            continue
        hidden: set[str] = set()
        for counts in (reasons["failed"], reasons["retried"]):
            kept = []
            for series in counts["series"]:
                fingerprint, reason, number = series[:3]
                if await redact(reason) == reason:
                    kept.append(series)
                else:
                    hidden.add(fingerprint)
                    counts["reserved"][RETIRED] += number
            counts["series"] = kept
        reasons["seen"] = [seen for seen in reasons["seen"] if seen[0] not in hidden]

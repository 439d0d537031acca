"""Takes out of what was saved the reasons of failures that are to be hidden now.

Reasons are redacted before they are counted. Whoever turns redaction on later does so because of
what can be seen already: that must not come back from the state file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from exporter.queues.reason_counts import RETIRED
from exporter.queues.redact import Redact
from exporter.queues.text import text


async def hide_counts(queues: Iterable[dict[str, Any]], redact: Redact) -> None:
    """Remove such reasons from the memory of counters; what they had counted is RETIRED."""
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


async def hide_evidence(evidence: Mapping[str, Any], redact: Redact) -> dict[str, Any]:
    """The memory of evidence without the reasons of which a text is to be hidden."""
    kept = []
    for reason in evidence["reasons"]:
        jobs = reason[-1]
        texts = [reason[2], *(text(each) for job in jobs for each in job[-2:] if each)]
        if all([await redact(each) == each for each in texts]):
            kept.append(reason)
    return {**evidence, "reasons": kept}

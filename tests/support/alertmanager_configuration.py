"""The shipped configuration of Alertmanager, and odd names."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote_plus

import yaml

from tests.support.paths import ROOT

CONFIG = ROOT / "config" / "alertmanager"


ALERTMANAGER = yaml.safe_load((CONFIG / "alertmanager.yml").read_text())


def alert(name: str, status: str = "firing", **texts: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "critical", "queue": "q", "instance": "i:9538"},
        "annotations": {
            "summary": f"{name} of q",
            "description": "Why.",
            "dashboard_url": "http://grafana/d/bullmq-queue?var-instance=i&var-queue=q",
            "runbook_url": f"http://runbooks/{name}.md",
            **texts,
        },
        "startsAt": "2026-11-24T03:12:05Z",
        "endsAt": "2026-11-24T04:00:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
    }


# What a queue, a job or a reason may be called: mentions, markup, templates, headers, line breaks,
# text that runs from right to left, and a NUL.
ODD_NAME = (
    '<!channel> *bold* _it_ ~st~ `code` & "quoted" {{ .Alerts }} <script>alert(1)</script>|x>'
    "\r\nBcc: everybody@example.com\n\nRunbook: http://evil\u2028 \u202egnp.exe \0 \x7f end"
)


def odd_alert() -> dict[str, Any]:
    odd = alert(
        "A",
        summary=f"{ODD_NAME}: 45 jobs failed",
        description=f"Why: {ODD_NAME}.",
        top_reasons=f"40 × {ODD_NAME}; 5 × {ODD_NAME}",
        top_jobs=f"{ODD_NAME} (40)",
        jobs_url=f"http://api/?queue={quote_plus(ODD_NAME)}&status=failed",
    )
    odd["labels"]["queue"] = ODD_NAME
    return odd

"""What receivers get of a real Alertmanager, whatever queues and jobs are called."""

from __future__ import annotations

import json
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Spawn, eventually, newest
from tests.test_alerting import Inbox, inbox, start_alertmanager
from tests.test_alertmanager import ODD_NAME, odd_alert

__all__ = ["inbox"]  # a fixture


def send(alertmanager: str, alerts: list[dict[str, Any]]) -> bool:
    """As Prometheus sends them."""
    request = urllib.request.Request(
        f"http://{alertmanager}/api/v2/alerts",
        json.dumps(alerts).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bool(answer.status == 200)


def part(mail: EmailMessage, kind: str) -> str:
    body = mail.get_body(preferencelist=(kind,))
    assert body is not None
    return str(body.get_content())


@pytest.mark.parametrize("newer", [False, True])
def test_no_name_of_a_queue_or_a_job_changes_what_a_notification_is(
    newer: bool, inbox: Inbox, spawn: Spawn, tmp_path: Path
) -> None:
    binary = newest("prometheus-alertmanager") if newer else ""
    alertmanager = start_alertmanager(spawn, tmp_path, inbox, binary)
    odd = odd_alert()
    told = {key: odd[key] for key in ("labels", "annotations")}
    told["labels"] = {**told["labels"], "queue": ODD_NAME}
    long = {
        "labels": {**told["labels"], "queue": "long"},
        "annotations": {**told["annotations"], "summary": f"{'long' * 2000}: 45 jobs failed"},
    }
    eventually(lambda: send(alertmanager, [told, long]))

    # A mail server refuses what has too long a line, aiosmtpd too.
    def arrived() -> bool:
        return len(inbox.mails) == len(inbox.chats) == len(inbox.webhooks) == 2

    eventually(arrived, within=60)
    [chat] = [each for each in inbox.chats if "longlong" not in each["attachments"][0]["title"]]
    [attachment] = chat["attachments"]
    assert attachment["title"].startswith("FIRING &lt;!channel&gt; *bold*")
    assert attachment["title"] == attachment["fallback"]
    assert attachment["title_link"] == told["annotations"]["jobs_url"]
    assert attachment["mrkdwn_in"] == ["pretext"]
    assert "<!" not in json.dumps(chat)
    assert attachment["title"].isprintable()

    [mail] = [each for each in inbox.mails if "longlong" not in each["Subject"]]
    assert mail["Subject"].startswith("FIRING <!channel> *bold*")
    assert mail["Subject"].isprintable()
    assert mail["Bcc"] is None
    assert mail["To"] == "on-call@example.com"
    text, html = part(mail, "plain"), part(mail, "html")
    assert not [line for line in text.splitlines() if line.startswith("Bcc")]
    [runbook] = [line for line in text.splitlines() if line.startswith("Runbook:")]
    assert runbook.split() == ["Runbook:", told["annotations"]["runbook_url"]]
    assert "<script>" not in html

    # Programs get the names as they are.
    webhooks = {
        alert["labels"]["queue"]: alert for [alert] in (w["alerts"] for w in inbox.webhooks)
    }
    assert webhooks.keys() == {ODD_NAME, "long"}
    assert webhooks[ODD_NAME]["annotations"] == told["annotations"]

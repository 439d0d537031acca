"""What receivers get of a real Alertmanager, whatever queues and jobs are called."""

from __future__ import annotations

import json
import urllib.request
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.alerting import (
    Inbox,
    Monitored,
    annotations_of,
    arrives,
    inbox,
    monitored,
    start_alertmanager,
)
from tests.support.alertmanager_configuration import ODD_NAME, odd_alert
from tests.support.bullmq import StartWork
from tests.support.programs import Spawn, newest
from tests.support.servers import Server
from tests.support.waiting import eventually

__all__ = ["inbox", "monitored"]  # fixtures
pytestmark = pytest.mark.takes(seconds=50)


def send(alertmanager: str, alerts: list[dict[str, Any]]) -> bool:
    """As Prometheus sends them."""
    request = urllib.request.Request(
        f"http://{alertmanager}/api/v2/alerts",
        json.dumps(alerts).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return bool(answer.status == 200)


def inhibited(alertmanager: str) -> set[str]:
    """The names of the alerts that are not sent because of others."""
    url = f"http://{alertmanager}/api/v2/alerts?inhibited=true"
    with urllib.request.urlopen(url, timeout=10) as answer:
        alerts = json.load(answer)
    return {each["labels"]["alertname"] for each in alerts if each["status"]["inhibitedBy"]}


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
    sent = {key: odd[key] for key in ("labels", "annotations")}
    sent["labels"] = {**sent["labels"], "queue": ODD_NAME}
    long = {
        "labels": {**sent["labels"], "queue": "long"},
        "annotations": {**sent["annotations"], "summary": f"{'long' * 2000}: 45 jobs failed"},
    }
    eventually(lambda: send(alertmanager, [sent, long]))

    # A mail server refuses what has too long a line, aiosmtpd too.
    def arrived() -> bool:
        return len(inbox.mails) == len(inbox.chats) == len(inbox.webhooks) == 2

    eventually(arrived)
    [chat] = [each for each in inbox.chats if "longlong" not in each["attachments"][0]["title"]]
    [attachment] = chat["attachments"]
    assert attachment["title"].startswith("FIRING &lt;!channel&gt; *bold*")
    assert attachment["title"] == attachment["fallback"]
    assert attachment["title_link"] == sent["annotations"]["jobs_url"]
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
    assert runbook.split() == ["Runbook:", sent["annotations"]["runbook_url"]]
    assert "<script>" not in html

    # Programs get the names as they are.
    webhooks = {
        alert["labels"]["queue"]: alert for [alert] in (w["alerts"] for w in inbox.webhooks)
    }
    assert webhooks.keys() == {ODD_NAME, "long"}
    assert webhooks[ODD_NAME]["annotations"] == sent["annotations"]


def test_200_queues_that_are_removed_are_one_notification_and_so_are_all_of_a_flushed_redis(
    inbox: Inbox, monitored: Monitored, own_server: Server, start_work: StartWork
) -> None:
    def value(expression: str) -> float:
        return sum(float(sample["value"][1]) for sample in monitored.prometheus.query(expression))

    work = start_work("bullmq6", own_server.port)
    tenants = [f"tenant-{number:03}" for number in range(200)]
    for queue in (*tenants, "stays"):
        work.call(queue, "count")  # opened, it writes `meta`
    arrives(lambda: value("count(bullmq:queue_within_day)") == 201)
    for queue in tenants:
        work.call(queue, "obliterate")

    def mails() -> list[EmailMessage]:
        return [mail for mail in inbox.mails if "gone" in mail["Subject"]]

    [mail] = arrives(mails)
    assert mail["Subject"].endswith("queues are gone from Redis at once")
    assert f"the first by name are {', '.join(tenants[:10])}. " in part(mail, "plain")
    arrives(lambda: value("count(bullmq:queue_gone_together)") == 200)
    arrives(lambda: not monitored.prometheus.query('ALERTS{alertname="BullMQQueueGone"}'))
    assert inbox.webhooks_of("firing", "BullMQQueuesGone") == [], "nobody is woken"

    with own_server.client() as client:
        client.flushall()
    [notification] = arrives(lambda: inbox.webhooks_of("firing", "BullMQQueuesGone"))
    summary = annotations_of(notification, "BullMQQueuesGone")["summary"]
    assert summary == "All 201 queues are gone from Redis"
    assert notification["commonLabels"]["severity"] == "critical"
    assert [each["Subject"] for each in arrives(lambda: mails()[1:])] == [f"FIRING {summary}"]
    single = 'max_over_time(ALERTS{alertname="BullMQQueueGone",alertstate="firing"}[1h])'
    assert monitored.prometheus.query(single) == []


@pytest.mark.parametrize(("severity", "silenced"), [("critical", True), ("warning", False)])
def test_what_follows_from_an_empty_redis_is_not_sent_again(
    severity: str, silenced: bool, inbox: Inbox, spawn: Spawn, tmp_path: Path
) -> None:
    alertmanager = start_alertmanager(spawn, tmp_path, inbox)
    common = {"job": "bullmq", "instance": "i:9538", "target": "eu"}
    gone = {"labels": {**common, "alertname": "BullMQQueuesGone", "severity": severity}}
    follow = [
        {"labels": {**common, "alertname": name, "severity": "warning", "queue": queue}}
        for name, queue in (("BullMQQueueGone", "mail"), ("BullMQNoQueues", ""))
    ]
    elsewhere = {"labels": {**follow[1]["labels"], "target": "us", "alertname": "BullMQQueueGone"}}
    eventually(lambda: send(alertmanager, [gone, *follow, elsewhere]))
    eventually(lambda: len(inbox.mails) == (2 if silenced else 4))
    expected = {"BullMQQueueGone", "BullMQNoQueues"} if silenced else set()
    assert inhibited(alertmanager) == expected

"""From a job that fails to what people read, and back: all parts real, thirty times as fast."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, expect

from tests.support.alerting import (
    Inbox,
    Monitored,
    annotations_of,
    arrives,
    inbox,
    minutes_pass,
    monitored,
)
from tests.support.bullmq import StartWork
from tests.support.exporters import API_KEY, Exporter
from tests.support.http_client import Answer
from tests.support.servers import Server

__all__ = ["inbox", "monitored"]  # fixtures

pytestmark = pytest.mark.takes(seconds=90)


def test_a_spike_is_one_notification_of_a_reason_that_it_leads_to_though_its_jobs_are_deleted(
    browser: Browser, inbox: Inbox, own_server: Server, start_work: StartWork, monitored: Monitored
) -> None:
    work = start_work("bullmq5", own_server.port)
    work.work("ingestion", {"concurrency": 10})
    known = monitored.prometheus.query
    arrives(lambda: known('queue:bullmq_job_completed:sum{queue="ingestion"} == 0'))
    work.add("ingestion", "process-mailbox", 200)
    work.settle()
    # The queue has a past in which jobs succeeded.
    arrives(lambda: known('queue:bullmq_job_completed:increase1d{queue="ingestion"} > 100'))
    minutes_pass(3)
    assert inbox.webhooks == []

    removed = {"name": "fails", "data": {}, "opts": {"removeOnFail": True}}
    work.addJobs("ingestion", [removed] * 20)
    work.add("ingestion", "unrecoverable", 5)
    work.settle()
    [first] = arrives(lambda: inbox.webhooks_of("firing", "BullMQFailedJobsSpike"))
    assert first["groupLabels"] == {"job": "bullmq", "queue": "ingestion"}
    texts = annotations_of(first, "BullMQFailedJobsSpike")
    # The first evaluation may have seen a part of them.
    assert re.fullmatch(r"ingestion: \d+ jobs failed within 5 minutes", texts["summary"])
    assert "fails (" in texts["top_jobs"]
    assert re.search(r"\b\d+ × no answer for <", texts["top_reasons"])

    # The link leads to the reason that most of them have in common, of which no job is left.
    assert [job["failedReason"] for job in work.call("ingestion", "getFailed")] == ["never"] * 5
    assert linked_jobs(monitored.exporter, texts).json["jobs"] == []
    # As a person goes: the link, signing in, the group, its newest job.
    tab = browser.new_page()
    tab.goto(texts["jobs_url"])
    tab.fill("#credential", API_KEY)
    tab.press("#credential", "Enter")
    group = tab.locator("#groups .chosen")
    expect(group).to_contain_text("no answer for <*>")
    expect(group).to_contain_text("0 kept, 20 seen in 24 h")
    newest = group.locator("article").first
    expect(newest.locator("pre").first).to_have_text(re.compile(r"^no answer for \d+$"))
    expect(newest).to_contain_text("removed")
    tab.close()

    firing = f"FIRING {texts['summary']}: {texts['top_reasons']}"
    # By now it may be over, and that have been sent as well.
    [chat] = arrives(lambda: [each for each in inbox.chats if title(each).startswith("FIRING")])
    [attachment] = chat["attachments"]
    assert attachment["title"] == firing.replace("<", "&lt;").replace(">", "&gt;")
    assert attachment["title_link"] == texts["jobs_url"]
    escaped = texts["jobs_url"].replace("&", "&amp;")
    assert f"<{escaped}|Jobs>" in attachment["text"]
    [mail] = arrives(lambda: inbox.mails_of("FIRING"))
    assert mail["Subject"] == firing
    plain, html = (
        mail.get_body(preferencelist=(kind,)).get_content()  # type: ignore[union-attr]
        for kind in ("plain", "html")
    )
    # Who sees only the first line knows why.
    for text in (attachment["title"], attachment["fallback"], mail["Subject"], plain):
        assert "× no answer for" in text.splitlines()[0]
    for link in ("jobs_url", "dashboard_url", "runbook_url"):
        assert texts[link] in plain
        assert texts[link].replace("&", "&amp;") in html
    assert texts["top_jobs"] in plain

    arrives(lambda: inbox.webhooks_of("resolved", "BullMQFailedJobsSpike"))
    assert len(inbox.webhooks_of("firing", "BullMQFailedJobsSpike")) == 1
    # Mails of other alerts, to which it gave way, may come before that of its end.
    [over] = arrives(lambda: inbox.mails_of("Resolved ingestion: "))
    assert "jobs failed within 5 minutes" in over["Subject"]
    assert not inbox.mails_of("Warning ingestion: rare jobs do not succeed"), "200 did"


def title(chat: dict[str, Any]) -> str:
    return str(chat["attachments"][0]["title"])


def linked_jobs(exporter: Exporter, texts: dict[str, str]) -> Answer:
    """What the page shows that an alert links to."""
    link = urlsplit(texts["jobs_url"])
    assert f"{link.scheme}://{link.netloc}{link.path}" == f"{exporter.api.url}/"
    query = dict(parse_qsl(link.query))
    if "group" in query:
        query["fingerprint"] = query.pop("group")
    answer = exporter.api.get(
        f"/v1/jobs/queues/{quote(query.pop('queue'))}?{urlencode(query)}&limit=100"
    )
    assert answer.status == 200
    return answer


def test_a_stopped_worker_is_one_notification_and_its_return_resolves_it(
    inbox: Inbox, own_server: Server, start_work: StartWork, monitored: Monitored
) -> None:
    application, worker = (start_work("bullmq6", own_server.port) for _ in range(2))
    worker.work("indexing")
    application.add("indexing", "index-email-batch", 20)
    application.settle()
    worker.close()
    application.add("indexing", "index-email-batch", 40)

    still = arrives(lambda: inbox.webhooks_of("firing", "BullMQNoWorker"))[0]
    texts = annotations_of(still, "BullMQNoWorker")
    assert texts["summary"] == "indexing has no worker, and 40 jobs to do, delayed ones included"
    assert "No worker of the queue is connected to Redis" in texts["description"]
    page = linked_jobs(monitored.exporter, texts)
    assert page.json["pagination"]["totalJobs"] == 40
    assert {webhook["groupKey"] for webhook in inbox.webhooks} == {still["groupKey"]}
    names = {alert["labels"]["alertname"] for alert in still["alerts"]}
    assert names == {"BullMQNoWorker"}, "it says more than BullMQQueueStandsStill"

    application.work("indexing")
    application.settle()
    last = arrives(lambda: [each for each in inbox.webhooks if each["status"] == "resolved"])
    assert {alert["labels"]["alertname"] for alert in last[-1]["alerts"]} >= {"BullMQNoWorker"}


def test_a_queue_of_bull_is_reported_like_any_other(
    inbox: Inbox, own_server: Server, start_work: StartWork, monitored: Monitored
) -> None:
    # As n8n has it: one queue, of which finished jobs are removed at once.
    removed = {"removeOnComplete": True, "removeOnFail": True}
    main, worker = (start_work("bull4", own_server.port) for _ in range(2))
    worker.work("jobs", {"concurrency": 10})
    main.add("jobs", "job", 1, removed)
    known = monitored.prometheus.query
    arrives(lambda: known('queue:bullmq_job_completed:sum{queue="jobs"}'))
    main.add("jobs", "job", 200, removed)
    main.settle()
    arrives(lambda: known('queue:bullmq_job_completed:increase1d{queue="jobs"} > 100'))
    minutes_pass(3)
    assert inbox.webhooks == []

    main.add("jobs", "fails", 25, removed)
    main.settle()
    [first] = arrives(lambda: inbox.webhooks_of("firing", "BullMQFailedJobsSpike"))
    texts = annotations_of(first, "BullMQFailedJobsSpike")
    assert re.search(r"\b\d+ × no answer for <", texts["top_reasons"])

    # A worker that is connected and takes nothing, until it is killed.
    worker.call("jobs", "pause", True, True)
    main.add("jobs", "job", 40, removed)
    stuck = arrives(lambda: inbox.webhooks_of("firing", "BullMQQueueStandsStill"))[0]
    texts = annotations_of(stuck, "BullMQQueueStandsStill")
    assert texts["summary"] == "jobs is stuck: 40 jobs wait and none is taken"
    assert "Workers are connected (1), but take nothing" in texts["description"]
    assert linked_jobs(monitored.exporter, texts).json["pagination"]["totalJobs"] == 40
    worker.close()
    alone = arrives(lambda: inbox.webhooks_of("firing", "BullMQNoWorker"))[0]
    texts = annotations_of(alone, "BullMQNoWorker")
    assert texts["summary"] == "jobs has no worker, and 40 jobs to do, delayed ones included"

    main.work("jobs")
    main.settle()
    arrives(lambda: inbox.webhooks_of("resolved", "BullMQNoWorker"))


def test_a_dead_redis_or_exporter_is_one_notification_and_no_recovery_of_what_was_sent(
    inbox: Inbox, own_server: Server, start_work: StartWork, monitored: Monitored
) -> None:
    application = start_work("bullmq5", own_server.port)
    for number in range(3):
        application.add(f"queue-{number}", "a-job", 1)
    application.add("stuck", "a-job", 7)
    # All that there is to say of them is said.
    arrives(lambda: len(inbox.groups_of("BullMQNoWorker")) == 4)
    application.close()
    before = len(inbox.webhooks)

    own_server.stop()
    [notification] = arrives(lambda: inbox.webhooks_of("firing", "BullMQRedisUnreachable"))
    assert [alert["labels"]["alertname"] for alert in notification["alerts"]] == [
        "BullMQRedisUnreachable"
    ]
    minutes_pass(12)  # keep_firing_for is over, and so are two of Alertmanager's group_intervals
    # At this speed a scrape that a busy machine answers seconds late is lost for minutes.
    late = inbox.webhooks_of("firing", "BullMQExporterDown") + inbox.webhooks_of(
        "resolved", "BullMQExporterDown"
    )
    assert [each for each in inbox.webhooks[before:] if each not in late] == [notification]

    own_server.start()
    arrives(lambda: inbox.webhooks_of("resolved", "BullMQRedisUnreachable"))
    minutes_pass(3)
    assert not inbox.webhooks_of("resolved", "BullMQNoWorker"), "the queue still stands"

    before = len(inbox.webhooks_of("firing", "BullMQExporterDown"))
    monitored.exporter.terminate()
    [notification] = arrives(lambda: inbox.webhooks_of("firing", "BullMQExporterDown")[before:])
    assert [alert["labels"]["alertname"] for alert in notification["alerts"]] == [
        "BullMQExporterDown"
    ]
    minutes_pass(12)
    assert not inbox.webhooks_of("resolved", "BullMQNoWorker"), "nobody knows"

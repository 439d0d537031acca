"""From a job that fails to what people read, and back: all parts real, thirty times as fast."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP
from playwright.sync_api import Browser, expect

from tests.conftest import (
    API_KEY,
    Exporter,
    Prometheus,
    Server,
    Spawn,
    StartExporter,
    StartWork,
    eventually,
    free_port,
    program,
    start_prometheus,
)
from tests.http_client import Answer

CONFIG = Path(__file__).parents[1] / "config"
pytestmark = pytest.mark.takes(seconds=90)
SPEED = 30  # a minute of the shipped configuration lasts two seconds here
# Limits of how fast the exporter itself is.
OF_THE_MACHINE = ("bullmq:limit:poll_seconds", "bullmq:limit:event_lag_seconds")
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def faster(text: str) -> str:
    """A duration, or an expression with the durations in it, for the speed of these tests."""
    return re.sub(
        r"(?<![\w.])(\d+)(ms|[smhd])\b",
        lambda found: f"{int(found[1]) * UNITS[found[2]] // SPEED}ms",
        text,
    )


def minutes_pass(number: int) -> None:
    """Of the shipped configuration: long enough for what must not happen."""
    time.sleep(60 * number / SPEED)


def faster_rules(api: str) -> dict[str, Any]:
    """All shipped rules; the links lead to `api`."""
    groups = []
    for file in sorted((CONFIG / "prometheus" / "rules").glob("*.yml")):
        groups += yaml.safe_load(file.read_text())["groups"]
    for group in groups:
        if "interval" in group:
            group["interval"] = faster(group["interval"])
        for rule in group["rules"]:
            # Where rates are made counts again: 300 * rate5m.
            per_window = re.sub(
                r"\b(300|3600) \*", lambda found: f"{int(found[1]) // SPEED} *", rule["expr"]
            )
            rule["expr"] = faster(per_window)
            name = rule.get("record", "")
            if name.endswith("_seconds") and name not in OF_THE_MACHINE:
                rule["expr"] = f"({rule['expr']}) / {SPEED}"
            if rule.get("record") == "bullmq:links":
                rule["labels"]["jobs"] = api
            if "for" in rule:
                rule["for"] = faster(rule["for"])
            # For half an hour in use: enough here is what bridges a slow evaluation.
            if "keep_firing_for" in rule:
                rule["keep_firing_for"] = faster("5m")
    return {"groups": groups}


@dataclass
class Inbox:
    """What the receivers of a notification got, as it came."""

    webhooks: list[dict[str, Any]] = field(default_factory=list)
    chats: list[dict[str, Any]] = field(default_factory=list)
    mails: list[EmailMessage] = field(default_factory=list)
    http: str = ""  # where it takes webhooks and chats: a URL
    smtp: str = ""  # where it takes mails: host and port

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        mail = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def mails_of(self, subject: str) -> list[EmailMessage]:
        """The mails whose subject begins so."""
        return [mail for mail in self.mails if mail["Subject"].startswith(subject)]

    def groups_told(self, alert: str) -> set[str]:
        """The groups, one for each queue, of which this alert was told."""
        return {webhook["groupKey"] for webhook in self.told("firing", alert)}

    def told(self, status: str, alert: str | None = None) -> list[dict[str, Any]]:
        """The webhooks that tell of an alert of this status."""
        return [
            webhook
            for webhook in self.webhooks
            if any(
                each["status"] == status and alert in (None, each["labels"]["alertname"])
                for each in webhook["alerts"]
            )
        ]


class Mail(Controller):
    """An SMTP server. aiosmtpd ends with connections open; here it waits for their ends."""

    def __init__(self, inbox: Inbox) -> None:
        self.sessions: list[SMTP] = []
        super().__init__(inbox, hostname="127.0.0.1", port=free_port())

    def factory(self) -> SMTP:
        self.sessions.append(super().factory())
        return self.sessions[-1]

    def stop(self, no_assert: bool = False) -> None:
        for session in self.sessions:
            if (transport := session.transport) is not None:
                self.loop.call_soon_threadsafe(transport.close)
        eventually(lambda: all(session.transport is None for session in self.sessions))
        super().stop(no_assert)


class Http(ThreadingHTTPServer):
    daemon_threads = False  # its end waits for those of its threads


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            (inbox.chats if self.path == "/slack" else inbox.webhooks).append(body)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    with Http(("127.0.0.1", 0), Receiver) as http:
        threading.Thread(target=http.serve_forever, args=(0.05,)).start()
        mail = Mail(inbox)
        mail.start()
        inbox.http = f"http://127.0.0.1:{http.server_address[1]}"
        inbox.smtp = f"127.0.0.1:{mail.port}"
        yield inbox
        mail.stop()
        http.shutdown()


def start_alertmanager(spawn: Spawn, directory: Path, inbox: Inbox, binary: str = "") -> str:
    """The shipped configuration, but for addresses and speed; gives its host and port."""
    config = yaml.safe_load((CONFIG / "alertmanager" / "alertmanager.yml").read_text())
    config["global"] = {"smtp_smarthost": inbox.smtp, "smtp_from": "a@b.example"}
    config["global"]["smtp_require_tls"] = False
    config["templates"] = [str(CONFIG / "alertmanager" / "templates" / "*.tmpl")]
    for route in (config["route"], *config["route"]["routes"]):
        for key in ("group_wait", "group_interval", "repeat_interval"):
            if key in route:
                route[key] = faster(route[key])
    for receiver in config["receivers"]:
        for slack in receiver.get("slack_configs", []):
            del slack["api_url_file"]
            slack["api_url"] = f"{inbox.http}/slack"
        for webhook in receiver.get("webhook_configs", []):
            webhook["url"] = f"{inbox.http}/alerts"
    file, address = directory / "alertmanager.yml", f"127.0.0.1:{free_port()}"
    file.write_text(json.dumps(config))
    spawn(
        binary or program("prometheus-alertmanager", "prometheus-alertmanager"),
        f"--config.file={file}",
        f"--storage.path={directory}/alertmanager",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )
    return address


@dataclass(frozen=True)
class Monitored:
    exporter: Exporter
    prometheus: Prometheus


@pytest.fixture
def monitored(
    # In this order: who sends ends before who receives.
    inbox: Inbox,
    own_server: Server,
    start_exporter: StartExporter,
    spawn: Spawn,
    tmp_path: Path,
) -> Monitored:
    """The exporter at `own_server`, with Prometheus and Alertmanager behind it."""
    exporter = start_exporter(own_server.url)
    alertmanager = start_alertmanager(spawn, tmp_path, inbox)
    rules = tmp_path / "rules.yml"
    rules.write_text(json.dumps(faster_rules(exporter.api.url)))
    config = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text())
    config["global"] = {key: faster(value) for key, value in config["global"].items()}
    config["rule_files"] = [str(rules)]
    [[target]] = [job["static_configs"] for job in config["scrape_configs"]]
    target["targets"] = [exporter.metrics.url.removeprefix("http://")]
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    prometheus = start_prometheus(spawn, tmp_path, config)
    eventually(lambda: prometheus.query("bullmq_up == 1"))
    return Monitored(exporter, prometheus)


def arrives(check: Callable[[], Any]) -> Any:
    """As `eventually`: a notification takes its `for` and its group_wait, and machines are slow."""
    return eventually(check)


def annotations(webhook: dict[str, Any], alert: str) -> dict[str, str]:
    [found] = [each for each in webhook["alerts"] if each["labels"]["alertname"] == alert]
    return dict(found["annotations"])


def test_a_spike_of_failures_is_one_notification_that_leads_to_those_very_jobs(
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

    work.add("ingestion", "fails", 20)
    work.add("ingestion", "unrecoverable", 5)
    work.settle()
    [first] = arrives(lambda: inbox.told("firing", "BullMQFailedJobsSpike"))
    assert first["groupLabels"] == {"job": "bullmq", "queue": "ingestion"}
    texts = annotations(first, "BullMQFailedJobsSpike")
    # The first evaluation may have seen a part of them.
    assert re.fullmatch(r"ingestion: \d+ jobs failed within 5 minutes", texts["summary"])
    assert "fails (" in texts["top_jobs"]

    page = linked_jobs(monitored.exporter, texts)
    failed = {job["id"] for job in work.call("ingestion", "getFailed")}
    assert len(failed) == 25
    assert {job["id"] for job in page.json["jobs"]} == failed
    errors = {"never", *(f"no answer for {job}" for job in failed)}
    assert {job["error"] for job in page.json["jobs"]} <= errors
    # As a person goes: the link, signing in, the newest job, its stack trace.
    tab = browser.new_page()
    tab.goto(texts["jobs_url"])
    tab.fill("#credential", API_KEY)
    tab.press("#credential", "Enter")
    expect(tab.locator("#groups li").first).to_be_visible()
    tab.locator("#jobs tbody td.id a").first.click()
    expect(tab.locator("#traces")).to_contain_text("work.mjs")
    tab.close()

    firing = f"FIRING {texts['summary']}"
    # By now it may be over, and that be told as well.
    [chat] = arrives(lambda: [each for each in inbox.chats if title(each).startswith("FIRING")])
    [attachment] = chat["attachments"]
    assert attachment["title"] == f"FIRING {texts['summary']}"
    assert attachment["title_link"] == texts["jobs_url"]
    escaped = texts["jobs_url"].replace("&", "&amp;")
    assert f"<{escaped}|Jobs>" in attachment["text"]
    [mail] = arrives(lambda: inbox.mails_of("FIRING"))
    assert mail["Subject"] == firing
    plain, html = (
        mail.get_body(preferencelist=(kind,)).get_content()  # type: ignore[union-attr]
        for kind in ("plain", "html")
    )
    for link in ("jobs_url", "dashboard_url", "runbook_url"):
        assert texts[link] in plain
        assert texts[link].replace("&", "&amp;") in html
    assert texts["top_jobs"] in plain

    arrives(lambda: inbox.told("resolved", "BullMQFailedJobsSpike"))
    assert len(inbox.told("firing", "BullMQFailedJobsSpike")) == 1
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

    still = arrives(lambda: inbox.told("firing", "BullMQNoWorker"))[0]
    texts = annotations(still, "BullMQNoWorker")
    assert texts["summary"] == "indexing has no worker, and 40 jobs to do, delayed ones included"
    assert "No worker of the queue is connected to Redis" in texts["description"]
    page = linked_jobs(monitored.exporter, texts)
    assert page.json["pagination"]["totalJobs"] == 40
    assert {webhook["groupKey"] for webhook in inbox.webhooks} == {still["groupKey"]}
    told = {alert["labels"]["alertname"] for alert in still["alerts"]}
    assert told == {"BullMQNoWorker"}, "it says more than BullMQQueueStandsStill"

    application.work("indexing")
    application.settle()
    last = arrives(lambda: [each for each in inbox.webhooks if each["status"] == "resolved"])
    assert {alert["labels"]["alertname"] for alert in last[-1]["alerts"]} >= {"BullMQNoWorker"}


def test_a_dead_redis_or_exporter_is_one_notification_and_no_recovery_of_what_was_told(
    inbox: Inbox, own_server: Server, start_work: StartWork, monitored: Monitored
) -> None:
    application = start_work("bullmq5", own_server.port)
    for number in range(3):
        application.add(f"queue-{number}", "a-job", 1)
    application.add("stuck", "a-job", 7)
    # All that there is to say of them is said.
    arrives(lambda: len(inbox.groups_told("BullMQNoWorker")) == 4)
    application.close()
    before = len(inbox.webhooks)

    own_server.stop()
    [told] = arrives(lambda: inbox.told("firing", "BullMQRedisUnreachable"))
    assert [alert["labels"]["alertname"] for alert in told["alerts"]] == ["BullMQRedisUnreachable"]
    minutes_pass(12)  # keep_firing_for is over, and so are two of Alertmanager's group_intervals
    # At this speed a scrape that a busy machine answers seconds late is lost for minutes.
    late = inbox.told("firing", "BullMQExporterDown") + inbox.told("resolved", "BullMQExporterDown")
    assert [each for each in inbox.webhooks[before:] if each not in late] == [told]

    own_server.start()
    arrives(lambda: inbox.told("resolved", "BullMQRedisUnreachable"))
    minutes_pass(3)
    assert not inbox.told("resolved", "BullMQNoWorker"), "the queue still stands"

    before = len(inbox.told("firing", "BullMQExporterDown"))
    monitored.exporter.terminate()
    [told] = arrives(lambda: inbox.told("firing", "BullMQExporterDown")[before:])
    assert [alert["labels"]["alertname"] for alert in told["alerts"]] == ["BullMQExporterDown"]
    minutes_pass(12)
    assert not inbox.told("resolved", "BullMQNoWorker"), "nobody knows"

"""A real Alertmanager and Prometheus with the shipped files, thirty times as fast."""

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

import pytest
import yaml
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from tests.support.exporters import Exporter, StartExporter
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.programs import Spawn, program
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.servers import Server
from tests.support.waiting import eventually

CONFIG = ROOT / "config"


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
            # Up to an hour in use: a quarter of one, as that of BullMQNoWorker, is enough here.
            if rule.get("keep_firing_for") in ("20m", "25m", "30m", "45m", "1h"):
                rule["keep_firing_for"] = "15m"
            if "keep_firing_for" in rule:
                rule["keep_firing_for"] = faster(rule["keep_firing_for"])
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

    def groups_of(self, alert: str) -> set[str]:
        """The groups, one for each queue, of which this alert was sent."""
        return {webhook["groupKey"] for webhook in self.webhooks_of("firing", alert)}

    def webhooks_of(self, status: str, alert: str | None = None) -> list[dict[str, Any]]:
        """The webhooks about an alert of this status."""
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


def annotations_of(webhook: dict[str, Any], alert: str) -> dict[str, str]:
    [found] = [each for each in webhook["alerts"] if each["labels"]["alertname"] == alert]
    return dict(found["annotations"])

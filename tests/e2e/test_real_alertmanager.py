"""Real Alertmanagers send what the scoreboard of incidents counts by its model of them.

Incidents are played to them as Prometheus would send their alerts, at many times the speed, with
the shipped configuration. What they sent is compared with what the model sends for alerts that come
at the very times at which these came: how fast the machine is makes no difference.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.rules.incidents.alertmanager import (
    Alertmanager,
    Key,
    Notification,
    Sends,
    configuration,
    group_of,
    minutes,
    sends,
)
from tests.rules.incidents.catalogue import INCIDENTS
from tests.rules.incidents.prometheus import Alert
from tests.rules.incidents.scoreboard import scores
from tests.support.ports import free_port
from tests.support.programs import Spawn, newest, program
from tests.support.waiting import eventually

PLAYED = (
    "standstill",
    "standstill-and-then-redis-away",
    "no-workers",
    "all-workers-hang",
    "all-fail",
    "all-fail-while-the-exporter-is-renamed",
    "half-fail",
    "dependency-down-5-minutes-of-25",
    "one-dependency-of-25-queues",
    "redis-away",
    "empty-replica",
    "twelve-queues-removed",
    "polls-stopped",
)
FIRST, LAST = 20, 200  # of the minutes of their histories
SPEED = 60  # a minute lasts a second: far longer than a request does
# For what is sent each four hours, and each day: 24 seconds, and 144.
REMINDERS_SPEED, REMINDED_MINUTES = 600, 1700
# Of webhooks, as of others than this machine: a reminder is logged a moment after its flush.
ANSWER_SECONDS = 0.2
# What comes within a moment (in minutes) of a flush is in it or not. The model is asked for several
# cases, and a few notifications may differ from all of them.
MOMENT, CASES, MAY_DIFFER = 0.1, 12, 0.05

# The minutes of notifications, by scrape job, receiver and what they say.
Sent = dict[tuple[str, str, str], list[float]]
Firing = frozenset[Alert]
Resolved = frozenset[Alert]


@dataclass
class Inbox:
    """Takes the webhooks of all Alertmanagers, and keeps what each sent."""

    url: str = ""
    webhooks: list[tuple[str, float, Firing, Resolved]] = field(default_factory=list)

    def of(self, sender: str) -> list[tuple[float, Firing, Resolved]]:
        return sorted(
            (
                (at, firing, resolved)
                for name, at, firing, resolved in self.webhooks
                if name == sender
            ),
            key=lambda each: each[0],
        )


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    inbox = Inbox()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            at = time.monotonic()
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            alerts: dict[str, set[Alert]] = {"firing": set(), "resolved": set()}
            for each in content["alerts"]:
                alerts[each["status"]].add(tuple(sorted(each["labels"].items())))
            firing, resolved = (frozenset(alerts[status]) for status in ("firing", "resolved"))
            inbox.webhooks.append((self.path.strip("/"), at, firing, resolved))
            time.sleep(ANSWER_SECONDS)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as http:
        threading.Thread(target=http.serve_forever, args=(0.05,)).start()
        inbox.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield inbox
        http.shutdown()


def faster(route: Mapping[str, Any], speed: int) -> dict[str, Any]:
    """The route and those below it with shorter times."""
    changed = dict(route)
    for key in ("group_wait", "group_interval", "repeat_interval"):
        if key in route:
            changed[key] = f"{round(minutes(route[key]) * 60_000 / speed)}ms"
    if "routes" in route:
        changed["routes"] = [faster(each, speed) for each in route["routes"]]
    return changed


def receiver(shipped: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Of the same name, and a webhook."""
    integrations = [each for kind in shipped.values() if isinstance(kind, list) for each in kind]
    [send_resolved] = {each["send_resolved"] for each in integrations}
    webhook = {"url": url, "send_resolved": send_resolved}
    return {"name": shipped["name"], "webhook_configs": [webhook]}


@dataclass
class Played:
    """A real Alertmanager and what it has received. Times are minutes of the history."""

    name: str
    address: str
    speed: int
    keeps_empty_groups: bool
    began: float = 0.0  # by this machine's clock, in seconds
    loaded_at: float = 0.0
    received: Sends = field(default_factory=list)
    starts: dict[Alert, datetime] = field(default_factory=dict)
    ends: dict[Alert, datetime] = field(default_factory=dict)

    def begin(self) -> None:
        """Loads the configuration: from now on it removes empty groups each half minute."""
        self._post("/-/reload", None)
        # Other minutes begin at other moments than those at which it does.
        self.began = time.monotonic() + 0.3
        self.loaded_at = self.now()

    def now(self) -> float:
        return (time.monotonic() - self.began) * self.speed / 60

    def wait_until(self, minute: float) -> None:
        time.sleep(max(0, minute - self.now()) * 60 / self.speed)

    def receive(self, alerts: Mapping[Alert, bool]) -> None:
        """Sends it these alerts now."""
        at, now, body = self.now(), datetime.now(UTC), []
        for alert, fires in alerts.items():
            if not fires:
                self.ends.setdefault(alert, now)
            elif alert in self.ends or alert not in self.starts:
                self.starts[alert] = now
                self.ends.pop(alert, None)
            # Far away for those that fire: the end of each is sent.
            ends = self.ends.get(alert, now + timedelta(hours=1))
            times = {"startsAt": self.starts[alert].isoformat(), "endsAt": ends.isoformat()}
            body.append({"labels": dict(alert), **times})
        self._post("/api/v2/alerts", body)
        self.received.append((at, dict(alerts)))

    def _post(self, path: str, content: Any) -> None:
        headers = {"Content-Type": "application/json"}
        request = Request(f"http://{self.address}{path}", json.dumps(content).encode(), headers)
        with urlopen(request, timeout=60) as answer:
            assert answer.status == 200

    def sent(self, inbox: Inbox, end: float) -> Sent:
        """What it sent until then."""
        times = ((at - self.began) * self.speed / 60 for at, _, _ in inbox.of(self.name))
        return sorted_by_what_is_said(
            (at, firing, resolved)
            for at, (_, firing, resolved) in zip(times, inbox.of(self.name), strict=True)
            if at < end
        )

    def modelled(self, end: float) -> Iterator[Sent]:
        """What the model sends until then: for these times, and for some that differ by moments."""
        chance = random.Random(0)
        removes_at = self.loaded_at if self.keeps_empty_groups else None
        for case in range(CASES):
            sent: list[Notification] = []
            for received in by_job(self.received):
                model, now = Alertmanager(removes_at, 0.5 * self.speed), 0.0
                for at, alerts in received:
                    now = max(now, at + (chance.uniform(-MOMENT, MOMENT) if case > 1 else 0))
                    # It flushes an old group at once: when it has the first of them, or all.
                    one_by_one = [{alert: fires} for alert, fires in alerts.items()]
                    for part in one_by_one if case % 2 else [alerts]:
                        sent += model.advance(now)
                        model.receive(now, part)
                        now += 1e-6
                sent += model.advance(end)
            yield sorted_by_what_is_said((each.at, each.firing, each.resolved) for each in sent)


def by_job(received: Sends) -> Iterable[Sends]:
    """What was received of each scrape job. One has nothing to do with another."""
    found: dict[str, dict[float, dict[Alert, bool]]] = {}
    for at, alerts in received:
        for alert, fires in alerts.items():
            found.setdefault(dict(alert)["job"], {}).setdefault(at, {})[alert] = fires
    return [[*each.items()] for each in found.values()]


def sorted_by_what_is_said(notifications: Iterable[tuple[float, Firing, Resolved]]) -> Sent:
    """Something new, the same again, or that all is over."""
    known: dict[Key, Firing] = {}
    sent: Sent = {}
    for at, firing, resolved in notifications:
        alert = next(iter(firing or resolved))
        group = group_of(alert)
        new = firing - known.get(group, frozenset())
        known[group] = firing
        what = "new" if new else "again" if firing else "resolved"
        sent.setdefault((dict(alert)["job"], str(group[0]), what), []).append(at)
    return sent


def differences(real: Sent, modelled: Sequence[Sent]) -> dict[tuple[str, str, str], int]:
    """How many notifications are missing, or above what any case of the model has."""
    found = {}
    for key in sorted(real.keys() | set().union(*modelled)):
        number, numbers = len(real.get(key, ())), [len(each.get(key, ())) for each in modelled]
        if surplus := max(0, number - max(numbers)) + min(0, number - min(numbers)):
            found[key] = surplus
    return found


def at_other_times(real: Sent, modelled: Sent, late: float) -> list[tuple[str, str, str, float]]:
    """Those that come earlier than the model says, or later although this machine is on time."""
    return [
        (*key, after)
        for key, times in real.items()
        if len(times) == len(modelled.get(key, ()))
        for after in (a - b for a, b in zip(times, modelled[key], strict=True))
        if not -2 * MOMENT < after < late + 2
    ]


def start(
    name: str, version: str, speed: int, inbox: Inbox, spawn: Spawn, directory: Path
) -> Played:
    binary, address = "prometheus-alertmanager", f"127.0.0.1:{free_port()}"
    shipped = configuration()
    config = {
        "route": faster(shipped["route"], speed),
        "receivers": [receiver(each, f"{inbox.url}/{name}") for each in shipped["receivers"]],
        "inhibit_rules": shipped["inhibit_rules"],
    }
    file = directory / f"{name}.yml"
    file.write_text(json.dumps(config))
    spawn(
        program(binary, binary) if version == "0.25" else newest(binary),
        f"--config.file={file}",
        f"--storage.path={directory / name}",
        f"--web.listen-address={address}",
        "--cluster.listen-address=",
    )
    eventually(lambda: urlopen(f"http://{address}/-/ready", timeout=10).status == 200)
    return Played(name, address, speed, keeps_empty_groups=version == "0.25")


def play(alertmanagers: Sequence[Played], history: Sends, end: float) -> float:
    """To all of them, of one speed. Returns the minutes by which the latest came too late."""
    late = 0.0
    for each in alertmanagers:
        each.begin()
    for at, alerts in history:
        for each in alertmanagers:
            each.wait_until(at)
            each.receive(alerts)
            late = max(late, each.received[-1][0] - at)
    for each in alertmanagers:
        each.wait_until(end)
    return late


def histories() -> Sends:
    """What Prometheus sends of the incidents played, each with and without lost scrapes."""
    sent: dict[float, dict[Alert, bool]] = {}
    for score in scores([INCIDENTS[name] for name in PLAYED], [0, 30]):
        timeline = [
            (at - FIRST, frozenset(of_job(score.job, alert) for alert in alerts))
            for at, alerts in score.timeline
            if FIRST <= at <= LAST
        ]
        for at, alerts in sends(timeline):
            sent.setdefault(at, {}).update(alerts)
    return sorted(sent.items())


def of_job(job: str, alert: Alert | Mapping[str, str]) -> Alert:
    return tuple(sorted((dict(alert) | {"job": job}).items()))


def reminders() -> Sends:
    """Of a page and a mail for more than a day, and of what is inhibited meanwhile."""
    alerts = frozenset(
        of_job("reminders", {"alertname": name, "severity": severity, "queue": queue})
        for name, severity, queue in (
            ("BullMQNoWorker", "critical", "mail"),
            ("BullMQQueueStandsStill", "critical", "mail"),
            ("BullMQFailureRatioHigh", "warning", "import"),
        )
    )
    # As often as needed: each minute would be many requests.
    timeline = [(at, alerts) for at in range(0, REMINDED_MINUTES, 60)]
    return sends(timeline)


@pytest.mark.takes(seconds=220)
@pytest.mark.timeout(3600)  # three minutes that are played, of a machine that may do much else
def test_alertmanager_sends_as_the_model_counts(inbox: Inbox, spawn: Spawn, tmp_path: Path) -> None:
    played, reminded = (
        [start(f"{what}-{v}", v, speed, inbox, spawn, tmp_path) for v in ("0.25", "newest")]
        for what, speed in (("incidents", SPEED), ("reminders", REMINDERS_SPEED))
    )
    history, end = histories(), LAST - FIRST
    with ThreadPoolExecutor() as threads:
        beside = threads.submit(play, reminded, reminders(), REMINDED_MINUTES)
        late = play(played, history, end)
        beside.result()

    for each in (*played, *reminded):
        until = end if each in played else REMINDED_MINUTES
        real, modelled = each.sent(inbox, until), [*each.modelled(until)]
        number = sum(map(len, real.values()))
        assert {job for job, *_ in real} == {job for job, *_ in modelled[0]}
        differing = differences(real, modelled)
        assert sum(map(abs, differing.values())) <= max(1, MAY_DIFFER * number), each.name
        if each in played:
            others = at_other_times(real, modelled[0], late)
            assert len(others) <= MAY_DIFFER * number, (each.name, late)

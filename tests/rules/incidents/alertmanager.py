"""What the shipped configuration of Alertmanager sends: grouping, inhibition and repeats.

As Alertmanager does it (dispatch.go, inhibit.go, notify.go), in minutes of a history in place of
its own clock. tests/e2e/test_real_alertmanager.py compares it with real ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.rules.incidents.prometheus import Alert, Timeline

CONFIG = Path(__file__).parents[3] / "config" / "alertmanager" / "alertmanager.yml"
# Of Prometheus: how long after an alert was sent it is sent again, at the first evaluation that is
# later; and for how long one that is over is.
RESEND_MINUTES, RESOLVED_MINUTES = 1, 15
UNITS = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440}


# When which alerts are sent to Alertmanager, and whether each fires.
Sends = list[tuple[float, dict[Alert, bool]]]
Key = tuple[Any, ...]  # of a group


@dataclass(frozen=True)
class Notification:
    """What one receiver gets at one moment; the time is in minutes."""

    at: float
    receiver: str
    firing: frozenset[Alert]
    resolved: frozenset[Alert]
    new: frozenset[Alert]  # of those firing, what its group had not reported before


@dataclass
class Route:
    receiver: str
    group_by: tuple[str, ...]
    wait: float
    interval: float
    repeat: float
    sends_resolved: bool


@dataclass
class _Group:
    """Of a route: alerts that are sent together."""

    route: Route
    flushes: float  # when it does so next
    has_flushed: bool = False
    alerts: dict[Alert, bool] = field(default_factory=dict)  # whether each fires


@dataclass
class _Sent:
    """What a group reported last."""

    at: float
    firing: frozenset[Alert]
    resolved: frozenset[Alert]


@cache
def configuration() -> dict[str, Any]:
    return dict(yaml.safe_load(CONFIG.read_text()))


@cache
def match(matchers: tuple[str, ...], alert: Alert) -> bool:
    """Whether all of them do."""
    labels = dict(alert)
    for text in matchers:
        found = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', text)
        assert found, text
        label, operator, value = found.groups()
        given = labels.get(label, "")
        same = bool(re.fullmatch(value, given)) if "~" in operator else given == value
        if same == operator.startswith("!"):
            return False
    return True


@cache
def route_of(alert: Alert) -> Route:
    config = configuration()
    route, merged = config["route"], dict(config["route"])
    while True:
        for child in route.get("routes", ()):
            if match(tuple(child["matchers"]), alert):
                route, merged = child, merged | child
                break
        else:
            break
    [receiver] = [each for each in config["receivers"] if each["name"] == merged["receiver"]]
    integrations = [each for kind in receiver.values() if isinstance(kind, list) for each in kind]
    return Route(
        merged["receiver"],
        tuple(merged["group_by"]),
        minutes(merged["group_wait"]),
        minutes(merged["group_interval"]),
        minutes(merged["repeat_interval"]),
        any(each.get("send_resolved", True) for each in integrations),
    )


@cache
def group_of(alert: Alert) -> Key:
    """The group in which it is sent: of its route, by labels."""
    labels, route = dict(alert), route_of(alert)
    return route.receiver, route.repeat, *(labels.get(label, "") for label in route.group_by)


def minutes(duration: str) -> float:
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))


def is_inhibited(alert: Alert, active: Set[Alert]) -> bool:
    """Whether another alert that fires keeps it from being sent."""
    labels = dict(alert)
    for rule in configuration()["inhibit_rules"]:
        source, target = tuple(rule["source_matchers"]), tuple(rule["target_matchers"])
        if not match(target, alert):
            continue
        both = match(source, alert)
        for other in active:
            if match(source, other) and not (both and match(target, other)):
                theirs = dict(other)
                if all(theirs.get(each, "") == labels.get(each, "") for each in rule["equal"]):
                    return True
    return False


def sends(timeline: Timeline) -> Sends:
    """As Prometheus sends the alerts of one scrape job: when each begins and ends, and again later.

    Those that fire it sends as long as they do, and those that are over for a quarter of an hour.
    """
    found: Sends = []
    sent: dict[Alert, float] = {}
    over: dict[Alert, float] = {}  # since when
    before: frozenset[Alert] = frozenset()
    for at, firing in timeline:
        over |= dict.fromkeys(before - firing, at)
        over = {
            alert: since
            for alert, since in over.items()
            if alert not in firing and at - since <= RESOLVED_MINUTES
        }
        due = {
            alert: alert in firing
            for alert in sorted(firing | over.keys())
            if alert in firing ^ before or at - sent[alert] > RESEND_MINUTES
        }
        sent |= dict.fromkeys(due, at)
        before = firing
        if due:
            found.append((at, due))
    return found


def notifications(timeline: Timeline) -> Iterator[Notification]:
    """What is sent for the alerts of one scrape job, until the end of its history."""
    alertmanager = Alertmanager()
    for at, alerts in sends(timeline):
        yield from alertmanager.advance(at)
        alertmanager.receive(at, alerts)
    yield from alertmanager.advance(timeline[-1][0] + 1)


class Alertmanager:
    """Groups of alerts, and what they have sent.

    Alertmanager 0.25 removes empty groups every half minute, from such a time on; later versions do
    at once, as is done without `removes_at`.
    """

    def __init__(self, removes_at: float | None = None, removes_every: float = 0.5) -> None:
        self._groups: dict[Key, _Group] = {}
        self._log: dict[Key, _Sent] = {}
        self._firing_since: dict[Alert, float] = {}
        self._began: dict[Alert, float] = {}
        self._removes_at, self._removes_every = removes_at, removes_every

    def receive(self, at: float, alerts: dict[Alert, bool]) -> None:
        """Alerts, and whether each fires. `advance` goes up to that time first."""
        for alert, fires in alerts.items():
            if not fires:
                self._firing_since.pop(alert, None)
            elif alert not in self._firing_since:
                self._firing_since[alert] = self._began[alert] = at
            self._insert(alert, at, fires)

    def advance(self, until: float) -> Iterator[Notification]:
        """What is sent before that time."""
        while True:
            next_flush = min((group.flushes for group in self._groups.values()), default=until)
            if self._removes_at is not None and self._removes_at <= min(next_flush, until):
                self._groups = {key: group for key, group in self._groups.items() if group.alerts}
                self._removes_at += self._removes_every
            elif next_flush < until:
                yield from self._flush_those_of(next_flush)
            else:
                return

    def _flush_those_of(self, now: float) -> Iterator[Notification]:
        for key, group in [*self._groups.items()]:
            if group.flushes > now:
                continue
            group.flushes, group.has_flushed = now + group.route.interval, True
            last = self._log.get(key)
            if last and now - last.at > 2 * group.route.repeat:
                last = None  # forgotten
            if group.alerts and (sent := _flush(group, last, now, self._firing_since.keys())):
                known = last.firing if last else frozenset()
                self._log[key] = sent
                if sent.firing or group.route.sends_resolved:
                    new = sent.firing - known
                    yield Notification(now, group.route.receiver, sent.firing, sent.resolved, new)
            group.alerts = {alert: fires for alert, fires in group.alerts.items() if fires}
            if not group.alerts and self._removes_at is None:
                del self._groups[key]

    def _insert(self, alert: Alert, at: float, fires: bool) -> None:
        route, key = route_of(alert), group_of(alert)
        is_old = self._began.get(alert, at) + route.wait < at
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(route, at if is_old else at + route.wait)
        elif is_old and not group.has_flushed and self._removes_at is not None:
            group.flushes = at
        group.alerts[alert] = fires


def _flush(group: _Group, last: _Sent | None, now: float, active: Set[Alert]) -> _Sent | None:
    """What is sent now, if anything is."""
    heard = [alert for alert in group.alerts if not is_inhibited(alert, active)]
    if not heard:
        return None
    firing = frozenset(alert for alert in heard if group.alerts[alert])
    resolved = frozenset(heard) - firing
    if last is None:
        needed = bool(firing)
    elif not firing <= last.firing:
        needed = True
    elif not firing:
        needed = bool(last.firing)
    else:
        changed = group.route.sends_resolved and not resolved <= last.resolved
        # A notification is logged a moment after its flush: the flush after so long is too early.
        needed = changed or now - last.at > group.route.repeat + 0.01
    return _Sent(now, firing, resolved) if needed else None

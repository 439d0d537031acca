"""What the shipped configuration of Alertmanager sends: grouping, inhibition and repeats.

As Alertmanager does it (dispatch.go, inhibit.go, notify.go), in minutes of a history in place of
its own clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.rules.incidents.prometheus import Alert, Timeline

CONFIG = Path(__file__).parents[3] / "config" / "alertmanager" / "alertmanager.yml"
UNITS = {"s": 1 / 60, "m": 1, "h": 60, "d": 1440}


@dataclass(frozen=True)
class Notification:
    """What one receiver gets at one moment; the time is in minutes."""

    at: float
    receiver: str
    firing: frozenset[Alert]
    resolved: frozenset[Alert]
    new: frozenset[Alert]  # of those firing, what its group had not reported before


@dataclass(frozen=True)
class Matchers:
    """All of them must match."""

    texts: tuple[str, ...]

    def match(self, labels: dict[str, str]) -> bool:
        return all(self._matches(text, labels) for text in self.texts)

    @staticmethod
    def _matches(text: str, labels: dict[str, str]) -> bool:
        found = re.fullmatch(r'(\w+)(=~|!~|!=|=)"(.*)"', text)
        assert found, text
        label, operator, value = found.groups()
        given = labels.get(label, "")
        same = bool(re.fullmatch(value, given)) if "~" in operator else given == value
        return same != operator.startswith("!")


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
    flushes: float
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


def route_of(labels: dict[str, str]) -> Route:
    config = configuration()
    route, merged = config["route"], dict(config["route"])
    while True:
        for child in route.get("routes", ()):
            if Matchers(tuple(child["matchers"])).match(labels):
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


def minutes(duration: str) -> float:
    return sum(int(n) * UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", duration))


def is_inhibited(alert: Alert, active: frozenset[Alert]) -> bool:
    """Whether another alert that fires keeps it from being sent."""
    labels = dict(alert)
    for rule in configuration()["inhibit_rules"]:
        source = Matchers(tuple(rule["source_matchers"]))
        target = Matchers(tuple(rule["target_matchers"]))
        if not target.match(labels):
            continue
        both = source.match(labels)
        for other in map(dict, active):
            if (
                source.match(other)
                and all(other.get(each, "") == labels.get(each, "") for each in rule["equal"])
                and not (both and target.match(other))
            ):
                return True
    return False


def notifications(timeline: Timeline) -> Iterator[Notification]:
    """What is sent for the alerts of one scrape job, until the end of its history."""
    groups: dict[tuple[Any, ...], _Group] = {}
    log: dict[tuple[Any, ...], _Sent] = {}
    before: frozenset[Alert] = frozenset()
    times = [at for at, _ in timeline]
    for (at, firing), until in zip(timeline, [*times[1:], times[-1] + 1], strict=True):
        for alert in sorted(firing | before):
            if alert in firing or alert in before:
                _insert(groups, alert, at, alert in firing)
        before = firing
        for key, group in sorted(groups.items(), key=lambda each: each[1].flushes):
            while key in groups and group.flushes < until:
                now = group.flushes
                group.flushes += group.route.interval
                last = log.get(key)
                if last and now - last.at > 2 * group.route.repeat:
                    last = None  # forgotten
                sent = _flush(group, last, now, firing)
                if sent:
                    known = last.firing if last else frozenset()
                    log[key] = sent
                    if sent.firing or group.route.sends_resolved:
                        new = sent.firing - known
                        yield Notification(
                            now, group.route.receiver, sent.firing, sent.resolved, new
                        )
                group.alerts = {alert: fires for alert, fires in group.alerts.items() if fires}
                if not group.alerts:
                    del groups[key]


def _insert(groups: dict[tuple[Any, ...], _Group], alert: Alert, at: float, fires: bool) -> None:
    labels = dict(alert)
    route = route_of(labels)
    key = (route.receiver, route.repeat, *(labels.get(label, "") for label in route.group_by))
    if key not in groups:
        if not fires:
            return
        groups[key] = _Group(route, at + route.wait)
    groups[key].alerts[alert] = fires


def _flush(group: _Group, last: _Sent | None, now: float, active: frozenset[Alert]) -> _Sent | None:
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

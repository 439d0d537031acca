"""How the shipped rules and the shipped Alertmanager configuration report the incidents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tests.rules.incidents.alertmanager import Notification, notifications
from tests.rules.incidents.catalogue import LOST_SCRAPES, Incident
from tests.rules.incidents.prometheus import Alert, Scraped, Timeline, firing

LOSSES = (0, 10, 30)  # percent of the scrapes
VERSIONS = {0: "2", 10: "2", 30: "3"}  # of Prometheus, by loss: both for all would take too long
PAGED = "night"


@dataclass(frozen=True)
class Score:
    """How an incident was reported; times are minutes."""

    incident: Incident
    loss: int
    timeline: Timeline
    sent: list[Notification]

    @property
    def job(self) -> str:
        return job_of(self.incident, self.loss)

    @property
    def since(self) -> list[Notification]:
        """What was sent for it. What was broken before is another incident."""
        begins = self.incident.begins if self.incident.continues else 0
        return [each for each in self.sent if each.at >= begins]

    @property
    def reported_after(self) -> float | None:
        """From its beginning to the first notification of the severity that is needed."""
        aim = self.incident
        for each in self.since:
            severe = each.receiver == PAGED or aim.severity == "any"
            if severe and names(each.new) & aim.alerts and each.at >= aim.begins:
                return each.at - aim.begins
        return None

    @property
    def pages(self) -> int:
        return sum(bool(each.new) for each in self.since if each.receiver == PAGED)

    @property
    def mails(self) -> int:
        return sum(bool(each.new) for each in self.since if each.receiver != PAGED)

    @property
    def repeats(self) -> int:
        return sum(not each.new for each in self.since if each.firing)

    @property
    def resolved_after(self) -> float | None:
        """From its end to the last notification that something is over; before it if below 0."""
        times = [each.at for each in self.since if not each.firing]
        return max(times) - self.incident.ends if times else None

    def faults(self) -> Iterator[str]:
        """What is not as it should be."""
        aim, after = self.incident, self.reported_after
        if early := [each for each in self.since if each.at < aim.begins]:
            yield f"reported before it began: {', '.join(sorted(names(early[0].firing)))}"
        if aim.alerts and after is None:
            yield "not reported"
        elif aim.alerts and after is not None and after > aim.within + 0.5:
            yield f"reported after {after:.0f} minutes, not {aim.within}"
        for what, most in (("pages", aim.pages), ("mails", aim.mails), ("repeats", aim.repeats)):
            if (number := getattr(self, what)) > most:
                yield f"{number} {what}, not {most}"
        if aim.alerts and not aim.continues:
            yield from self._ends_wrongly()

    def _ends_wrongly(self) -> Iterator[str]:
        ends, within = self.incident.ends, self.incident.resolved_within
        over = [each.at for each in self.since if not each.firing]
        right = [
            each.at
            for each in self.since
            if not each.firing and names(each.resolved) & self.incident.alerts
        ]
        if right and (early := ends - right[0]) > 0:
            yield f"resolved {early:.0f} minutes before its end"
        if within is None:
            return
        if self.timeline[-1][1]:
            yield f"still fires at the end: {', '.join(sorted(names(self.timeline[-1][1])))}"
        elif over and (late := max(over) - ends) > within:
            yield f"resolved after {late:.0f} minutes, not {within}"


def names(alerts: frozenset[Alert]) -> set[str]:
    return {dict(alert)["alertname"] for alert in alerts}


def job_of(incident: Incident, loss: int) -> str:
    return f"{incident.name}-{loss}"


def scores(incidents: Sequence[Incident], losses: Sequence[int] = LOSSES) -> list[Score]:
    """Evaluates those together that are evaluated equally often, and last about as long."""

    losses_of = {each: [loss for loss in losses if loss in each.losses] for each in incidents}

    def shape(incident: Incident) -> tuple[int, int]:
        return incident.pace.step_seconds, incident.pace.evaluation_minutes

    found = []
    for (_, evaluation), alike in groupby(sorted(incidents, key=shape), shape):
        histories = {each: each.history() for each in alike}
        runs = [(each, loss) for each in histories for loss in losses_of[each]]
        for version in sorted({VERSIONS[loss] for _, loss in runs}):
            scraped = {
                job_of(each, loss): (each, loss) for each, loss in runs if VERSIONS[loss] == version
            }
            timelines = firing(
                [
                    Scraped(job, histories[each], loss / 100)
                    for job, (each, loss) in scraped.items()
                ],
                version,
                evaluation,
            )
            for job, (each, loss) in scraped.items():
                timeline = without_lost_scrapes(timelines[job], each)
                found.append(Score(each, loss, timeline, list(notifications(timeline))))
    order = [each.name for each in incidents]
    return sorted(found, key=lambda each: (order.index(each.incident.name), each.loss))


def without_lost_scrapes(timeline: Timeline, incident: Incident) -> Timeline:
    """Without the alerts on them, unless they are the incident: the loss is another one."""
    beside = LOST_SCRAPES - incident.alerts
    return [
        (at, frozenset(each for each in alerts if not names(frozenset({each})) & beside))
        for at, alerts in timeline
    ]


def table(found: Sequence[Score]) -> str:
    head = ("incident", "loss", "reported", "pages", "mails", "repeats", "resolved", "faults")
    rows = [head]
    for each in found:
        aim = each.incident
        rows.append(
            (
                aim.name,
                f"{each.loss}%",
                f"{_minutes(each.reported_after)} ({aim.within})" if aim.alerts else "-",
                f"{each.pages} ({aim.pages})",
                f"{each.mails} ({aim.mails})",
                f"{each.repeats} ({aim.repeats})",
                _minutes(each.resolved_after),
                "; ".join(each.faults()),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _minutes(number: float | None) -> str:
    return "never" if number is None else f"{number:.0f}"


def details(score: Score) -> Iterator[str]:
    """What fires when, and what is sent."""
    begins = score.incident.begins
    spans: dict[str, list[list[int]]] = {}
    step = score.incident.pace.evaluation_minutes
    for at, alerts in score.timeline:
        for alert in alerts:
            labels = dict(alert)
            name = labels.pop("alertname")
            labels.pop("instance", None)
            text = f"{name} {labels.pop('severity')} {' '.join(labels.values())}"
            known = spans.setdefault(text, [])
            if known and at - known[-1][1] <= step:
                known[-1][1] = at
            else:
                known.append([at, at])
    for text, times in sorted(spans.items(), key=lambda each: each[1]):
        lasted = ", ".join(f"{first - begins}…{last - begins}" for first, last in times)
        yield f"    fires {lasted}: {text}"
    for each in score.sent:
        kind = "new" if each.new else "repeat" if each.firing else "resolved"
        shown = each.firing or each.resolved
        names = ", ".join(sorted({dict(alert)["alertname"] for alert in shown}))
        yield f"    {each.at - begins:6.1f} {each.receiver} {kind}: {names}"

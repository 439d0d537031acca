"""How the shipped rules and the shipped Alertmanager configuration report the incidents."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from tests.rules.incidents.alertmanager import Notification, notifications
from tests.rules.incidents.catalogue import Incident
from tests.rules.incidents.prometheus import Scraped, Timeline, firing

LOSSES = (0, 10, 30)  # percent of the scrapes
VERSIONS = {0: "3", 10: "2", 30: "3"}  # of Prometheus, by loss: each is used, and none for all
# These report the lost scrapes themselves, which are not the incident.
ABOUT_SCRAPES = frozenset({"BullMQScrapesLost"})
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
    def reported_after(self) -> float | None:
        """From the beginning to the first notification of the severity that is needed."""
        for each in self.sent:
            severe = each.receiver == PAGED or self.incident.severity == "warning"
            if severe and each.names & self.incident.alerts and each.at >= self.incident.begins:
                return each.at - self.incident.begins
        return None

    @property
    def pages(self) -> int:
        return sum(bool(each.new) for each in self.sent if each.receiver == PAGED)

    @property
    def mails(self) -> int:
        return sum(bool(each.new) for each in self.sent if each.receiver != PAGED)

    @property
    def repeats(self) -> int:
        return sum(not each.new for each in self.sent if each.firing)

    @property
    def resolved(self) -> int:
        """How often a group was reported as resolved."""
        return sum(not each.firing for each in self.sent)

    @property
    def resolved_after(self) -> float | None:
        """From the end to the last notification that something is over; before it if below 0."""
        times = [each.at for each in self.sent if not each.firing]
        return max(times) - self.incident.ends if times else None

    def faults(self) -> Iterator[str]:
        """What is not as it should be."""
        aim = self.incident
        early = [each for each in self.sent if each.at < aim.begins]
        if early:
            yield f"reported before it began: {_names(early[0])}"
        if aim.alerts:
            after = self.reported_after
            if after is None:
                yield "not reported"
            elif after > aim.within:
                yield f"reported after {after:.0f} minutes, not {aim.within}"
        for what, most in (("pages", aim.pages), ("mails", aim.mails), ("repeats", aim.repeats)):
            if (number := getattr(self, what)) > most:
                yield f"{number} {what}, not {most}"
        if aim.alerts and self.sent and aim.resolved_within is not None:
            first = min((each.at for each in self.sent if not each.firing), default=None)
            if first is not None and first < aim.ends:
                yield f"resolved {aim.ends - first:.0f} minutes before its end"
            if self.resolved_after is None:
                yield "not resolved"
            elif self.resolved_after > aim.resolved_within:
                yield f"resolved after {self.resolved_after:.0f} minutes, not {aim.resolved_within}"


def _names(each: Notification) -> str:
    return ", ".join(sorted(each.names))


def job_of(incident: Incident, loss: int) -> str:
    return f"{incident.name}-{loss}"


def scores(incidents: Sequence[Incident], losses: Sequence[int] = LOSSES) -> list[Score]:
    """Evaluates those together that are evaluated equally often, and last about as long."""

    def shape(incident: Incident) -> tuple[int, int]:
        return incident.step_seconds, incident.evaluation_minutes

    found = []
    for (_, evaluation), alike in groupby(sorted(incidents, key=shape), shape):
        histories = {each: each.history() for each in alike}
        for version in sorted({VERSIONS[loss] for loss in losses}):
            runs = {
                job_of(each, loss): (each, loss)
                for each in histories
                for loss in losses
                if VERSIONS[loss] == version
            }
            scraped = [
                Scraped(job, histories[each], loss / 100) for job, (each, loss) in runs.items()
            ]
            for job, timeline in firing(scraped, version, evaluation).items():
                found.append(Score(*runs[job], timeline, list(notifications(without(timeline)))))
    order = [each.name for each in incidents]
    return sorted(found, key=lambda each: (order.index(each.incident.name), each.loss))


def without(timeline: Timeline) -> Timeline:
    """The timeline without the alerts on lost scrapes."""
    return [
        (at, frozenset(each for each in alerts if dict(each)["alertname"] not in ABOUT_SCRAPES))
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
    step = score.incident.evaluation_minutes
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

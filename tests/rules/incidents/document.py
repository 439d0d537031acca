"""Writes docs/alerts.md: how each incident is reported, as measured (`make scoreboard`)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from tests.rules.incidents.catalogue import INCIDENTS, Incident
from tests.rules.incidents.scoreboard import Score, scores

TARGET = Path(__file__).parents[3] / "docs" / "alerts.md"
HEAD = """\
# How incidents are reported
Each line is an incident that has happened somewhere. Its history (`tests/rules/incidents`) is run
through the shipped rules with 0, 10 and 30% of the scrapes lost at random, by promtool of
Prometheus 2 (0 and 10%) and 3 (30%). Notifications are counted by a model of Alertmanager's
groups, inhibition and repeats with the shipped configuration; a test sends 13 of the incidents to
Alertmanager 0.25 and to the newest one, and compares what they send. The
[runbooks](runbooks/README.md) say what an alert means and what to do.

- **reported**: minutes from the start of the incident to the first notification, the slowest of
  the three; in brackets the target. "-": it is healthy, and must not be reported.
- **pages**, **mails**: notifications with something new, to `night` and to `morning`, the maximum
  of the three; in brackets how many are allowed.
- **repeats**: reminders of a known incident, every 4 hours for pages, once a day for mails.
- **resolved**: minutes from its end to the last "Resolved". Alerts on failing jobs last half an
  hour longer than their cause, so that intermittent failures cause one page.

`make scoreboard` measures again and writes this page; to see one incident minute by minute:
`.venv/bin/python -m tests.rules.incidents standstill -v`.

"""
END = """
(!): it misses its target; see `EXPECTED_TO_FAIL` in `tests/e2e/test_incidents.py`.
"""


def row(incident: Incident, measured: Sequence[Score]) -> str:
    """One line of the table, the worst of each number."""
    times = [each.reported_after for each in measured]
    reported = "-"
    if incident.alerts:
        known = [time for time in times if time is not None]
        worst = f"{max(known):.0f}" if len(known) == len(times) else "never"
        reported = f"{worst} ({incident.within})"
    ends = [each.resolved_after for each in measured if each.resolved_after is not None]
    cells = (
        f"`{incident.name}`" + (" (!)" if any([*each.faults()] for each in measured) else ""),
        incident.what.replace("|", "\\|"),
        reported,
        f"{max(each.pages for each in measured)} ({incident.pages})",
        f"{max(each.mails for each in measured)} ({incident.mails})",
        str(max(each.repeats for each in measured)),
        f"{max(ends):.0f}" if ends and incident.resolved_within is not None else "-",
    )
    return f"| {' | '.join(cells)} |"


def document(found: Sequence[Score]) -> str:
    columns = ("incident", "what happens", "reported", "pages", "mails", "repeats", "resolved")
    lines = [f"| {' | '.join(columns)} |", "|" + " --- |" * len(columns)]
    for name, measured in groupby(found, lambda score: score.incident.name):
        lines.append(row(INCIDENTS[name], [*measured]))
    return HEAD + "\n".join(lines) + "\n" + END


if __name__ == "__main__":
    TARGET.write_text(document(scores([*INCIDENTS.values()])))

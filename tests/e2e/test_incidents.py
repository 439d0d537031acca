"""How the shipped rules report the incidents of tests/rules/incidents."""

from __future__ import annotations

import pytest

from tests.rules.incidents.catalogue import DAYS, HOURS, INCIDENTS, MINUTES, Pace
from tests.rules.incidents.document import TARGET
from tests.rules.incidents.scoreboard import scores, table

# By the percentage of lost scrapes: those that are not reported as they should be. What holds at
# both ends holds between them too; `make scoreboard` evaluates 10% as well.
EXPECTED_TO_FAIL: dict[int, frozenset[str]] = {0: frozenset(), 30: frozenset()}


@pytest.mark.takes(seconds=150)
@pytest.mark.timeout(3600)  # up to two minutes of CPU, of a machine that may do much else
@pytest.mark.parametrize("pace", [MINUTES, HOURS, DAYS], ids=["minutes", "hours", "days"])
@pytest.mark.parametrize("loss", sorted(EXPECTED_TO_FAIL))
def test_every_incident_is_reported_as_it_should_be(loss: int, pace: Pace) -> None:
    found = scores([each for each in INCIDENTS.values() if each.pace == pace], [loss])
    wrong = [
        score
        for score in found
        if any(score.faults()) != (score.incident.name in EXPECTED_TO_FAIL[score.loss])
    ]
    assert not wrong, f"(some were expected to fail and do not)\n{table(wrong)}"


def test_each_incident_is_of_a_pace_that_is_tested() -> None:
    assert {each.pace for each in INCIDENTS.values()} == {MINUTES, HOURS, DAYS}


def test_what_is_expected_to_fail_is_an_incident() -> None:
    assert frozenset().union(*EXPECTED_TO_FAIL.values()) <= INCIDENTS.keys()


def test_the_document_has_each_incident_and_marks_those_that_fail() -> None:
    rows = [line for line in TARGET.read_text().splitlines() if line.startswith("| `")]
    named = {row.split("`")[1]: row for row in rows}
    assert [*named] == [*INCIDENTS], "run: make scoreboard"
    assert all(incident.what in named[name] for name, incident in INCIDENTS.items())
    failing = frozenset().union(*EXPECTED_TO_FAIL.values())
    assert {name for name, row in named.items() if "` (!) |" in row} == failing

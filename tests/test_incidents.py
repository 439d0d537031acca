"""How the shipped rules report the incidents of tests/rules/incidents."""

from __future__ import annotations

import pytest

from tests.rules.incidents.catalogue import INCIDENTS
from tests.rules.incidents.scoreboard import LOSSES, VERSIONS, scores, table

# By the percentage of lost scrapes: those that are not reported as they should be.
EXPECTED_TO_FAIL = {
    0: frozenset(
        {
            "all-attempts-fail-but-36-jobs-an-hour",
            "all-attempts-of-a-name-fail-beside-a-tick",
            "all-fail",
            "all-fail-while-the-exporter-is-renamed",
            "all-fail-with-regular-losses",
            "broken-import",
            "clock-11-minutes-behind",
            "clock-400-seconds-behind",
            "constant-20-percent",
            "constant-5-5-percent",
            "dependency-down-5-minutes-of-25",
            "exporter-crashes-and-restarts",
            "forty-percent-of-72-an-hour",
            "from-20-slowly-to-50-percent",
            "from-20-to-60-percent",
            "half-fail",
            "leak-1-to-10-percent",
            "leak-1-to-3-percent",
            "lossy-scrapes",
            "nightly-job-fails",
            "no-workers",
            "one-dependency-of-25-queues",
            "one-name-fails-beside-20-jobs-a-second",
            "poison-job",
            "polls-stopped",
            "queue-created-and-removed",
            "quiet-queue-fails",
            "redis-away-170-seconds-of-each-hour",
            "retry-storm",
            "scheduler-fires-next-year",
            "standstill-and-then-redis-away",
            "standstill-with-a-slow-redis",
            "standstill-with-regular-losses",
            "too-many-requests",
            "workers-crash-and-restart",
        }
    ),
    10: frozenset(
        {
            "all-attempts-fail-but-36-jobs-an-hour",
            "all-attempts-of-a-name-fail-beside-a-tick",
            "all-fail",
            "all-fail-while-the-exporter-is-renamed",
            "all-fail-with-regular-losses",
            "broken-import",
            "clock-11-minutes-behind",
            "clock-400-seconds-behind",
            "dependency-down-5-minutes-of-25",
            "exporter-restart",
            "forty-percent-of-72-an-hour",
            "from-20-slowly-to-50-percent",
            "from-20-to-60-percent",
            "half-fail",
            "import-of-3000-mailboxes",
            "noise",
            "one-dependency-of-25-queues",
            "one-job-hangs",
            "one-name-fails-beside-20-jobs-a-second",
            "parent-waits-for-a-failed-child",
            "poison-job",
            "polls-stopped",
            "queue-created-and-removed",
            "quiet-queue-fails",
            "redis-away-170-seconds-of-each-hour",
            "retry-storm",
            "schedule-fires-twice",
            "scheduler-fires-next-year",
            "schedules-lost",
            "standstill",
            "standstill-and-then-redis-away",
            "standstill-with-a-slow-redis",
            "standstill-with-regular-losses",
            "starvation",
            "too-many-requests",
            "workers-crash-and-restart",
        }
    ),
    30: frozenset(
        INCIDENTS.keys()
        - {
            "maintenance",
        }
    ),
}


@pytest.mark.takes(seconds=150)
@pytest.mark.parametrize("version", sorted(set(VERSIONS.values())))
def test_every_incident_is_reported_as_it_should_be(version: str) -> None:
    losses = [loss for loss in LOSSES if VERSIONS[loss] == version]
    found = scores([*INCIDENTS.values()], losses)
    wrong = [
        score
        for score in found
        if any(score.faults()) != (score.incident.name in EXPECTED_TO_FAIL[score.loss])
    ]
    assert not wrong, f"(some were expected to fail and do not)\n{table(wrong)}"


def test_what_is_expected_to_fail_is_an_incident() -> None:
    assert frozenset().union(*EXPECTED_TO_FAIL.values()) <= INCIDENTS.keys()

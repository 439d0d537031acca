"""How the shipped rules report the incidents of tests/rules/incidents."""

from __future__ import annotations

import pytest

from tests.rules.incidents.catalogue import INCIDENTS
from tests.rules.incidents.scoreboard import scores, table


@pytest.mark.takes(seconds=20)
def test_nothing_is_reported_while_nothing_is_wrong() -> None:
    healthy = [each for each in INCIDENTS.values() if not each.alerts]
    found = scores(healthy, losses=[0])
    assert not [fault for score in found for fault in score.faults()], table(found)

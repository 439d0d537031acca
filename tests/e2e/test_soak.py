"""The long run, in short: memory and files do not grow, and counters stay exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.run import soak


@pytest.mark.takes(seconds=120)
def test_two_minutes_of_work_leave_the_exporter_as_it_was(tmp_path: Path) -> None:
    report = soak(tmp_path, minutes=2)
    # Between the thirds lie some 10,000 jobs: 400 bytes that each leaves behind would be seen. Less
    # is what Python's memory breathes; `make soak` looks longer.
    assert report.growth < 4e6
    assert report.further_files <= 2

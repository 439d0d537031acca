"""Counts and histograms of one job name."""

from __future__ import annotations

import pytest

from exporter.queues.tallies import Count, FinishedJobs, Layout, Tally

LAYOUT = Layout((10, 100), (1000,))


def test_counts_and_histograms_share_one_list_without_overlap() -> None:
    assert (LAYOUT.wait, LAYOUT.process, LAYOUT.size) == (8, 12, 15)
    assert LAYOUT.bounds == [[10, 100], [1000]]


@pytest.mark.parametrize(
    ("milliseconds", "buckets"),
    [(0, [1, 0, 0]), (10, [1, 0, 0]), (11, [0, 1, 0]), (100, [0, 1, 0]), (101, [0, 0, 1])],
)
def test_a_duration_is_in_the_first_bucket_whose_bound_it_does_not_exceed(
    milliseconds: int, buckets: list[int]
) -> None:
    tally = Tally("import", LAYOUT.size)
    tally.observe(LAYOUT.wait, LAYOUT.wait_bounds, milliseconds, b"7", b"5-0")
    assert tally.values[LAYOUT.wait : LAYOUT.process] == [*buckets, milliseconds]
    assert sum(tally.values) == 1 + milliseconds
    [exemplar] = tally.exemplars.values()
    assert exemplar == (b"7", milliseconds, b"5-0")


def test_what_was_counted_before_a_name_was_known_is_added_to_the_name() -> None:
    named, nameless = Tally("import", LAYOUT.size), Tally("?", LAYOUT.size)
    for tally, job_id in ((named, b"1"), (nameless, b"2")):
        tally.values[Count.FAILED] += 1
        tally.exemplars[Count.FAILED] = (job_id, 1000, b"5-0")
    named.add(nameless)
    assert named.values[Count.FAILED] == 2
    assert named.exemplars[Count.FAILED][0] == b"2"


def test_a_frozen_tally_does_not_change_and_stays_the_same_object_while_nothing_does() -> None:
    tally = Tally("import", LAYOUT.size)
    first = tally.freeze()
    assert tally.freeze() is first
    tally.values[Count.ADDED] += 1
    second = tally.freeze()
    assert (first.values[Count.ADDED], second.values[Count.ADDED]) == (0, 1)
    tally.mark_restored()
    assert not second.restored
    assert tally.freeze().restored


def test_finished_jobs_are_summed_and_subtracted_by_how_they_ended() -> None:
    values = [0] * LAYOUT.size
    values[Count.COMPLETED], values[Count.FAILED], values[Count.RETRIED] = 3, 2, 9
    both = FinishedJobs.of([values, values])
    assert both == FinishedJobs(completed=6, failed=4)
    assert both.minus(FinishedJobs(1, 1)).plus(FinishedJobs(0, 2)) == FinishedJobs(5, 5)
    assert FinishedJobs.of([]) == FinishedJobs()

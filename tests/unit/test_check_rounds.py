"""When streams are compared with what was read of them."""

from __future__ import annotations

from exporter.queues.queue import Queue
from exporter.stores.bullmq.events.check_rounds import (
    CHECK_ALL_INTERVAL_SECONDS,
    CHECK_INTERVAL_SECONDS,
    CheckRounds,
)

A, B, C = (Queue.named("bull", name) for name in "abc")
ALL = {A, B, C}


def pending(checks: CheckRounds) -> set[Queue]:
    return {queue for queue in ALL if queue in checks}


def test_the_first_round_is_of_all_and_the_next_ones_of_those_that_were_touched() -> None:
    checks = CheckRounds()
    checks.begin_if_due(1000, ALL, ())
    assert pending(checks) == ALL
    checks.touch(A)
    checks.remove(ALL)
    checks.begin_if_due(1000 + CHECK_INTERVAL_SECONDS / 2, ALL, ())
    assert not checks
    checks.begin_if_due(1000 + CHECK_INTERVAL_SECONDS, ALL, (C,))
    assert pending(checks) == {A, C}
    checks.remove(ALL)
    checks.begin_if_due(1000 + CHECK_ALL_INTERVAL_SECONDS, ALL, ())
    assert pending(checks) == ALL


def test_a_round_ends_before_the_next_one_begins() -> None:
    checks = CheckRounds()
    checks.begin_if_due(1000, ALL, ())
    checks.remove([A, B])
    checks.touch(A)
    checks.begin_if_due(2000, ALL, ())
    assert pending(checks) == {C}
    checks.add([B])
    assert pending(checks) == {B, C}


def test_after_an_error_all_are_due_and_a_removed_queue_is_not() -> None:
    checks = CheckRounds()
    checks.begin_if_due(1000, ALL, ())
    checks.remove(ALL)
    checks.touch(A)
    checks.begin_anew()
    checks.forget(A)
    checks.begin_if_due(1001, {B, C}, ())
    assert pending(checks) == {B, C}

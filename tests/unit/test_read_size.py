"""How many entries a read of the event streams asks for."""

from __future__ import annotations

from exporter.stores.bullmq.events.read_size import FIRST_COUNT, MAX_READ_COST, MIN_COUNT, ReadSize


def test_a_first_read_is_small_and_cheap_entries_double_it_to_its_limit() -> None:
    size = ReadSize()
    counts = []
    for _ in range(12):
        counts.append(size.choose(streams=1))
        size.note(cost=counts[-1], entries=counts[-1])
    assert counts[:4] == [FIRST_COUNT, 20, 40, 80]
    assert counts[-1] == MAX_READ_COST


def test_many_streams_share_one_read() -> None:
    size = ReadSize()
    for _ in range(12):
        size.note(cost=0, entries=0)
    assert size.choose(streams=1000) == MIN_COUNT
    assert size.choose(streams=10) == 2 * MAX_READ_COST // 10


def test_large_values_make_reads_small_at_once_and_for_a_while() -> None:
    size = ReadSize()
    for _ in range(12):
        size.note(cost=1000, entries=1000)
    assert size.choose(streams=1) == MAX_READ_COST
    size.note(cost=200_000, entries=1000)  # 200 an entry
    assert size.choose(streams=1) == 5
    size.note(cost=5, entries=5)
    assert size.choose(streams=1) <= 10
    for _ in range(100):
        size.note(cost=1, entries=1)
    assert size.choose(streams=1) == MAX_READ_COST
    size.begin_anew()
    assert size.choose(streams=1) == FIRST_COUNT

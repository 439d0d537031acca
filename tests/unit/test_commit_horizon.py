"""Which ids are complete while transactions commit in any order, by a model of a database."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from exporter.stores.postgres.events.commit_horizon import CommitHorizon


@dataclass
class Database:
    """Transactions take ids when they write, and their events are visible when they commit."""

    next_id: int = 1
    open: dict[str, list[int]] = field(default_factory=dict)
    visible: set[int] = field(default_factory=set)
    begun: int = 0

    def begin(self) -> None:
        self.begun += 1
        self.open[f"3/{self.begun}"] = []

    def write(self, chance: random.Random) -> None:
        if self.open:
            self.open[chance.choice([*self.open])].append(self.next_id)
            self.next_id += 1

    def end(self, chance: random.Random) -> None:
        if self.open:
            ids = self.open.pop(chance.choice([*self.open]))
            if chance.random() < 0.9:  # others are rolled back
                self.visible.update(ids)

    def happen(self, chance: random.Random, steps: int) -> None:
        for _ in range(steps):
            what = chance.choices(("begin", "write", "end"), (3, 6, 3))[0]
            if what == "begin" and len(self.open) < 8:
                self.begin()
            elif what == "write":
                self.write(chance)
            else:
                self.end(chance)


class Reader:
    """Reads as the follower does; `read` holds what it knows to have read."""

    def __init__(self) -> None:
        self.horizon = CommitHorizon()
        self.complete = 0
        self.ahead: set[int] = set()
        self.counted: list[int] = []
        self.newest = 0

    def look(self, database: Database) -> None:
        self.horizon.look(database.open, self.newest)

    def read(self, database: Database) -> None:
        start = self.complete if self.horizon.again else max(self.complete, self.horizon.recent)
        found = [each for each in database.visible if each > start and each not in self.ahead]
        self.counted += found
        self.ahead.update(found)
        self.newest = max([self.newest, *found])
        self.complete = max(self.complete, self.horizon.complete)
        self.ahead = {each for each in self.ahead if each > self.complete}
        self.horizon.note_done()


@pytest.mark.parametrize("seeds", [range(0, 100), range(100, 200), range(200, 300)])
def test_each_event_is_read_once_whatever_the_order_of_commits(seeds: range) -> None:
    for seed in seeds:
        read_all(random.Random(seed))


def read_all(chance: random.Random) -> None:
    database, reader = Database(), Reader()
    for _ in range(chance.randint(1, 60)):
        database.happen(chance, chance.randint(0, 30))
        reader.look(database)
        database.happen(chance, chance.randint(0, 10))  # between the look and the read
        if chance.random() < 0.15:
            reader.horizon.note_failed()
            continue
        reader.read(database)
        assert len(reader.counted) == len(set(reader.counted))
    while database.open:
        database.end(chance)
    for _ in range(3):
        reader.look(database)
        reader.read(database)
    assert set(reader.counted) == database.visible
    assert reader.complete == max(reader.counted, default=0)
    assert not reader.ahead


def test_a_transaction_that_stays_open_holds_back_only_what_it_may_write() -> None:
    horizon = CommitHorizon()
    horizon.look([], 100)
    horizon.note_done()
    horizon.look(["3/1"], 120)  # it began after 100 was seen
    horizon.note_done()
    assert horizon.complete == 100
    horizon.look(["3/1"], 500)
    assert (horizon.complete, horizon.recent, horizon.again) == (100, 120, False)
    horizon.look([], 600)
    assert (horizon.complete, horizon.again) == (600, True)


def test_one_that_is_open_for_too_long_is_given_up() -> None:
    horizon = CommitHorizon()
    horizon.look(["3/1"], 0)
    horizon.look(["3/1", "3/2"], 30_000)
    assert horizon.give_up(10_000)
    assert horizon.complete == 30_000
    assert not horizon.give_up(10_000)

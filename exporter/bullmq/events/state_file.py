"""The file that keeps the follower's memory over a restart."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from exporter.bullmq.events.ledger import Ledger
from exporter.bullmq.events.stream import order
from exporter.bullmq.events.tallies import Count, FinishedJobs, Layout
from exporter.bullmq.events.tracked_jobs import Room
from exporter.bullmq.keys import Queue

log = logging.getLogger(__name__)

# The key of the queues' memory. It differs from older ones: an older exporter starts from 0.
QUEUES = "queues-2"
# The same for the older format, with fewer counts before the histograms.
QUEUES_1 = "queues-1"
COUNTS_1 = 6


class Saved(NamedTuple):
    """What the file holds.

    `complete_until` is up to when no queue is missing in it (epoch ms; None: there is no memory):
    when the last search for queues before it was saved began, since a queue that appeared later was
    not found yet. Where none was searched for (the queues are named, or the file is an older one),
    it is when it was saved.
    """

    queues: dict[bytes, Any]  # the memory of each by its base
    complete_until: int | None
    removed: FinishedJobs  # see Tallies


_NOTHING = Saved({}, None, FinishedJobs())


class StateFile:
    """Positions, counts and unfinished jobs, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0.0
        self._failed = False
        self._writing = threading.Lock()
        self._turn = self._written = 0
        self._writer = ThreadPoolExecutor(1, "state")

    @property
    def due(self) -> bool:
        """Whether to save again: at most once a second, and in at most a twentieth of the time."""
        return time.monotonic() >= self._due

    def load(self, layout: Layout) -> Saved:
        """The content of the file; empty if there is no file.

        A file that cannot be used is kept as `….unusable`, and the log says so. Histograms are left
        out where their bounds have changed.
        """
        try:
            memory = msgpack.unpackb(self._path.read_bytes(), strict_map_key=False)
            if QUEUES_1 in memory:
                memory[QUEUES] = _with_more_counts(memory.pop(QUEUES_1))
            size = layout.size if memory["bounds"] == layout.bounds else len(Count)
            for base, queue in memory[QUEUES].items():
                queue["tallies"] = {
                    name: values[:size] for name, values in queue["tallies"].items()
                }
                trial = Ledger(Queue(base, "", ""), layout, Room(0), max_names=1)
                trial.remember(queue)
                order(trial.place.position)
            return Saved(
                memory[QUEUES],
                int(memory.get("searched") or memory["saved"]),
                FinishedJobs(*memory.get("removed", ())),
            )
        except FileNotFoundError:
            return _NOTHING
        except (
            *(OSError, msgpack.UnpackException),
            *(ArithmeticError, ValueError, TypeError, LookupError, AttributeError),
        ) as error:
            log.warning(
                "the state file cannot be used: counters begin anew",
                extra={"reason": f"{self._path}: {error!r}"},
            )
            with suppress(OSError):
                self._path.replace(self._path.with_name(f"{self._path.name}.unusable"))
            return _NOTHING

    async def save(self, memory: Mapping[str, Any]) -> None:
        """Save this memory; an older one never replaces a newer one."""
        # A thread of its own: the loop's default ones may all be held up by a resolver.
        await asyncio.get_running_loop().run_in_executor(self._writer, self._saving(memory))

    def save_now(self, memory: Mapping[str, Any]) -> None:
        """Save this memory before we end."""
        self._saving(memory)()

    def _saving(self, memory: Mapping[str, Any]) -> Callable[[], None]:
        self._turn += 1
        # Packed here and now: the lists in it are those that are counted in, and would be saved
        # with what came later, under a position from before it.
        # Sums of times that no clock told may be beyond its 64 bits: rounded is better than none.
        return partial(self._save, msgpack.packb(memory, default=float), self._turn)

    def _save(self, packed: bytes, turn: int) -> None:
        """Replace the file in one step: a crash leaves the old or the new one.

        Where that fails the log says so, once: counting goes on, only a restart loses something.
        """
        began = time.monotonic()
        try:
            # The last one, as we end, may find another thread still at work.
            with self._writing:
                if turn > self._written:
                    self._write(packed)
                    self._written = turn
        except OSError as error:
            if not self._failed:
                log.warning("the state file cannot be written", extra={"reason": str(error)})
            self._failed = True
        else:
            self._failed = False
        now = time.monotonic()
        self._due = max(began + 1, now + 19 * (now - began))

    def _write(self, packed: bytes) -> None:
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(packed)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)


def _with_more_counts(queues: dict[bytes, Any]) -> dict[bytes, Any]:
    """Convert the memory of queues under QUEUES_1, with 0 for what was not counted then."""
    more = [0] * (len(Count) - COUNTS_1)
    for queue in queues.values():
        queue["tallies"] = {
            name: [*values[:COUNTS_1], *more, *values[COUNTS_1:]]
            for name, values in queue["tallies"].items()
        }
    return queues

"""`--check`: one poll of each target, and what it found, as text."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from exporter.collect.watcher import Watcher, watched_queues
from exporter.concurrency.request_priority import RequestPriority
from exporter.harmful_settings import harmful_settings
from exporter.logs import one_line
from exporter.queues.errors import StoreUnavailable
from exporter.queues.queue import State
from exporter.queues.remark import Remark
from exporter.queues.snapshot import Outcome, Snapshot
from exporter.settings import Settings
from exporter.stores import open_store


class Checked(NamedTuple):
    """The result of one poll of each target, as text."""

    text: str
    has_found: bool  # whether there is a queue in each target


async def check(settings: Settings) -> Checked:
    """Poll each target once. Raises StoreUnavailable."""
    watched = settings.by_target()
    checked = await asyncio.gather(*(_poll_once(each) for each in watched.values()))
    outcomes = [outcome for outcome, _, _ in checked]
    problems = [
        outcome.error if name is None else f"{name}: {outcome.error}"
        for name, outcome in zip(watched, outcomes, strict=True)
        if outcome.snapshot is None
    ]
    if problems:
        raise StoreUnavailable("; ".join(map(str, problems)))
    tables = [
        "\n".join(
            [_table(name, each, outcome.snapshot), *(one_line(str(remark)) for remark in remarks)]
        )
        for (name, each), (outcome, remarks, _) in zip(watched.items(), checked, strict=True)
        if outcome.snapshot is not None
    ]
    warnings = [f"Warning: {warning}" for warning in harmful_settings(settings)]
    return Checked("\n\n".join([*tables, *warnings]), all(has_found for _, _, has_found in checked))


async def _poll_once(settings: Settings) -> tuple[Outcome, list[Remark], bool]:
    watched = watched_queues(settings)
    store = open_store(settings, watched, RequestPriority())

    async def publish(_: Outcome) -> None: ...

    try:
        watcher = Watcher(store, watched, settings, publish)
        outcome = await watcher.poll()
        remarks = [] if outcome.snapshot is None else await watcher.remarks()
        return outcome, remarks, watcher.has_found
    finally:
        await store.close()


def _table(target: str | None, settings: Settings, snapshot: Snapshot) -> str:
    several = settings.has_several_prefixes
    head = (
        *(["PREFIX"] if several else []),
        "QUEUE",
        "BULLMQ",
        *(state.upper() for state in State),
    )
    rows = [
        (
            *([reading.queue.prefix] if several else []),
            reading.queue.name + (" (paused)" if reading.paused else ""),
            (reading.version or "?").removeprefix("bullmq:"),
            *(str(reading.counts.get(state, "?")) for state in State),
        )
        for reading in snapshot.readings
    ]
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
    named = "" if target is None else f"{target}: "
    return f"{named}{settings.store_address} answers; {len(rows)} queues:\n{table}"

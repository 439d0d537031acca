"""A metric family of queues: its declaration, and how its samples are read from a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from exporter.bullmq.keys import Queue
from exporter.bullmq.snapshot import QueueReading, Snapshot

Read = Callable[[QueueReading, Snapshot], float | None]
ReadEach = Callable[[QueueReading, Snapshot], Iterable[tuple[str, float]]]


@dataclass(frozen=True, slots=True)
class QueueGauge:
    """One sample for each queue, or none where the value is not known."""

    name: str
    help: str
    read: Read


@dataclass(frozen=True, slots=True)
class LabelledQueueGauge:
    """Samples for each queue by the values of one more label."""

    name: str
    help: str
    label: str
    read: ReadEach


Family = QueueGauge | LabelledQueueGauge


def escape(value: str) -> str:
    """A label's value as the text format wants it."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def labels_of(queue: Queue, target: str | None, *, with_prefix: bool) -> str:
    """A queue's labels, as they stand in braces."""
    named = f'target="{escape(target)}",' if target is not None else ""
    prefix = f'prefix="{escape(queue.prefix)}",' if with_prefix else ""
    return f'{named}{prefix}queue="{escape(queue.name)}"'


def head(name: str, kind: str, help_text: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


# What a queue's samples are made from beside its reading.
Context = tuple[object, ...]


class GaugeRenderer:
    """Renders gauges in the text format, which for them is OpenMetrics too.

    Of what it rendered before only the queues that have changed. prometheus_client's
    generate_latest takes 123 ms for 8,000 gauges; hence this.
    """

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families
        self._cache: dict[Queue, tuple[QueueReading, Context, list[str]]] = {}

    def render(self, snapshot: Snapshot, rows: Iterable[tuple[QueueReading, str]]) -> list[str]:
        """The samples of each family, for the readings with their labels."""
        cache: dict[Queue, tuple[QueueReading, Context, list[str]]] = {}
        workers = snapshot.workers or {}
        for reading, labels in rows:
            queue = reading.queue
            context = (
                snapshot.workers is None,
                workers.get(queue),
                snapshot.retention.get(queue),
                snapshot.duplicate_schedulers.get(queue),
            )
            before = self._cache.get(queue)
            if before is None or before[0] is not reading or before[1] != context:
                texts = [_samples(family, reading, snapshot, labels) for family in self._families]
                before = (reading, context, texts)
            cache[queue] = before
        self._cache = cache
        texts_of_all = [texts for _, _, texts in cache.values()]
        return ["".join(texts) for texts in zip(*texts_of_all, strict=True)] or [
            "" for _ in self._families
        ]


def _samples(family: Family, reading: QueueReading, snapshot: Snapshot, labels: str) -> str:
    name = family.name
    if isinstance(family, QueueGauge):
        value = family.read(reading, snapshot)
        return "" if value is None else f"{name}{{{labels}}} {value}\n"
    label = family.label
    return "".join(
        f'{name}{{{labels},{label}="{escape(of_label)}"}} {value}\n'
        for of_label, value in family.read(reading, snapshot)
    )

"""A metric family of queues: its declaration, and how its samples are read from a snapshot."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from exporter.queues.queue import Queue
from exporter.queues.snapshot import QueueFacts, QueueReading, Snapshot
from exporter.queues.text import shorten

# Depends only on a queue's reading and facts: it is rendered again only if these have changed.
Read = Callable[[QueueReading, QueueFacts], float | None]
ReadEach = Callable[[QueueReading, QueueFacts], Iterable[tuple[str, float]]]
ReadInfo = Callable[[QueueReading, QueueFacts], Iterable[Sequence[str]]]


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


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """Samples for each queue with the value 1: further labels contain the information."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: ReadInfo


Family = QueueGauge | LabelledQueueGauge | QueueInfo

Outcome = TypeVar("Outcome")


def escape(value: str) -> str:
    """A label's value, escaped for the text format."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def labels_of(queue: Queue, target: str | None, *, with_prefix: bool) -> str:
    """A queue's labels, as written in braces."""
    named = f'target="{escape(target)}",' if target is not None else ""
    prefix = f'prefix="{escape(shorten(queue.prefix))}",' if with_prefix else ""
    return f'{named}{prefix}queue="{escape(queue.name)}"'


def head(name: str, kind: str, help_text: str) -> str:
    return f"# HELP {name} {help_text}\n# TYPE {name} {kind}\n"


# Of each queue the text for each family.
Texts = Sequence[Sequence[str]]

# Work that yields wherever other tasks may run, and finally returns its result.
Work = Generator[None, None, Outcome]

# Queues that are looked at before yielding to other tasks: a fifth of a ms if they have not
# changed. Rendering one takes as long as looking at RENDER_COST.
COMPARE_BATCH_SIZE = 1000
RENDER_COST = 100


class GaugeRenderer:
    """Renders gauges in the text format, which for them is OpenMetrics too.

    Renders again only the queues that have changed. It exists because prometheus_client's
    generate_latest takes 123 ms for 8,000 gauges.
    """

    def __init__(self, families: Sequence[Family], labels: Callable[[Queue], str]) -> None:
        self._families, self._labels = families, labels
        self._rendered: dict[Queue, _Rendered] = {}
        self._version: int | None = None  # of the facts

    def render(self, snapshot: Snapshot) -> Work[Texts]:
        """The samples of each queue, and of these the text for each family."""
        known, rendered = self._rendered, dict[Queue, _Rendered]()
        facts = snapshot.facts
        new_facts = facts.version != self._version
        done = 0
        for reading in snapshot.readings:
            if done >= COMPARE_BATCH_SIZE:
                yield
                done = 0
            done += 1
            queue = reading.queue
            before = known.get(queue)
            if (
                before is None
                or before.reading is not reading
                or (new_facts and before.facts != facts.of(queue))
            ):
                before = self._render_queue(reading, facts.of(queue))
                done += RENDER_COST
            rendered[queue] = before
        self._rendered, self._version = rendered, facts.version
        return [each.texts for each in rendered.values()]

    def _render_queue(self, reading: QueueReading, facts: QueueFacts) -> _Rendered:
        labels = self._labels(reading.queue)
        # A tuple, because a list reserves space for more items, in each of 10,000 queues.
        texts = tuple([_samples(each, reading, facts, labels) for each in self._families])
        return _Rendered(reading, facts, texts)


class _Rendered(NamedTuple):
    """What a queue was rendered from, and the text for each family."""

    reading: QueueReading
    facts: QueueFacts
    texts: tuple[str, ...]


def _samples(family: Family, reading: QueueReading, facts: QueueFacts, labels: str) -> str:
    name = family.name
    if isinstance(family, QueueGauge):
        value = family.read(reading, facts)
        return "" if value is None else f"{name}{{{labels}}} {value}\n"
    if isinstance(family, QueueInfo):
        return "".join(
            f"{name}{{{labels},{_pairs(family.labels, values)}}} 1\n"
            for values in family.read(reading, facts)
        )
    label = family.label
    return "".join(
        f'{name}{{{labels},{label}="{escape(label_value)}"}} {value}\n'
        for label_value, value in family.read(reading, facts)
    )


def _pairs(names: Sequence[str], values: Sequence[str]) -> str:
    return ",".join(f'{name}="{escape(value)}"' for name, value in zip(names, values, strict=True))

"""Metric families that are counted from events: their declaration, and how they are rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

from exporter.concurrency.batches import batched
from exporter.metrics.family import COMPARE_BATCH_SIZE, Work, escape, head
from exporter.metrics.new_series import Held, Name
from exporter.metrics.packing import Segment, SegmentPacker
from exporter.queues.event_log import milliseconds
from exporter.queues.queue import Queue
from exporter.queues.reason_counts import FrozenReasons, ReasonCount, Seen
from exporter.queues.tallies import (
    Count,
    Exemplar,
    FrozenTally,
    Layout,
    QueueTallies,
    Tallies,
)
from exporter.queues.text import text

# Maximum number of characters of an exemplar's labels in OpenMetrics, names and values together;
# Prometheus drops longer ones.
MAX_EXEMPLAR_LENGTH = 128
# In an exemplar, but not in other labels, a NUL makes Prometheus (2.42, 3.5) reject the whole page,
# and a `"`, escaped or not, prometheus_client (0.26).
UNREADABLE_IN_EXEMPLAR = re.compile(r'[\0"]')

# Stands for the labels in a template.
LABELS = "\0"

NOTHING_HELD: frozenset[Name] = frozenset()


@dataclass(frozen=True, slots=True)
class EventCounter:
    """A counter by queue and job name."""

    name: str
    help: str
    count: Count


@dataclass(frozen=True, slots=True)
class EventHistogram:
    """A histogram by queue and job name; `place` is where a tally has it, and its bounds."""

    name: str
    help: str
    place: Callable[[Layout], tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class MissedCounter:
    """A counter by queue: the events that were missed."""

    name: str
    help: str


@dataclass(frozen=True, slots=True)
class EventGauge:
    """A gauge by queue; absent where its value is None."""

    name: str
    help: str
    read: Callable[[QueueTallies], float | None]


@dataclass(frozen=True, slots=True)
class ReasonCounter:
    """A counter by queue and reason."""

    name: str
    help: str
    read: Callable[[FrozenReasons], Mapping[str, ReasonCount]]


@dataclass(frozen=True, slots=True)
class ReasonGauge:
    """A gauge by queue and reason, in seconds; of those that have a series."""

    name: str
    help: str
    read: Callable[[Seen], int]  # epoch ms


EventFamily = (
    EventCounter | EventHistogram | MissedCounter | EventGauge | ReasonCounter | ReasonGauge
)


class _OfQueue(NamedTuple):
    """The values of a queue as a whole."""

    missed: int
    counted: QueueTallies


def event_head(family: EventFamily, *, openmetrics: bool) -> str:
    if isinstance(family, EventGauge | ReasonGauge):
        return head(family.name, "gauge", family.help)
    kind = "histogram" if isinstance(family, EventHistogram) else "counter"
    # In OpenMetrics the family of a counter is named without the `_total` of its samples.
    name = family.name.removesuffix("_total") if openmetrics else family.name
    return head(name, kind, family.help)


# Queues that share a segment, which is made again if one of them has changed. Each segment costs 15
# µs, so smaller batches cost more with 1,000 queues of which a tenth change.
BATCH_SIZE = 128
# Number of series whose text (4 kB each) is kept for when another queue of their batch changes. The
# text of all others is rendered again then, at 20 µs a series.
MAX_KEPT_SERIES = 5000
# The cost of rendering a series, in queues that are looked at, and the bytes that are compressed in
# the time of looking at one queue.
RENDER_COST, PACKED_BYTES_PER_LOOK = 25, 200


class _Input(NamedTuple):
    """What a queue's text is rendered from."""

    queue: Queue
    counted: QueueTallies
    held: frozenset[Name]


class _Batch(NamedTuple):
    inputs: list[_Input]
    segments: Sequence[Segment]  # by family


class EventRenderer:
    """Renders tallies as text or OpenMetrics, and again only what has changed."""

    def __init__(
        self,
        families: Sequence[EventFamily],
        labels: Callable[[Queue], str],
        target: str | None,
        *,
        openmetrics: bool,
    ) -> None:
        self._families, self._labels, self._target = families, labels, target
        self._openmetrics = openmetrics
        self._packer = SegmentPacker()
        self._batches: list[_Batch] = []
        self._texts: dict[Queue, tuple[_Input, Sequence[str]]] = {}
        self._templates: dict[tuple[str, Sequence[int]], str] = {}

    def forget(self) -> None:
        """Free all kept text, when nobody requests this form of the page any more."""
        self._batches, self._texts = [], {}

    def render(
        self, tallies: Tallies, queues: Iterable[Queue], held: Held
    ) -> Work[Sequence[Sequence[Segment]]]:
        """The samples of these queues: for some queues at a time, a segment for each family.

        A series that is `held` shows 0.
        """
        batches: list[_Batch] = []
        texts: dict[Queue, tuple[_Input, Sequence[str]]] = {}
        series = done = 0
        for number, some in enumerate(batched(queues, BATCH_SIZE)):
            inputs = [
                _Input(queue, counted, held.get(queue, NOTHING_HELD))
                for queue in some
                if (counted := tallies.queues.get(queue)) is not None
            ]
            done += len(inputs)
            batch = self._batches[number] if number < len(self._batches) else None
            is_same = batch is not None and batch.inputs == inputs
            batch_texts = []
            for each in inputs:
                known = self._texts.get(each.queue)
                number_of_series = 1 + len(each.counted.by_name)
                if not is_same:
                    if done >= COMPARE_BATCH_SIZE:
                        yield
                        done = 0
                    if known is None or known[0] != each:
                        known = (each, self._render_queue(each, tallies.layout))
                        done += RENDER_COST * number_of_series
                    batch_texts.append(known[1])
                if known is not None and series + number_of_series <= MAX_KEPT_SERIES:
                    series += number_of_series
                    texts[each.queue] = known
            if batch is None or not is_same:
                segments = []
                for family_texts in zip(*batch_texts, strict=True):
                    if done >= COMPARE_BATCH_SIZE:
                        yield
                        done = 0
                    family_text = "".join(family_texts)
                    done += len(family_text) // PACKED_BYTES_PER_LOOK
                    segments.append(self._packer.pack(family_text))
                batch = _Batch(inputs, segments)
            batches.append(batch)
        self._batches, self._texts = batches, texts
        return [batch.segments for batch in batches if batch.inputs]

    def _render_queue(self, each: _Input, layout: Layout) -> Sequence[str]:
        """The text of each family."""
        nothing = FrozenTally((0,) * layout.size, {}, restored=False)
        labels = self._labels(each.queue)
        values: list[tuple[FrozenTally | _OfQueue, str]] = [
            (nothing if name in each.held else tally, f'{labels},name="{escape(name)}"')
            for name, tally in each.counted.by_name.items()
        ]
        missed = 0 if None in each.held else each.counted.missed
        values.append((_OfQueue(missed, each.counted), labels))
        return [
            _render_reasons(family, each, labels)
            if isinstance(family, ReasonCounter | ReasonGauge)
            else "".join([self._sample(family, *value, each.queue, layout) for value in values])
            for family in self._families
        ]

    def _sample(
        self,
        family: EventCounter | EventHistogram | MissedCounter | EventGauge,
        shown: FrozenTally | _OfQueue,
        labels: str,
        queue: Queue,
        layout: Layout,
    ) -> str:
        if isinstance(shown, _OfQueue):
            if isinstance(family, MissedCounter):
                return f"{family.name}{{{labels}}} {shown.missed}\n"
            value = family.read(shown.counted) if isinstance(family, EventGauge) else None
            return "" if value is None else f"{family.name}{{{labels}}} {value}\n"
        if isinstance(family, MissedCounter | EventGauge):
            return ""
        if isinstance(family, EventCounter):
            exemplar = self._exemplar(shown.exemplars.get(family.count), queue)
            return f"{family.name}{{{labels}}} {shown.values[family.count]}{exemplar}\n"
        start, bounds = family.place(layout)
        end = start + len(bounds) + 1
        totals = list(accumulate(shown.values[start:end]))
        exemplars = [
            self._exemplar(shown.exemplars.get(place), queue) for place in range(start, end)
        ]
        template = self._template(family.name, bounds).replace(LABELS, labels.replace("%", "%%"))
        buckets = chain.from_iterable(zip(totals, exemplars, strict=True))
        return template % (*buckets, totals[-1], shown.values[end] / 1000)

    def _template(self, name: str, bounds: Sequence[int]) -> str:
        """A histogram's lines, to be filled with its labels and values: 5 times as fast as to
        format each line.
        """
        if (name, bounds) not in self._templates:
            limits = [*(str(bound / 1000) for bound in bounds), "+Inf"]
            self._templates[name, bounds] = "".join(
                [f'{name}_bucket{{{LABELS},le="{limit}"}} %d%s\n' for limit in limits]
                + [f"{name}_count{{{LABELS}}} %d\n", f"{name}_sum{{{LABELS}}} %s\n"]
            )
        return self._templates[name, bounds]

    def _exemplar(self, exemplar: Exemplar | None, queue: Queue) -> str:
        """The last job that was counted, in OpenMetrics's form."""
        if exemplar is None or not self._openmetrics:
            return ""
        raw_id, value, entry_id = exemplar
        # A single label: Grafana can fill an exemplar's link with only one value.
        job_key = text(queue.job_key(raw_id))
        if self._target is not None:
            job_key = f"{self._target}/{job_key}"
        if len("job_key") + len(job_key) > MAX_EXEMPLAR_LENGTH:
            return ""
        if UNREADABLE_IN_EXEMPLAR.search(job_key):
            return ""
        return f' # {{job_key="{escape(job_key)}"}} {value / 1000} {milliseconds(entry_id) / 1000}'


def _render_reasons(family: ReasonCounter | ReasonGauge, each: _Input, labels: str) -> str:
    """The samples of a queue, one for each reason."""
    reasons = each.counted.reasons
    if reasons is None:
        return ""
    if isinstance(family, ReasonCounter):
        return "".join(
            f'{family.name}{{{labels},fingerprint="{fingerprint}",reason="{escape(shown.text)}"}} '
            f"{0 if (family.name, fingerprint) in each.held else shown.total}\n"
            for fingerprint, shown in family.read(reasons).items()
        )
    texts = {**reasons.retried, **reasons.failed}
    return "".join(
        f'{family.name}{{{labels},fingerprint="{fingerprint}",'
        f'reason="{escape(texts[fingerprint].text)}"}} {family.read(seen) / 1000}\n'
        for fingerprint, seen in reasons.seen.items()
    )

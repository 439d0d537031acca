"""Metric families that are counted from events: their declaration, and how they are rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from exporter.bullmq.events.stream import milliseconds
from exporter.bullmq.events.tallies import (
    Count,
    Exemplar,
    FrozenTally,
    Layout,
    QueueTallies,
    Tallies,
)
from exporter.bullmq.keys import Queue, text
from exporter.prometheus.family import (
    LOOKED_AT_AT_ONCE,
    RENDERED_AS_MANY,
    Texts,
    Work,
    escape,
    head,
)
from exporter.prometheus.new_series import Held, Name

# OpenMetrics allows an exemplar's labels so many characters, names and values together; Prometheus
# drops longer ones.
LONGEST_EXEMPLAR = 128
# In an exemplar, though in no other label, Prometheus (2.42, 3.5) rejects the whole page for a NUL,
# and prometheus_client (0.26) for a `"`, escaped or not.
UNREADABLE_IN_EXEMPLAR = re.compile(r'[\0"]')

NOTHING_HELD: frozenset[Name] = frozenset()


@dataclass(frozen=True, slots=True)
class EventCounter:
    """A counter by queue and job name."""

    name: str
    help: str
    count: Count


@dataclass(frozen=True, slots=True)
class EventHistogram:
    """A histogram by queue and job name; `place` tells where a tally has it, and its bounds."""

    name: str
    help: str
    place: Callable[[Layout], tuple[int, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class MissedCounter:
    """A counter by queue: the events that were missed."""

    name: str
    help: str


@dataclass(frozen=True, slots=True)
class EventsOffGauge:
    """A gauge by queue: 1 if it keeps too few events to be read; absent otherwise."""

    name: str
    help: str


EventFamily = EventCounter | EventHistogram | MissedCounter | EventsOffGauge


class _OfQueue(NamedTuple):
    """The values of a queue as a whole."""

    missed: int
    events_off: bool


def event_head(family: EventFamily, *, openmetrics: bool) -> str:
    if isinstance(family, EventsOffGauge):
        return head(family.name, "gauge", family.help)
    kind = "histogram" if isinstance(family, EventHistogram) else "counter"
    # In OpenMetrics the family of a counter is named without the `_total` of its samples.
    name = family.name.removesuffix("_total") if openmetrics else family.name
    return head(name, kind, family.help)


class _Rendered(NamedTuple):
    """What a queue was rendered from, and the text for each family."""

    counted: QueueTallies
    held: frozenset[Name]
    series: dict[Name, tuple[FrozenTally | _OfQueue, tuple[str, ...]]]
    texts: tuple[str, ...]


class EventRenderer:
    """Renders tallies as text or OpenMetrics, and of what it rendered before only what changed."""

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
        self._rendered: dict[Queue, _Rendered] = {}

    def render(self, tallies: Tallies, queues: Iterable[Queue], held: Held) -> Work[Texts]:
        """The samples of each of these queues, and of these the text for each family.

        A series that is `held` shows 0.
        """
        known, rendered = self._rendered, dict[Queue, _Rendered]()
        done = 0
        for queue in queues:
            if done >= LOOKED_AT_AT_ONCE:
                yield
                done = 0
            done += 1
            counted = tallies.queues.get(queue)
            if counted is None:
                continue
            before, at_zero = known.get(queue), held.get(queue, NOTHING_HELD)
            if before is None or before.counted is not counted or before.held != at_zero:
                before = self._of_queue(
                    queue, counted, held=at_zero, layout=tallies.layout, before=before
                )
                done += RENDERED_AS_MANY * (1 + len(counted.by_name))
            rendered[queue] = before
        self._rendered = rendered
        return [each.texts for each in rendered.values()]

    def _of_queue(
        self,
        queue: Queue,
        counted: QueueTallies,
        *,
        held: frozenset[Name],
        layout: Layout,
        before: _Rendered | None,
    ) -> _Rendered:
        nothing = FrozenTally((0,) * layout.size, {}, restored=False)
        labels = self._labels(queue)
        values: dict[Name, FrozenTally | _OfQueue] = {
            name: nothing if name in held else tally for name, tally in counted.by_name.items()
        }
        values[None] = _OfQueue(0 if None in held else counted.missed, counted.events_off)
        series: dict[Name, tuple[FrozenTally | _OfQueue, tuple[str, ...]]] = {}
        for name, value in values.items():
            known = before.series.get(name) if before is not None else None
            if known is None or known[0] != value:
                of_name = labels if name is None else f'{labels},name="{escape(name)}"'
                samples = [
                    self._sample(each, value, of_name, queue, layout) for each in self._families
                ]
                known = (value, tuple(samples))
            series[name] = known
        by_name = [texts for _, texts in series.values()]
        # Without the empty ones: of one text alone `join` makes no copy.
        texts = ["".join(filter(None, of_family)) for of_family in zip(*by_name, strict=True)]
        return _Rendered(counted, held, series, tuple(texts))

    def _sample(
        self,
        family: EventFamily,
        shown: FrozenTally | _OfQueue,
        labels: str,
        queue: Queue,
        layout: Layout,
    ) -> str:
        if isinstance(shown, _OfQueue):
            if isinstance(family, MissedCounter):
                return f"{family.name}{{{labels}}} {shown.missed}\n"
            off = isinstance(family, EventsOffGauge) and shown.events_off
            return f"{family.name}{{{labels}}} 1\n" if off else ""
        if isinstance(family, MissedCounter | EventsOffGauge):
            return ""
        if isinstance(family, EventCounter):
            exemplar = self._exemplar(shown.exemplars.get(family.count), queue)
            return f"{family.name}{{{labels}}} {shown.values[family.count]}{exemplar}\n"
        start, bounds = family.place(layout)
        end = start + len(bounds) + 1
        totals = list(accumulate(shown.values[start:end]))
        limits = [*(str(bound / 1000) for bound in bounds), "+Inf"]
        lines = [
            f'{family.name}_bucket{{{labels},le="{limit}"}} {total}'
            f"{self._exemplar(shown.exemplars.get(place), queue)}\n"
            for place, limit, total in zip(range(start, end), limits, totals, strict=True)
        ]
        lines.append(f"{family.name}_count{{{labels}}} {totals[-1]}\n")
        lines.append(f"{family.name}_sum{{{labels}}} {shown.values[end] / 1000}\n")
        return "".join(lines)

    def _exemplar(self, exemplar: Exemplar | None, queue: Queue) -> str:
        """The last job that was counted there, in the form that OpenMetrics has for it."""
        if exemplar is None or not self._openmetrics:
            return ""
        raw_id, value, entry_id = exemplar
        # One label that says all: Grafana fills the link of an exemplar with one value alone.
        job_key = text(queue.job_key(raw_id))
        if self._target is not None:
            job_key = f"{self._target}/{job_key}"
        if len("job_key") + len(job_key) > LONGEST_EXEMPLAR:
            return ""
        if UNREADABLE_IN_EXEMPLAR.search(job_key):
            return ""
        return f' # {{job_key="{escape(job_key)}"}} {value / 1000} {milliseconds(entry_id) / 1000}'

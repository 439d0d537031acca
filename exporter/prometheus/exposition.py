"""The page that Prometheus scrapes: rendered after each poll, answered from memory."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from prometheus_client import exposition as text_format
from prometheus_client.openmetrics import exposition as openmetrics

from exporter.bullmq.events.tallies import Tallies
from exporter.bullmq.snapshot import Snapshot
from exporter.bullmq.watcher import Outcome
from exporter.prometheus import job_ages, job_counts, job_events, queue_state, schedulers, workers
from exporter.prometheus.event_family import EventFamily, EventRenderer, Series
from exporter.prometheus.family import Family, labels_of, render
from exporter.prometheus.health import Health

GAUGES: tuple[Family, ...] = (
    *job_counts.FAMILIES,
    *job_ages.FAMILIES,
    *queue_state.FAMILIES,
    *schedulers.FAMILIES,
    *workers.FAMILIES,
)
COUNTED: tuple[EventFamily, ...] = job_events.FAMILIES

# A form of the page that nobody has asked for this long (seconds) is no longer made ahead.
WANTED_FOR = 300.0

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Form(NamedTuple):
    """How a page is asked for: one of the two content types above, and whether as gzip."""

    content_type: str
    compressed: bool


def family_names() -> frozenset[str]:
    """The names of all metric families, the exporter's own among them."""
    return frozenset(family.name for family in (*GAUGES, *COUNTED)) | Health().family_names()


def negotiate(accept: str) -> str:
    """The content type for an `Accept` header: OpenMetrics where it is liked as well as text."""
    best = {TEXT: 0.0, OPENMETRICS: 0.0}
    for part in accept.split(","):
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if media == "application/openmetrics-text":
            best[OPENMETRICS] = max(best[OPENMETRICS], quality)
        elif media in ("text/plain", "text/*", "*/*"):
            best[TEXT] = max(best[TEXT], quality)
    return OPENMETRICS if best[OPENMETRICS] and best[OPENMETRICS] >= best[TEXT] else TEXT


class Content(NamedTuple):
    """What the page of a good poll is made from, beside the exporter's own metrics."""

    snapshot: Snapshot
    gauges: bytes
    tallies: Tallies | None
    begun: frozenset[Series]  # the series that scrapers have seen already


class Exposition:
    """Holds the latest page in each form that scrapers ask for."""

    def __init__(self, health: Health, *, with_prefix: bool) -> None:
        self.ready = False  # whether the last poll succeeded
        self._health = health
        self._with_prefix = with_prefix
        self._events = {
            form: EventRenderer(COUNTED, openmetrics=form == OPENMETRICS)
            for form in (TEXT, OPENMETRICS)
        }
        self._content: Content | None = None
        self._begun: frozenset[Series] = frozenset()
        self._pages: dict[Form, bytes] = {}
        self._asked: dict[Form, float] = {}
        # A thread of its own: the loop's default ones may all be held up by a resolver.
        self._renderer = ThreadPoolExecutor(1, "render")

    async def publish(self, outcome: Outcome, tallies: Tallies | None) -> None:
        """Replace the page: a failed poll leaves no queue on it.

        Without tallies (events cannot be followed) there are no counters of queues: the last value
        would say that nothing happens.
        """
        self._health.record(outcome, tallies)
        now = time.monotonic()
        self._asked = {form: at for form, at in self._asked.items() if now - at < WANTED_FOR}
        if outcome.snapshot is None:
            # Without a wait: what was true before is not told a moment longer.
            self.ready, self._content, self._pages = False, None, {}
            return
        # In a thread: a page of 10,000 queues takes longer than a client of the API should wait.
        self._content, self._pages = await asyncio.get_running_loop().run_in_executor(
            self._renderer, self._render, outcome.snapshot, tallies, tuple(self._asked)
        )
        self.ready = True

    async def page(self, accept: str, *, compressed: bool) -> tuple[str, bytes]:
        """The content type and the page, in the form that the scraper accepts."""
        form = Form(negotiate(accept), compressed)
        self._asked[form] = time.monotonic()
        pages, content = self._pages, self._content
        if form not in pages:
            pages[form] = await asyncio.get_running_loop().run_in_executor(
                self._renderer, self._encode, content, form
            )
        if content is not None and content.tallies is not None:
            self._begun = _series(content.tallies)
        return form.content_type, pages[form]

    def _render(
        self, snapshot: Snapshot, tallies: Tallies | None, forms: Iterable[Form]
    ) -> tuple[Content, dict[Form, bytes]]:
        gauges = render(GAUGES, snapshot, with_prefix=self._with_prefix).encode()
        content = Content(snapshot, gauges, tallies, self._begun)
        return content, {form: self._encode(content, form) for form in forms}

    def _encode(self, content: Content | None, form: Form) -> bytes:
        page = b""
        if content is not None:
            page = content.gauges
            if content.tallies is not None:
                rows = (
                    (reading.queue, labels_of(reading.queue, with_prefix=self._with_prefix))
                    for reading in content.snapshot.readings
                )
                events = self._events[form.content_type]
                page += events.render(content.tallies, rows, content.begun).encode()
        # The registry's part comes last: in OpenMetrics it ends with the `# EOF` of the page.
        render_registry = openmetrics if form.content_type == OPENMETRICS else text_format
        page += render_registry.generate_latest(self._health.registry)
        return gzip.compress(page, compresslevel=1, mtime=0) if form.compressed else page


def _series(tallies: Tallies) -> frozenset[Series]:
    series: set[Series] = set()
    for queue, counted in tallies.queues.items():
        series.add((queue, None))
        series.update((queue, name) for name in counted.by_name)
    return frozenset(series)

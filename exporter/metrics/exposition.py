"""The page that Prometheus scrapes: rendered after each poll, answered from memory.

Rendering is done in pieces, and yields to other tasks between them. In a thread of its own it held
Python's lock, and requests to the API took three times as long.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Container, Generator, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from prometheus_client import exposition as text_format
from prometheus_client.openmetrics import exposition as openmetrics_format

from exporter.concurrency.batches import batched
from exporter.concurrency.request_priority import RequestPriority
from exporter.metrics import (
    job_ages,
    job_counts,
    job_events,
    queue_limits,
    queue_state,
    schedulers,
    workers,
)
from exporter.metrics.event_family import EventFamily, EventRenderer, event_head
from exporter.metrics.family import (
    Family,
    GaugeRenderer,
    Texts,
    Work,
    head,
    labels_of,
)
from exporter.metrics.health import Health
from exporter.metrics.new_series import Held, NewSeries
from exporter.metrics.packing import Page, PagePacker, Segment
from exporter.queues.queue import Queue
from exporter.queues.snapshot import Outcome, Snapshot
from exporter.queues.tallies import Tallies

GAUGES: tuple[Family, ...] = (
    *job_counts.FAMILIES,
    *job_ages.FAMILIES,
    *queue_state.FAMILIES,
    *queue_limits.FAMILIES,
    *schedulers.FAMILIES,
    *workers.FAMILIES,
)
COUNTED: tuple[EventFamily, ...] = job_events.FAMILIES

# Seconds after which a form of the page that nobody has requested is no longer made in advance.
FORM_TTL_SECONDS = 300.0

# Queues whose text of one family is joined at once, and bytes of such texts that are encoded before
# yielding to other tasks: a quarter of a ms.
JOIN_BATCH_SIZE = 100
ENCODE_BATCH_BYTES = 200_000
# Adding a segment of any size takes as long as encoding this many bytes.
SEGMENT_COST_BYTES = 1600

Done = TypeVar("Done")

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Form(NamedTuple):
    """The form in which a page is requested: one of the two content types above.

    Pages are kept as gzip, and decompressed for those who do not accept it.

    `for_prometheus`: series that are new to Prometheus show 0; all other clients see the real
    values.
    """

    content_type: str
    for_prometheus: bool


def family_names() -> frozenset[str]:
    """The names of all metric families, the exporter's own among them."""
    return frozenset(family.name for family in (*GAUGES, *COUNTED)) | Health().family_names()


def negotiate(accept: str) -> str:
    """The content type for an `Accept` header: OpenMetrics if it is preferred or equal to text."""
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
    """What a successful poll of one target adds to the page."""

    queues: tuple[Queue, ...]
    gauges: Texts  # of each queue the samples of each of GAUGES
    tallies: Tallies | None
    held: Held  # the series that show 0 to Prometheus


class Part:
    """One target's part of the page, as it renders it."""

    def __init__(self, target: str | None, *, with_prefix: bool, scrape_interval: float) -> None:
        labels = partial(labels_of, target=target, with_prefix=with_prefix)
        self._gauges = GaugeRenderer(GAUGES, labels)
        self._events = {
            form: EventRenderer(COUNTED, labels, target, openmetrics=form == OPENMETRICS)
            for form in (TEXT, OPENMETRICS)
        }
        self._new_series = NewSeries(scrape_interval)
        self.content: Content | None = None  # None: the last poll did not succeed

    def content_of(
        self, snapshot: Snapshot, tallies: Tallies | None, *, scraped: bool
    ) -> Work[Content]:
        queues = tuple([reading.queue for reading in snapshot.readings])
        gauges = yield from self._gauges.render(snapshot)
        held = yield from self._held(tallies, scraped=scraped)
        return Content(queues, gauges, tallies, held)

    def with_counts(
        self, content: Content, tallies: Tallies | None, *, scraped: bool
    ) -> Work[Content]:
        """The same with the latest counts."""
        held = yield from self._held(tallies, scraped=scraped)
        return content._replace(tallies=tallies, held=held)

    def _held(self, tallies: Tallies | None, *, scraped: bool) -> Work[Held]:
        if tallies is None:
            return {}
        return (yield from self._new_series.update(tallies, scraped=scraped, now=time.monotonic()))

    def forget_forms(self, wanted: Container[str]) -> None:
        """Free what is kept for content types other than these."""
        for content_type, renderer in self._events.items():
            if content_type not in wanted:
                renderer.forget()

    def events(self, content: Content, form: Form) -> Work[Sequence[Sequence[Segment]] | None]:
        """For some queues at a time the samples of each of COUNTED; None where events cannot be
        followed.
        """
        if content.tallies is None:
            return None
        # While some series are held, their queues are also rendered for clients that see the real
        # values.
        held = content.held if form.for_prometheus else {}
        renderer = self._events[form.content_type]
        return (yield from renderer.render(content.tallies, content.queues, held))


class Exposition:
    """Holds the latest page in each form that scrapers ask for.

    `targets` are the names of those that are watched, as for Health.
    """

    def __init__(
        self,
        health: Health,
        targets: Sequence[str | None] = (None,),
        *,
        with_prefix: bool,
        scrape_interval: float,
        request_priority: RequestPriority,
    ) -> None:
        self._health = health
        self._request_priority = request_priority
        self._parts = {
            target: Part(target, with_prefix=with_prefix, scrape_interval=scrape_interval)
            for target in targets
        }
        self._scraped = False  # whether a Prometheus has scraped yet
        self._pages: dict[Form, Page] = {}
        self._asked: dict[Form, float] = {}
        self._rendering = asyncio.Lock()
        self._waiting = 0  # scrapers that wait for a page that is not made yet

    @property
    def unread(self) -> list[str | None]:
        """The targets whose last poll did not succeed."""
        return [target for target, part in self._parts.items() if part.content is None]

    @property
    def ready(self) -> bool:
        """Whether there is something to expose: of one target at least."""
        return len(self.unread) < len(self._parts)

    async def publish(self, target: str | None, outcome: Outcome, tallies: Tallies | None) -> None:
        """Replace a target's part: a failed poll leaves no queue of it on the page.

        Without tallies (events cannot be followed) there are no counters of queues: the last value
        would say that nothing happens.
        """
        self._health.record(target, outcome, tallies)
        part = self._parts[target]
        if outcome.snapshot is None:
            # Without waiting: what was true before must not be exposed a moment longer.
            part.content, self._pages = None, {}
            return
        async with self._rendering:
            await self._replace(
                part, part.content_of(outcome.snapshot, tallies, scraped=self._scraped)
            )

    async def publish_counts(self, target: str | None, tallies: Tallies | None) -> None:
        """Replace the counts of a target's queues between two polls."""
        self._health.record_counts(target, tallies)
        part = self._parts[target]
        async with self._rendering:
            if part.content is not None:  # None after a failed poll
                await self._replace(
                    part, part.with_counts(part.content, tallies, scraped=self._scraped)
                )

    async def _replace(self, part: Part, work: Work[Content]) -> None:
        now = time.monotonic()
        self._asked = {form: at for form, at in self._asked.items() if now - at < FORM_TTL_SECONDS}
        part.forget_forms({form.content_type for form in self._asked})
        # With several targets each of them would make all pages again, so they are made on request.
        ahead = tuple(self._asked) if len(self._parts) == 1 else ()
        part.content, self._pages = await self._done(self._render(part, work, ahead))

    async def page(self, accept: str, *, for_prometheus: bool = False) -> tuple[str, Page]:
        """The content type and the page, in the form that the scraper accepts."""
        self._scraped = self._scraped or for_prometheus
        asked = Form(negotiate(accept), for_prometheus)
        self._asked[asked] = time.monotonic()
        while (form := _distinct(asked, self._contents())) not in self._pages:
            self._waiting += 1
            try:
                async with self._rendering:
                    pages = self._pages  # not the pages of an outage that begins meanwhile
                    if form not in pages:
                        pages[form] = await self._done(self._encode(self._contents(), form))
            finally:
                self._waiting -= 1
        return form.content_type, self._pages[form]

    async def _done(self, work: Work[Done]) -> Done:
        """Do the work, yield to other tasks wherever it yields, and return its result."""
        while True:
            try:
                next(work)
            except StopIteration as ended:
                outcome: Done = ended.value
                return outcome
            if self._waiting:
                await asyncio.sleep(0)
            else:
                await self._request_priority.yield_to_requests()

    def _contents(self) -> Contents:
        return [(part, part.content) for part in self._parts.values() if part.content is not None]

    def _render(
        self, part: Part, work: Work[Content], forms: Iterable[Form]
    ) -> Work[tuple[Content, dict[Form, Page]]]:
        content = yield from work
        contents = [(part, content)]
        pages = {}
        for form in dict.fromkeys(_distinct(form, contents) for form in forms):
            pages[form] = yield from self._encode(contents, form)
        return content, pages

    def _encode(self, contents: Contents, form: Form) -> Work[Page]:
        # Piece by piece: the page of 10,000 queues, of 6 MB or more, is never in memory as a whole.
        packer, at_once = PagePacker(), 0
        for piece in self._pieces(contents, form):
            if piece is None or at_once >= ENCODE_BATCH_BYTES:
                yield
                at_once = 0
            if isinstance(piece, Segment):
                at_once += SEGMENT_COST_BYTES
                packer.add_segment(piece)
            elif piece is not None:
                at_once += len(piece)
                packer.add(piece)
        return packer.finish()

    def _pieces(
        self, contents: Contents, form: Form
    ) -> Generator[bytes | Segment | None, None, None]:
        """The page, family by family, because the formats require each family in one place.

        None stands for no piece: time to yield to other tasks.
        """
        for at, gauge in enumerate(GAUGES if contents else ()):
            yield head(gauge.name, "gauge", gauge.help).encode()
            for _, content in contents:
                yield from _joined(content.gauges, at)
        openmetrics = form.content_type == OPENMETRICS
        counted: list[Sequence[Segment]] = []
        is_followed = False
        for part, content in contents:
            segments = yield from part.events(content, form)
            if segments is not None:
                is_followed = True
                counted += segments
        for at, family in enumerate(COUNTED if is_followed else ()):
            yield event_head(family, openmetrics=openmetrics).encode()
            for batch in counted:
                yield batch[at]
        # The registry's part comes last: in OpenMetrics it ends with the `# EOF` of the page.
        render_registry = openmetrics_format if openmetrics else text_format
        yield render_registry.generate_latest(self._health.registry)


Contents = list[tuple[Part, Content]]


def _distinct(form: Form, contents: Contents) -> Form:
    """The form without `for_prometheus` if it makes no difference, as almost always."""
    held = any(content.held for _, content in contents)
    return form._replace(for_prometheus=form.for_prometheus and held)


def _joined(texts: Texts, at: int) -> Iterator[bytes]:
    """One family's text of all queues, many queues at a time."""
    for some in batched(texts, JOIN_BATCH_SIZE):
        yield "".join([queue_texts[at] for queue_texts in some]).encode()

"""Starts the parts, and stops them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack

from exporter import __version__
from exporter.bullmq.connection import RedisReader, RedisUnavailable
from exporter.bullmq.events.follower import Follower
from exporter.bullmq.jobs import Limits
from exporter.bullmq.keys import State
from exporter.bullmq.watcher import Outcome, Watcher
from exporter.prometheus.exposition import Exposition
from exporter.prometheus.health import Health
from exporter.settings import Settings
from exporter.web.api import api_app
from exporter.web.credentials import Credentials
from exporter.web.jobs_api import JobsApi
from exporter.web.metrics import metrics_app
from exporter.web.server import Port, listen, serving
from exporter.web.shown import Redaction

log = logging.getLogger(__name__)

# Connections for requests of the API; further requests wait for one, within the Redis time limit.
API_CONNECTIONS = 8


async def run(
    settings: Settings, started: Callable[[str, str], None] = lambda _metrics, _api: None
) -> None:
    """Run until SIGTERM or SIGINT; `started` is told the addresses of the two ports.

    Raises SettingsError where a port cannot be opened.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    async with AsyncExitStack() as stack:
        metrics_socket = stack.enter_context(listen(settings.metrics.listen, "metrics.listen"))
        api_socket = stack.enter_context(listen(settings.api.listen, "api.listen"))
        log.info("starting", extra={"version": __version__, "redis": settings.redis.address})
        _warn(settings)

        slot = settings.cluster_slot
        # The poll has a connection of its own: requests of the API never delay it.
        polling = RedisReader(settings.redis, connections=2, slot=slot)
        stack.push_async_callback(polling.close)
        reading = RedisReader(settings.redis, connections=API_CONNECTIONS, slot=slot)
        stack.push_async_callback(reading.close)

        health = Health()
        exposition = Exposition(health, with_prefix=len(settings.prefix) > 1)
        follower: Follower | None = None

        async def publish(outcome: Outcome) -> None:
            tallies = await follower.tallies() if follower is not None else None
            await exposition.publish(outcome, tallies)

        watcher = Watcher(polling, settings, publish)
        if settings.events.enabled:
            # And so has the follower, which waits on it for events.
            following = RedisReader(settings.redis, connections=1, slot=slot)
            stack.push_async_callback(following.close)
            follower = Follower(
                following,
                settings.events,
                lambda: watcher.queues,
                redis_timeout=settings.redis.timeout,
            )
        jobs = JobsApi(
            reading,
            watcher,
            settings.prefix,
            Redaction(settings.api.redact),
            Limits(
                settings.api.max_field_bytes,
                settings.api.max_page_bytes,
                settings.api.search_seconds,
            ),
        )

        metrics = Port(
            "metrics",
            metrics_socket,
            metrics_app(exposition, settings.metrics),
            tls=settings.metrics.tls_context(),
        )
        api = Port("api", api_socket, api_app(jobs, settings.api, health), cancels=True)
        async with serving(metrics, api), asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(watcher.run())]
            if follower is not None:
                running.append(tasks.create_task(follower.run()))
            started(metrics.url, api.url)
            await stop.wait()
            log.info("stopping")
            for task in running:
                task.cancel()


async def check(settings: Settings) -> str:
    """What one poll finds, as a table for people. Raises RedisUnavailable."""
    redis = RedisReader(settings.redis, connections=1, slot=settings.cluster_slot)

    async def publish(_: Outcome) -> None: ...

    try:
        outcome = await Watcher(redis, settings, publish).poll()
    finally:
        await redis.close()
    if outcome.snapshot is None:
        raise RedisUnavailable(outcome.error)
    several = len(settings.prefix) > 1
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
        for reading in outcome.snapshot.readings
    ]
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    table = "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    )
    return f"Redis at {settings.redis.address} answers; {len(rows)} queues:\n{table}"


def _warn(settings: Settings) -> None:
    if settings.redis.tls and not settings.redis.tls_verify:
        log.warning(
            "the certificate of Redis is not verified, as in Open Archiver; "
            "set redis.tls_verify to true to verify it"
        )
    credentials = Credentials(settings.api)
    if not credentials.configured:
        log.warning(
            "the Jobs API lets nobody in: no credential is configured; set EXPORTER_API_KEY "
            "(at least 16 characters), or JWT_SECRET to Open Archiver's"
        )

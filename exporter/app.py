"""Makes the parts, starts them, and stops them: the one place that knows all of them."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial

from exporter import __version__
from exporter.collect.target import Target
from exporter.concurrency.request_priority import RequestPriority
from exporter.daemon_thread import DaemonThreadExecutor
from exporter.deadline import Deadline
from exporter.harmful_settings import harmful_settings
from exporter.metrics.exposition import Exposition
from exporter.metrics.health import Health
from exporter.runtime import collect_garbage, raise_file_limit
from exporter.settings import Prepared, Settings
from exporter.web.api import MAX_LINE_BYTES, api_app
from exporter.web.connections import connections_per_port
from exporter.web.credentials import Credentials
from exporter.web.jobs_api import JobsApi
from exporter.web.metrics import metrics_app
from exporter.web.redaction import Redaction
from exporter.web.server import Port, listen, serving

log = logging.getLogger(__name__)


async def run(
    prepared: Prepared,
    started: Callable[[str, str], None] = lambda _metrics, _api: None,
    deadline: Deadline | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, which starts the deadline. `started` is called with the
    addresses of the two ports.

    Raises SettingsError where a port cannot be opened.
    """
    settings = prepared.settings
    stop = asyncio.Event()
    deadline = deadline or Deadline()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(DaemonThreadExecutor())
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _ignore_other_signals(stop)

    async with AsyncExitStack() as stack:
        metrics_socket = stack.enter_context(listen(settings.metrics.listen, "metrics.listen"))
        api_socket = stack.enter_context(listen(settings.api.listen, "api.listen"))
        watched = settings.by_target()
        stores = {
            "redis": [each.redis.address for each in watched.values() if not each.in_postgres],
            "postgres": [each.postgres.address for each in watched.values() if each.in_postgres],
        }
        addresses = {kind: ", ".join(some) for kind, some in stores.items() if some}
        log.info("starting", extra={"version": __version__} | addresses)
        _warn(settings, watched.values())

        with_prefix = any(each.has_several_prefixes for each in watched.values())
        following = [name for name, each in watched.items() if each.events.enabled]
        health = Health(tuple(watched), following=following)
        targets, request_priority = [], RequestPriority()
        redaction = Redaction(settings.api.redact, settings.api.redact_values)
        exposition = Exposition(
            health,
            tuple(watched),
            with_prefix=with_prefix,
            scrape_interval=settings.metrics.scrape_interval,
            request_priority=request_priority,
        )
        for name, each in watched.items():
            target = Target(
                name,
                each,
                partial(exposition.publish, name),
                partial(exposition.publish_counts, name),
                request_priority,
                deadline=deadline,
                redact=redaction.value,
            )
            targets.append(target)
        stack.push_async_callback(_close, targets, deadline)
        jobs = JobsApi(
            targets,
            redaction,
            search_seconds=settings.api.search_seconds,
        )

        metrics = Port(
            "metrics",
            metrics_socket,
            metrics_app(exposition, settings.metrics, health),
            tls=prepared.metrics_tls,
        )
        api = Port(
            "api",
            api_socket,
            api_app(jobs, settings.api, health, request_priority),
            cancels=True,
            max_line_bytes=MAX_LINE_BYTES,
        )
        limit = connections_per_port(raise_file_limit(), targets=len(targets))
        async with (
            serving(metrics, api, limit=limit, deadline=deadline) as close_ports,
            asyncio.TaskGroup() as tasks,
        ):
            running = [tasks.create_task(target.run()) for target in targets]
            running.append(tasks.create_task(collect_garbage()))
            started(metrics.url, api.url)
            try:
                await stop.wait()
            finally:
                deadline.start()
            log.info("stopping")
            for task in running:
                task.cancel()
            # The ports are closed while counters are saved.
            await close_ports()


async def _close(targets: Iterable[Target], deadline: Deadline) -> None:
    """Close all connections to Redis. Over TLS that waits for the server's reply, at most until the
    deadline instead of 30 s.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.left()):
            await asyncio.gather(*(target.close() for target in targets), return_exceptions=True)


def _ignore_other_signals(stop: asyncio.Event) -> None:
    """Survive the signals by which other programs reload their settings or reopen their logs.

    A terminal sends SIGHUP when it is closed; an exporter that was started in it still ends.
    """
    loop = asyncio.get_running_loop()
    ignored: set[signal.Signals] = set()

    def ignore(number: signal.Signals) -> None:
        if number not in ignored:
            log.info(
                "signal ignored: restart the exporter to apply changed settings",
                extra={"signal": number.name},
            )
        ignored.add(number)

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is not signal.SIG_DFL:
            continue  # nohup's choice, or the demo's
        if number is signal.SIGHUP and os.isatty(0):
            loop.add_signal_handler(number, stop.set)
        else:
            loop.add_signal_handler(number, ignore, number)


def _warn(settings: Settings, watched: Iterable[Settings]) -> None:
    for each in watched:
        postgres = each.postgres
        if each.in_postgres and not postgres.is_socket and postgres.tls and not postgres.tls_verify:
            log.warning(
                "the certificate of PostgreSQL is not verified; "
                f"set {postgres.names_of('tls_verify')} to true to verify it"
            )
        if each.redis.tls and not each.redis.tls_verify:
            log.warning(
                "the certificate of Redis is not verified, as in Open Archiver; "
                f"set {each.redis.names_of('tls_verify')} to true to verify it"
            )
    for warning in harmful_settings(settings):
        log.warning(warning)
    credentials = Credentials(settings.api)
    if not credentials.configured:
        log.warning(
            "the Jobs API rejects every request: no credential is configured; set EXPORTER_API_KEY "
            "(at least 16 characters), or JWT_SECRET to Open Archiver's"
        )

"""Starts the parts, and stops them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from exporter import __version__
from exporter.bullmq.connection import RedisReader, RedisUnavailable
from exporter.bullmq.keys import State
from exporter.bullmq.remarks import Remark
from exporter.bullmq.request_priority import RequestPriority
from exporter.bullmq.snapshot import Snapshot
from exporter.bullmq.target import Target
from exporter.bullmq.watcher import Outcome, Watcher
from exporter.daemon_thread import DaemonThreadExecutor
from exporter.deadline import Deadline
from exporter.logs import one_line
from exporter.prometheus.exposition import Exposition
from exporter.prometheus.health import Health
from exporter.settings import Prepared, Settings, names_of
from exporter.web.api import MAX_LINE_BYTES, api_app
from exporter.web.connections import connections_per_port, raise_file_limit
from exporter.web.credentials import Credentials, secret_warnings
from exporter.web.jobs_api import JobsApi
from exporter.web.metrics import metrics_app
from exporter.web.redaction import Redaction
from exporter.web.server import Port, listen, serving

log = logging.getLogger(__name__)

# The limits of the rules in config/prometheus. What one poll sees is exposed until the next one,
# which must come before a rule fires: after 8 minutes, by its windows and its `for`. Without the
# counters of events, a rule has to see the same at several polls.
MAX_INTERVAL_SECONDS = 360
MAX_INTERVAL_SECONDS_WITHOUT_EVENTS = 60

# Garbage is collected once in so many checks, and as soon as memory has grown by more than this: by
# a quarter, as Python itself does, and a few MB.
GARBAGE_CHECK_SECONDS, GARBAGE_CHECKS = 10, 360
GARBAGE_GROWTH, GARBAGE_BYTES = 1.25, 16 << 20


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
        addresses = ", ".join(each.redis.address for each in watched.values())
        log.info("starting", extra={"version": __version__, "redis": addresses})
        _warn(settings, watched.values())

        with_prefix = any(each.has_several_prefixes for each in watched.values())
        health = Health(tuple(watched), follows_events=settings.events.enabled)
        targets, request_priority = [], RequestPriority()
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
            )
            targets.append(target)
        stack.push_async_callback(_close, targets, deadline)
        jobs = JobsApi(
            targets,
            Redaction(settings.api.redact, settings.api.redact_values),
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
            # While counters are saved.
            await close_ports()


async def _close(targets: Iterable[Target], deadline: Deadline) -> None:
    """Close all connections to Redis. Over TLS its consent is waited for, up to 30 s otherwise."""
    with suppress(TimeoutError):
        async with asyncio.timeout(deadline.left()):
            await asyncio.gather(*(target.close() for target in targets), return_exceptions=True)


def _ignore_other_signals(stop: asyncio.Event) -> None:
    """Let no signal that others take for "read your settings anew" or "reopen your log" kill us.

    A terminal sends SIGHUP when it is closed: that ends what was started in it.
    """
    loop = asyncio.get_running_loop()
    ignored: set[signal.Signals] = set()

    def ignore(number: signal.Signals) -> None:
        if number not in ignored:
            log.info("signal ignored: a restart reads settings anew", extra={"signal": number.name})
        ignored.add(number)

    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        if signal.getsignal(number) is not signal.SIG_DFL:
            continue  # nohup's choice, or the demo's
        if number is signal.SIGHUP and os.isatty(0):
            loop.add_signal_handler(number, stop.set)
        else:
            loop.add_signal_handler(number, ignore, number)


async def collect_garbage() -> None:
    """PriorityCheck through all objects for cycles once an hour, and whenever memory has grown.

    With 10,000 queues that takes 240 ms, for which nothing else is done, and Python did it every
    other second. Hardly anything of ours is in cycles, but a closed connection is: whoever opens
    2,000 a second leaves 3 MB of them in each second.
    """
    gc.set_threshold(2000, 10, 1 << 30)  # what is young is looked through in less than 1 ms
    while True:
        limit = _resident_bytes() * GARBAGE_GROWTH + GARBAGE_BYTES
        for _ in range(GARBAGE_CHECKS):
            await asyncio.sleep(GARBAGE_CHECK_SECONDS)
            if _resident_bytes() > limit:
                break
        gc.collect()


def _resident_bytes() -> int:
    """The memory that the process occupies; 0 if that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


class Checked(NamedTuple):
    """The result of one poll of each target, as text."""

    text: str
    has_found: bool  # whether there is a queue in each target


async def check(settings: Settings) -> Checked:
    """Poll each target once. Raises RedisUnavailable."""
    watched = settings.by_target()
    checked = await asyncio.gather(*(_poll_once(each) for each in watched.values()))
    outcomes = [outcome for outcome, _, _ in checked]
    problems = [
        outcome.error if name is None else f"{name}: {outcome.error}"
        for name, outcome in zip(watched, outcomes, strict=True)
        if outcome.snapshot is None
    ]
    if problems:
        raise RedisUnavailable("; ".join(map(str, problems)))
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
    redis = RedisReader(settings.redis, connections=1, slot=settings.cluster_slot)

    async def publish(_: Outcome) -> None: ...

    try:
        watcher = Watcher(redis, settings, publish)
        outcome = await watcher.poll()
        remarks = [] if outcome.snapshot is None else await watcher.remarks()
        return outcome, remarks, watcher.has_found
    finally:
        await redis.close()


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
    return f"{named}Redis at {settings.redis.address} answers; {len(rows)} queues:\n{table}"


def intervals_too_long(settings: Settings) -> list[str]:
    """Return a line for each interval that is too long for the alert rules; see docs/scaling.md."""
    limit, reason = MAX_INTERVAL_SECONDS, ""
    if not settings.events.enabled:
        limit, reason = MAX_INTERVAL_SECONDS_WITHOUT_EVENTS, " while events are not followed"
    lines = []
    if settings.poll_interval > limit:
        alerts = ["BullMQQueueStandsStill", "BullMQQueueBlocked", "BullMQNoWorker"]
        if settings.poll_interval > MAX_INTERVAL_SECONDS:
            alerts += ["BullMQJobAbandoned", "BullMQPollsStopped"]
        lines.append(
            f"{names_of('poll_interval')} is {settings.poll_interval:g} seconds, and the alert "
            f"rules need at most {limit}{reason}: {', '.join(alerts)} may fire without a cause"
        )
    if settings.workers_interval > MAX_INTERVAL_SECONDS:
        lines.append(
            f"{names_of('workers_interval')} is {settings.workers_interval:g} seconds, and the "
            f"alert rules need at most {MAX_INTERVAL_SECONDS}: BullMQNoWorker may fire without "
            "a cause"
        )
    return lines


def harmful_settings(settings: Settings) -> list[str]:
    """Return a line for each setting that is allowed but harmful."""
    return [*intervals_too_long(settings), *secret_warnings(settings)]


def _warn(settings: Settings, watched: Iterable[Settings]) -> None:
    for each in watched:
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

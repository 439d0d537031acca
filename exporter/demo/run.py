"""Starts the demo, says how to use it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from exporter import app, logs
from exporter.demo.store import HOST, DemoStore
from exporter.demo.workload import open_archive, work
from exporter.settings import SettingsError, load, prepare

# The demo's environment, because the user's own may name a real server.
ENVIRONMENT = {
    "EXPORTER_METRICS_LISTEN": f"{HOST}:9538",
    "EXPORTER_API_LISTEN": f"{HOST}:9539",
    "EXPORTER_POLL_INTERVAL": "2",
    "EXPORTER_DISCOVERY_INTERVAL": "5",
    "EXPORTER_LOG_LEVEL": "warning",
}

RunningStore = Callable[[], AbstractAsyncContextManager[DemoStore]]


def choose_store(*, in_postgres: bool) -> RunningStore:
    """The context that runs the server. Raises ModuleNotFoundError if a package is missing."""
    if in_postgres:
        from exporter.demo.postgres import running_postgres  # noqa: PLC0415 - an extra's packages

        return running_postgres
    from exporter.demo.valkey import running_valkey  # noqa: PLC0415 - the same

    return running_valkey


async def run_demo(
    flags: Mapping[str, str], config: Path | None, running_store: RunningStore
) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises SettingsError, as app.run does."""
    for path, flag in (("redis.url", "--redis-url"), ("postgres.url", "--postgres-url")):
        if path in flags:
            raise SettingsError(f"--demo runs on a server of its own; leave {flag} out")
    key = secrets.token_urlsafe(24)
    settings = load(flags, ENVIRONMENT | {"EXPORTER_API_KEY": key}, config)
    logs.configure(settings.log, settings.secrets())
    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    async with running_store() as store, open_archive(store) as archive:
        own = await store.settings_to_read(settings)
        await _until_one_ends(app.run(prepare(own), _announcing(key, store)), work(archive))


def _announcing(key: str, store: DemoStore) -> Callable[[str, str], None]:
    def announce(metrics: str, api: str) -> None:
        failed = f"{api}/v1/jobs/queues/ingestion?status=failed&order=desc&limit=3"
        print(
            f"""\
Queues that work and fail like Open Archiver's are running, on {store.kind} of their own.
For two minutes of every five most mailboxes fail, the first time in 20 seconds: after a minute the
page says why, and a Prometheus with the rules of config/prometheus would report it.

  Metrics   {metrics}/metrics
  Page      {api}/?queue=ingestion
  API key   {key}

curl -s {metrics}/metrics | grep -E '^bullmq_job_(count|failed_total)'
curl -s -H 'X-API-KEY: {key}' '{failed}'

Ctrl-C ends it.""",
            flush=True,
        )

    return announce


def _end_like_ctrl_c(*numbers: signal.Signals) -> None:
    """On signals that would end the process at once, clean up as for SIGINT; ignored signals stay
    ignored, as with nohup.
    """
    loop = asyncio.get_running_loop()
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, signal.raise_signal, signal.SIGINT)


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Like a TaskGroup, but the first task that ends cancels the others, and an exception is raised
    as it is.
    """
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

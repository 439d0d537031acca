"""Why PostgreSQL could not be read, in one line and without secrets."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable
from exporter.settings import PostgresSettings

# Characters of a server's message that are repeated.
MAX_REASON = 200

# The text that libpq and psycopg put in front of the reason why a connection failed.
_PREAMBLE = re.compile(
    r"^(connection failed: )?(connection to server (at|on socket) .*? failed: )?(FATAL:\s+)?"
)


class PostgresUnavailable(StoreUnavailable):
    """PostgreSQL did not answer."""

    public = "PostgreSQL cannot be reached"


class PostgresRefused(PostgresUnavailable, StoreRefused):
    """PostgreSQL answered with a refusal: wrong credentials, or a missing right or schema."""

    public = "PostgreSQL refuses to be read"


class TooSlow(PostgresUnavailable):
    """A statement exceeded its time limit, and PostgreSQL ended it."""

    public = "PostgreSQL answers too slowly"


class TableLocked(PostgresUnavailable):
    """Another session has kept a lock on a table for longer than a statement may wait."""

    public = "PostgreSQL answers too slowly: a table is locked"


class ReplayConflict(PostgresUnavailable):
    """A standby ended a read because it conflicted with replaying the primary's changes."""


class Unsupported(PostgresUnavailable):
    """This server does not support a function, for example if it keeps no write-ahead log."""


class NoConnection(PostgresUnavailable):
    """All connections were in use by other reads."""

    public = "Too many requests at the same time; try again in a few seconds"


class InvalidReply(PostgresUnavailable, StoreInvalidReply):
    """PostgreSQL's reply does not have the expected form."""

    public = "PostgreSQL sent an invalid reply"


def reason_of(error: Exception) -> str:
    """Returns the message of the server or the driver in one line."""
    diagnosis = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (diagnosis or str(error) or type(error).__name__).strip().splitlines()
    return _PREAMBLE.sub("", lines[0] if lines else "")[:MAX_REASON]


# Messages of the server or libpq, and the settings to check. Only English messages are recognized;
# those in other languages are repeated without a hint.
_HINTS = (
    (r"password authentication failed|no password supplied", ("user", "password")),
    (r"role .* does not exist|role .* is not permitted to log in", ("user",)),
    (r"database .* does not exist|permission denied for database", ("database",)),
    (
        r"server does not support SSL|SSL (error|connection)|certificate|no pg_hba\.conf entry",
        ("tls",),
    ),
)
# Connection limits of a role or a database, of the server, and of pgbouncer.
_TOO_MANY = re.compile(
    r"too many (connections|clients)|connection slots are reserved|no more connections allowed"
)


# Errors that occur if the tables are not BullMQ's.
_NOT_OF_BULLMQ = (
    *(errors.UndefinedColumn, errors.UndefinedObject, errors.UndefinedFunction),
    *(errors.DatatypeMismatch, errors.WrongObjectType, errors.DataError),
)


def connection_error(settings: PostgresSettings, error: Exception) -> PostgresUnavailable:
    """Returns the error to raise if no connection can be made."""
    reason = reason_of(error)
    where = f"PostgreSQL at {settings.address}"
    for pattern, fields in _HINTS:
        if re.search(pattern, reason):
            named = " and ".join(map(settings.names_of, fields))
            return PostgresRefused(f"{where}: {reason}; see {named}")
    if _TOO_MANY.search(reason):
        return PostgresUnavailable(
            f"{where} takes no further connection: {reason}; raise the CONNECTION LIMIT of the "
            "exporter's role or database, or max_connections"
        )
    return PostgresUnavailable(f"{where} cannot be reached: {reason}")


def read_error(settings: PostgresSettings, error: psycopg.Error, limit_ms: int) -> StoreUnavailable:
    """Returns the error to raise if a statement failed whose time limit is `limit_ms`."""
    where = f"PostgreSQL at {settings.address}"
    if isinstance(error, errors.QueryCanceled):
        return TooSlow(f"{where} answers too slowly: a statement took over {limit_ms} ms")
    if isinstance(error, errors.LockNotAvailable):
        return TableLocked(
            f"{where}: a table is locked by another session, as by ALTER TABLE or VACUUM FULL; see "
            "pg_locks"
        )
    if isinstance(error, errors.SerializationFailure):
        # In a transaction that only reads, this error has no other cause.
        return ReplayConflict(
            f"{where} is a standby that ends our reads: {reason_of(error)}; see "
            "hot_standby_feedback and max_standby_streaming_delay there"
        )
    if isinstance(error, errors.FeatureNotSupported | errors.ObjectNotInPrerequisiteState):
        return Unsupported(f"{where} cannot be read: {reason_of(error)}")
    if isinstance(error, errors.InsufficientPrivilege):
        return PostgresRefused(
            f"{where} does not let us read: {reason_of(error)}; see SECURITY.md for the rights "
            "that are needed"
        )
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return PostgresRefused(
            f"{where}: {reason_of(error)}; see {settings.names_of('schema_name')}"
        )
    if isinstance(error, _NOT_OF_BULLMQ):
        return InvalidReply(f"{where}: its tables are not those of BullMQ 6: {reason_of(error)}")
    return PostgresUnavailable(f"{where} cannot be read: {reason_of(error)}")

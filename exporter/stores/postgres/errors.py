"""Why PostgreSQL could not be read, in one line and without secrets."""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from exporter.queues.errors import StoreInvalidReply, StoreRefused, StoreUnavailable
from exporter.settings import PostgresSettings

# How much of a server's text is repeated.
MAX_REASON = 200

# What libpq and psycopg write in front of the reason why a connection failed.
_PREAMBLE = re.compile(
    r"^(connection failed: )?(connection to server (at|on socket) .*? failed: )?(FATAL:\s+)?"
)


class PostgresUnavailable(StoreUnavailable):
    """PostgreSQL did not answer."""

    public = "PostgreSQL cannot be reached"


class PostgresRefused(PostgresUnavailable, StoreRefused):
    """PostgreSQL answered, and will not do it: wrong credentials, a missing right or schema."""

    public = "PostgreSQL refuses to be read"


class TooSlow(PostgresUnavailable):
    """A statement took longer than it may, and PostgreSQL ended it."""

    public = "PostgreSQL answers too slowly"


class TableLocked(PostgresUnavailable):
    """Another session has locked a table, and kept it for longer than a statement may wait."""

    public = "PostgreSQL answers too slowly: a table is locked"


class ReplayConflict(PostgresUnavailable):
    """A standby ended a read because it was in the way of what the primary had done."""


class Unsupported(PostgresUnavailable):
    """This server has no such function, as those that keep no log of writes as PostgreSQL does."""


class NoConnection(PostgresUnavailable):
    """All connections were in use by other reads."""

    public = "Too many requests at the same time; try again in a few seconds"


class InvalidReply(PostgresUnavailable, StoreInvalidReply):
    """PostgreSQL answered with something else than what was asked for."""

    public = "PostgreSQL sent an invalid reply"


def reason_of(error: Exception) -> str:
    """What the server or the driver says, in one line."""
    diagnosis = error.diag.message_primary if isinstance(error, psycopg.Error) else None
    lines = (diagnosis or str(error) or type(error).__name__).strip().splitlines()
    return _PREAMBLE.sub("", lines[0] if lines else "")[:MAX_REASON]


# What the server or libpq says (in English: other languages are repeated without a hint), and the
# settings to look at.
_HINTS = (
    (r"password authentication failed|no password supplied", ("user", "password")),
    (r"role .* does not exist|role .* is not permitted to log in", ("user",)),
    (r"database .* does not exist|permission denied for database", ("database",)),
    (
        r"server does not support SSL|SSL (error|connection)|certificate|no pg_hba\.conf entry",
        ("tls",),
    ),
)
# The limits of a role or a database, those of the server, and pgbouncer's.
_TOO_MANY = re.compile(
    r"too many (connections|clients)|connection slots are reserved|no more connections allowed"
)


# What other tables than BullMQ's lead to.
_NOT_OF_BULLMQ = (
    *(errors.UndefinedColumn, errors.UndefinedObject, errors.UndefinedFunction),
    *(errors.DatatypeMismatch, errors.WrongObjectType, errors.DataError),
)


def connection_error(settings: PostgresSettings, error: Exception) -> PostgresUnavailable:
    """What to raise where no connection can be made."""
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
    """What to raise where a statement failed, which may take `limit_ms`."""
    where = f"PostgreSQL at {settings.address}"
    if isinstance(error, errors.QueryCanceled):
        return TooSlow(f"{where} answers too slowly: a statement took over {limit_ms} ms")
    if isinstance(error, errors.LockNotAvailable):
        return TableLocked(
            f"{where}: a table is locked by another session, as by ALTER TABLE or VACUUM FULL; see "
            "pg_locks"
        )
    if isinstance(error, errors.SerializationFailure):
        # In a transaction that only reads there is no other reason for it.
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

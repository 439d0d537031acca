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
# setting to look at.
_HINTS = (
    (r"password authentication failed|no password supplied|role .* does not exist", "user"),
    (r"database .* does not exist|permission denied for database", "database"),
    (
        r"server does not support SSL|SSL (error|connection)|certificate|no pg_hba\.conf entry",
        "tls",
    ),
)


def connection_error(settings: PostgresSettings, error: Exception) -> PostgresUnavailable:
    """What to raise where no connection can be made."""
    reason = reason_of(error)
    for pattern, field in _HINTS:
        if re.search(pattern, reason):
            return PostgresRefused(
                f"PostgreSQL at {settings.address}: {reason}; see {settings.names_of(field)}"
            )
    return PostgresUnavailable(f"PostgreSQL at {settings.address} cannot be reached: {reason}")


def read_error(settings: PostgresSettings, error: psycopg.Error, limit_ms: int) -> StoreUnavailable:
    """What to raise where a statement failed, which may take `limit_ms`."""
    where = f"PostgreSQL at {settings.address}"
    if isinstance(error, errors.QueryCanceled):
        return TooSlow(f"{where} answers too slowly: a statement took over {limit_ms} ms")
    if isinstance(error, errors.InsufficientPrivilege):
        return PostgresRefused(
            f"{where} does not let us read: {reason_of(error)}; see SECURITY.md for the rights "
            "that are needed"
        )
    if isinstance(error, errors.UndefinedTable | errors.InvalidSchemaName):
        return PostgresRefused(
            f"{where}: {reason_of(error)}; see {settings.names_of('schema_name')}"
        )
    if isinstance(error, errors.UndefinedColumn | errors.UndefinedObject | errors.DataError):
        return InvalidReply(f"{where}: its tables are not those of BullMQ 6: {reason_of(error)}")
    return PostgresUnavailable(f"{where} cannot be read: {reason_of(error)}")

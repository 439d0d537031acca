"""Whether BullMQ's tables are there, may be read, and have a known form."""

from __future__ import annotations

import time

from exporter.queues.remark import MAX_NAMES, listed
from exporter.stores.postgres.client import PostgresReader, Row
from exporter.stores.postgres.errors import PostgresRefused
from exporter.stores.postgres.statements import load_statement

# BullMQ's major version whose tables are known. A schema of a later migration states in
# `min_client_version` the first client version that understands it (migrator.js of 6.7.0).
KNOWN_MAJOR = 6
MIN_SERVER = 130_000  # 13, as BullMQ requires
# The tables that are read.
TABLES = (
    "job",
    "job_log",
    "job_dependency",
    "event",
    "meta",
    "rate_limit",
    "scheduler",
    "migration",
)
# How long a successful check of the schema is valid.
TTL_SECONDS = 60.0

RIGHTS, VERSION = load_statement("rights.sql"), load_statement("version.sql")


class Schema:
    """Checks the schema before it is read, and again every minute."""

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._good_until = 0.0
        self.is_in_standby = False  # at the last check

    async def check(self) -> None:
        """Raises PostgresRefused, with what to do, if BullMQ's tables cannot be read."""
        now = time.monotonic()
        if now < self._good_until:
            return
        settings = self._reader.settings
        name = settings.schema_name
        row = await self._read_rights()
        database, server, exists, may_use, missing, unreadable, others, self.is_in_standby = row
        where = f"database {database} of PostgreSQL at {settings.address}"
        if server < MIN_SERVER:
            raise PostgresRefused(f"{where}: BullMQ needs PostgreSQL 13 or later")
        if exists and not may_use:
            raise PostgresRefused(
                f"{where}: schema {name} may not be used; GRANT USAGE ON SCHEMA {name} to the "
                "exporter's role, see SECURITY.md"
            )
        if missing:
            what = f"schema {name} has no table {missing[0]}" if exists else f"no schema {name}"
            see = "has the application run BullMQ's migrations?"
            if others:
                see = f"BullMQ's tables are in schema {listed(others)}"
            raise PostgresRefused(
                f"{where}: {what}; {see}; see {settings.names_of('schema_name')} and "
                f"{settings.names_of('database')}"
            )
        if unreadable:
            raise PostgresRefused(
                f"{where}: table {unreadable[0]} of schema {name} may not be read; GRANT SELECT ON "
                f"ALL TABLES IN SCHEMA {name} to the exporter's role, see SECURITY.md"
            )
        [(version, needed)] = await self._reader.read(VERSION)
        if version is None:
            raise PostgresRefused(f"{where}: no migration of BullMQ has run in schema {name}")
        if needed is not None and needed > KNOWN_MAJOR:
            raise PostgresRefused(
                f"{where}: schema {name} (migration {version}) is for BullMQ {needed} and later, "
                f"this exporter knows {KNOWN_MAJOR}; update the exporter"
            )
        self._good_until = now + TTL_SECONDS

    async def others(self) -> list[str]:
        """Other schemas of the database with BullMQ's tables. Raises PostgresUnavailable."""
        *_, others, _ = await self._read_rights()
        return list(others)

    async def _read_rights(self) -> Row:
        [row] = await self._reader.read(
            RIGHTS,
            tables=[*TABLES],
            names=MAX_NAMES + 1,
            schema=self._reader.settings.schema_name,
        )
        return row

    def forget(self) -> None:
        """Check the schema again before the next read."""
        self._good_until = 0.0

"""The SQL statements of this package, a file for each in `sql`."""

from __future__ import annotations

from importlib import resources

from psycopg import sql


def load_statement(name: str) -> sql.SQL:
    """A statement, whose values stand in it as `%(name)s`."""
    file = resources.files("exporter.stores.postgres").joinpath("sql", name)
    return sql.SQL(file.read_text("utf-8"))

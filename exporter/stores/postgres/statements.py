"""The SQL statements of this package, each in its own file in `sql`."""

from __future__ import annotations

from importlib import resources

from psycopg import sql


def load_statement(name: str) -> sql.SQL:
    """Returns a statement, which refers to its values as `%(name)s`."""
    file = resources.files("exporter.stores.postgres").joinpath("sql", name)
    return sql.SQL(file.read_text("utf-8"))

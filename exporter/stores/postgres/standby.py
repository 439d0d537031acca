"""Checks whether a standby is up to date, so that old data is not exposed as current."""

from __future__ import annotations

import time

from exporter.stores.postgres.client import PostgresReader
from exporter.stores.postgres.errors import PostgresUnavailable, Unsupported
from exporter.stores.postgres.statements import load_statement

STANDBY = load_statement("standby.sql")

# A standby that has been behind for longer is not read. By default, PostgreSQL lets reads delay the
# replay of the primary's changes for 30 s (max_standby_streaming_delay).
MAX_LAG_SECONDS = 60.0


class Standby:
    """Tracks how far a standby is behind, from poll to poll.

    The time of the last commit that it has replayed shows nothing, because a primary may be idle
    for hours. What counts is for how long something that it has received is not replayed, or for
    how long it has had no connection to the primary. Without streaming replication, for example if
    it is fed from an archive or shares the primary's storage, neither can be known, and it is read
    as it is.
    """

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._not_replayed: tuple[float, int] | None = None  # since when, and up to which position
        self._disconnected_since: float | None = None
        self._is_supported = True

    async def check(self) -> None:
        """Raises PostgresUnavailable if the standby has been behind for too long."""
        if not self._is_supported:
            return
        try:
            [(is_standby, is_connected, received, replayed)] = await self._reader.read(STANDBY)
        except Unsupported:
            # Amazon Aurora refuses these functions; its replicas read the primary's storage.
            self._is_supported = False
            return
        now = time.monotonic()
        if not is_standby or received is None or replayed is None:
            self._not_replayed = self._disconnected_since = None
            return
        where = f"PostgreSQL at {self._reader.settings.address} is a standby that"
        if is_connected:
            self._disconnected_since = None
        elif self._disconnected_since is None:
            self._disconnected_since = now
        elif now - self._disconnected_since > MAX_LAG_SECONDS:
            raise PostgresUnavailable(
                f"{where} has lost its connection to the primary: what it holds may be old; see "
                "primary_conninfo there"
            )
        if self._not_replayed is None or replayed >= self._not_replayed[1]:
            self._not_replayed = (now, received) if replayed < received else None
        elif now - self._not_replayed[0] > MAX_LAG_SECONDS:
            raise PostgresUnavailable(
                f"{where} does not replay what it has received: what it holds is old; see "
                "pg_get_wal_replay_pause_state() and max_standby_streaming_delay there"
            )

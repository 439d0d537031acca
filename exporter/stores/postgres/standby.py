"""Whether a standby that is read is up to date: what it holds must not be taken for what is."""

from __future__ import annotations

import time

from exporter.stores.postgres.client import PostgresReader
from exporter.stores.postgres.errors import PostgresUnavailable, Unsupported
from exporter.stores.postgres.statements import load_statement

STANDBY = load_statement("standby.sql")

# A standby that has been behind for longer is not read. PostgreSQL lets reads hold up what the
# primary has done for 30 s (max_standby_streaming_delay).
MAX_LAG_SECONDS = 60.0


class Standby:
    """Follows how far a standby is, from poll to poll.

    The time of the last commit that it has replayed says nothing: a primary may rest for hours. So
    what counts is for how long something that it has received is not replayed, or for how long it
    has had no connection to the primary. Without replication by streaming, as where it is fed from
    an archive or by a storage that is shared, neither can be known, and it is read as it is.
    """

    def __init__(self, reader: PostgresReader) -> None:
        self._reader = reader
        self._not_replayed: tuple[float, int] | None = None  # since when, and up to where
        self._disconnected_since: float | None = None
        self._is_supported = True

    async def check(self) -> None:
        """Raises PostgresUnavailable if it is behind for too long."""
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

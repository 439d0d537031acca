"""Where queues are kept: a package for each kind of store, and what all of them have in common."""

from __future__ import annotations

from exporter.concurrency.request_priority import RequestPriority
from exporter.deadline import Deadline
from exporter.queues.redact import Redact, unredacted
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import Settings
from exporter.stores.base import Store
from exporter.stores.redis_store import RedisStore


def open_store(
    settings: Settings,
    watched: WatchedQueues,
    request_priority: RequestPriority,
    *,
    deadline: Deadline | None = None,
    redact: Redact = unredacted,
) -> Store:
    """The store of a target, by its settings. Nothing is connected before the first read.

    `redact` hides in reasons of failures what the settings name.
    """
    if settings.in_postgres:
        # An extra brings its driver.
        from exporter.stores.postgres.store import PostgresStore  # noqa: PLC0415

        return PostgresStore(settings, watched, request_priority, deadline=deadline, redact=redact)
    return RedisStore(settings, watched, request_priority, deadline=deadline, redact=redact)

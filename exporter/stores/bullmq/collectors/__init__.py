"""Slow reads: what is read less often than counts and ages, a collector for each.

To add one: a module here with a class as stores.base.Collector describes, a field of
snapshot.QueueFacts, and a line in `all_collectors`.
"""

from __future__ import annotations

from exporter.concurrency.request_priority import RequestPriority
from exporter.queues.worker_clock import CompareClock
from exporter.settings import Settings
from exporter.stores.base import Collector
from exporter.stores.bullmq.bull_queues import BullQueues
from exporter.stores.bullmq.collectors.missing_jobs import MissingJobs
from exporter.stores.bullmq.collectors.retention import Retention
from exporter.stores.bullmq.collectors.schedulers import Schedulers
from exporter.stores.bullmq.collectors.workers import Workers
from exporter.stores.redis.client import RedisReader


def all_collectors(
    redis: RedisReader,
    settings: Settings,
    request_priority: RequestPriority,
    compare_clock: CompareClock,
    bull_queues: BullQueues,
) -> list[Collector]:
    """The collectors that these settings enable."""
    enabled: list[Collector] = []
    if settings.workers_interval and not settings.redis.cluster:
        # In a cluster only one node is asked, and not all workers need be connected to it.
        enabled.append(Workers(redis, settings, request_priority, bull_queues))
    enabled.append(Retention(redis, settings, compare_clock))
    enabled.append(Schedulers(redis, settings))
    enabled.append(MissingJobs(redis, settings))
    return enabled

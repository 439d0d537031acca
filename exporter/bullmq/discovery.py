"""Which queues there are."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Sequence

from exporter.bullmq.connection import RedisReader
from exporter.bullmq.keys import Queue, meta_pattern, queue_of_meta_key
from exporter.bullmq.turns import Turns

log = logging.getLogger(__name__)

# About how many keys one SCAN call looks at: it holds Redis 7.0 for 0.3 ms.
SCAN_COUNT = 1000


async def discover(
    redis: RedisReader,
    prefixes: Sequence[str],
    *,
    limit: int,
    pace: float,
    turns: Turns,
    known: Iterable[Queue] = (),
) -> tuple[Queue, ...]:
    """Every queue whose `meta` key exists, at most `limit`, by a scan of all keys; sorted.

    Those that are `known` are the same objects: to compare them costs next to nothing.

    `pace` is how long to rest after each SCAN call, as a multiple of the time that the call took:
    it bounds what share of a large server's time the scan may take. Raises RedisUnavailable.
    """
    found: set[Queue] = set()
    by_key = {queue.meta_key: queue for queue in known}
    for prefix in prefixes:
        cursor = 0
        while True:
            began = time.monotonic()
            answer, keys = await redis.command(
                "SCAN", cursor, "MATCH", meta_pattern(prefix), "COUNT", SCAN_COUNT
            )
            for key in keys:
                queue = by_key.get(key) or queue_of_meta_key(prefix, key)
                if queue is not None:
                    found.add(queue)
            cursor = int(answer)
            if cursor == 0 or len(found) > limit:
                break
            await asyncio.sleep(pace * (time.monotonic() - began))
    shown: dict[tuple[str, str], Queue] = {}
    await turns.give_way()  # to sort 10,000 takes 5 ms
    for queue in sorted(found, key=lambda queue: queue.base):
        # Names that differ as bytes can be the same as text; of two series with the same labels
        # Prometheus keeps one, and does not say so.
        if shown.setdefault((queue.prefix, queue.name), queue) != queue:
            log.warning(
                "left out: a queue whose name shows like another's", extra={"queue": queue.name}
            )
    if len(shown) > limit:
        log.warning("left out: queues beyond max_queues", extra={"max_queues": limit})
    return tuple(shown.values())[:limit]

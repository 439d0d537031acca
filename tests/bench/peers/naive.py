"""The naive way: at each scrape a pipeline of nine commands a queue, and prometheus_client.

Usage: python naive.py REDIS_PORT QUEUES. Prints its own port.
"""

from __future__ import annotations

import asyncio
import sys

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from redis.asyncio import Redis
from serving import serve

LISTS = {"wait": "waiting", "active": "active", "paused": "paused"}
SETS = ("delayed", "prioritized", "waiting-children", "completed", "failed")


async def main(port: int, count: int) -> None:
    redis = Redis(port=port)
    registry = CollectorRegistry()
    jobs = Gauge("bullmq_job_count", "Jobs by state.", ["queue", "state"], registry=registry)
    paused = Gauge("bullmq_queue_paused", "Paused.", ["queue"], registry=registry)
    names = [f"queue-{number}" for number in range(count)]

    async def metrics(_: web.Request) -> web.Response:
        pipeline = redis.pipeline(transaction=False)
        for name in names:
            for key in LISTS:
                pipeline.llen(f"bull:{name}:{key}")
            for key in SETS:
                pipeline.zcard(f"bull:{name}:{key}")
            pipeline.hget(f"bull:{name}:meta", "paused")
        answers = iter(await pipeline.execute())
        for name in names:
            for state in (*LISTS.values(), *SETS):
                jobs.labels(name, state).set(next(answers))
            paused.labels(name).set(int(next(answers) or 0))
        return web.Response(body=generate_latest(registry), content_type="text/plain")

    await serve(metrics)


asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))

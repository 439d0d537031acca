"""What is read of jobs that move while they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from exporter.queues.queue import Queue
from exporter.settings import RedisSettings
from exporter.stores.bullmq.events import job_facts
from exporter.stores.redis.client import Command, RedisReader
from tests.support.servers import Server

QUEUE = Queue.named("bull", "ingestion")
KEY = "bull:ingestion:1"


class Overtaken(RedisReader):
    """Lets a worker move the job after the first commands, and after later ones as often as asked.

    Its answers are those that Redis gives where other clients' commands come between ours.
    """

    def __init__(self, client: redis.Redis, port: int, moves: int) -> None:
        super().__init__(RedisSettings(port=port), connections=1)
        self._client = client
        self.moves = moves

    async def pipeline(self, commands: Sequence[Command]) -> list[Any]:
        answers = []
        for command in commands:
            answers += await super().pipeline([command])
            if command[0] == b"HMGET" and self.moves:
                self.moves -= 1
                self._client.delete(f"{KEY}:lock")
                self._client.hincrby(KEY, "atm", 1)
        return answers


async def test_a_job_whose_attempt_ends_while_it_is_read_was_not_given_back(
    server: Server,
) -> None:
    with server.client() as client:
        for moves in range(job_facts.MAX_READS):
            # Its first attempt has failed, the second one is running.
            client.hset(KEY, mapping={"name": "import", "atm": 1, "ats": 2 + max(moves - 1, 0)})
            client.set(f"{KEY}:lock", "a-worker")
            reader = Overtaken(client, server.port, moves)
            facts = await job_facts.ask(reader, QUEUE, [b"1"], in_detail=[b"1"])
            assert facts[b"1"].every_start_failed, moves
            await reader.close()


async def test_a_job_that_never_rests_costs_a_bounded_number_of_reads(server: Server) -> None:
    with server.client() as client:
        client.hset(KEY, mapping={"name": "import", "atm": 1, "ats": 1})
        reader = Overtaken(client, server.port, 10_000)
        facts = await job_facts.ask(reader, QUEUE, [b"1"], in_detail=[b"1"])
        await reader.close()
    assert facts[b"1"].name == b"import"
    assert 10_000 - reader.moves == 1 + job_facts.MAX_READS

"""How many finished jobs an application keeps, as a collector of any store."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial

from exporter.concurrency.batches import batched
from exporter.concurrency.rounds import ReadInRounds
from exporter.queues.queue import Queue, State
from exporter.queues.snapshot import QueueReading
from exporter.settings import Settings

Ceilings = Mapping[State, int]


class RetentionReads(ReadInRounds[Ceilings], ABC):
    """The part of the collector that does not depend on the store: the limits of each queue by
    state are those configured, otherwise those of the newest finished job.

    BullMQ stores no retention for a queue; each job has its own in its options.
    """

    name = "retention"
    problem = "retention cannot be read"
    consequence = "bullmq_queue_retention_limit is absent and BullMQFailedSetFull cannot fire"

    batch_size: int  # queues that are read together

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings.discovery_interval)
        configured = settings.retention.model_dump(exclude_none=True)
        self._configured = {State(state): limit for state, limit in configured.items()}

    async def collect(
        self, readings: Sequence[QueueReading], *, seconds: float
    ) -> Mapping[Queue, Ceilings]:
        """The limits that are known after a round. Raises StoreUnavailable."""
        batches = partial(batched, size=self.batch_size)
        queues = [reading.queue for reading in readings]
        return await self._rounds.read(queues, batches, self._read_batch, seconds=seconds)

    @abstractmethod
    async def _read_batch(self, queues: Sequence[Queue]) -> Mapping[Queue, Ceilings]:
        """The limits of these queues."""

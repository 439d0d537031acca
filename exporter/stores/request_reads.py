"""The common part of requests in every store: which queues, and within which time and size."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager

from exporter.concurrency.supervision import Reasons
from exporter.queues.errors import StoreInvalidReply, StoreUnavailable
from exporter.queues.jobs import ReadLimits
from exporter.queues.queue import Queue
from exporter.queues.watched_queues import WatchedQueues
from exporter.settings import ApiSettings

# The time limit of one target's part of an API answer, in multiples of its timeout.
PART_TIMEOUTS = 2


# The limits of reading jobs that have just failed.
FAILED_LIMITS = ReadLimits(field_bytes=64 << 10, page_bytes=1 << 20)


def read_limits(api: ApiSettings) -> ReadLimits:
    """How much a request may read."""
    return ReadLimits(api.max_field_bytes, api.max_page_bytes, api.search_seconds)


class RequestReads(ABC):
    """The part of a `JobReader` that does not depend on the store.

    `address` is what people know the store by, `timeout` how long one of its calls may take
    (seconds), `unavailable` the error of its kind.
    """

    def __init__(
        self,
        watched: WatchedQueues,
        *,
        address: str,
        timeout: float,
        unavailable: type[StoreUnavailable],
    ) -> None:
        self._watched = watched
        self._address, self._part_timeout = address, PART_TIMEOUTS * timeout
        self._unavailable = unavailable
        self._reasons = Reasons("requests cannot be answered")

    @abstractmethod
    def _understanding(self) -> AbstractContextManager[None]:
        """Within it a reply that cannot be understood raises StoreInvalidReply."""

    def _forget(self) -> None:  # noqa: B027 - most remember nothing
        """Forget earlier replies, which may be as wrong as one that was invalid."""

    @contextmanager
    def understanding(self) -> Iterator[None]:
        """Like the store's `understanding`, and logs why."""
        try:
            with self._understanding():
                yield
        except StoreInvalidReply as error:
            self._forget()
            self._reasons.log(error)
            raise

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """A time limit for this target's part of an answer."""
        try:
            async with asyncio.timeout(self._part_timeout):
                with self.understanding():
                    yield
        except TimeoutError:
            raise self._unavailable(
                f"{self._address} answers too slowly: a request took over {self._part_timeout:g} s"
            ) from None

    def find_watched(self, name: str, prefix: str | None) -> list[Queue]:
        """The watched queues of this name, as it is shown; of all prefixes if that is None."""
        return self._watched.find(name, prefix)

    def jobs_of_key(self, key: bytes) -> list[tuple[Queue, bytes]]:
        """The watched queues, and ids in them, of which this may be a job's key."""
        return self._watched.jobs_of_key(key)

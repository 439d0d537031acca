"""What Redis does when its memory is full: BullMQ requires `noeviction`."""

from __future__ import annotations

import time
from typing import Any

from exporter.stores.redis.client import RedisReader, RedisRefused, RedisUnavailable

# Seconds until the policy is read again, and if the ACL user may not read it.
POLICY_TTL_SECONDS = 60.0
REFUSAL_TTL_SECONDS = 3600.0


class EvictionPolicy:
    """Redis's `maxmemory-policy`, if the ACL user may run INFO; BullMQ requires `noeviction`."""

    def __init__(self, redis: RedisReader) -> None:
        self._redis = redis
        self._policy: str | None = None
        self._due = 0.0

    async def read(self) -> str | None:
        """The policy; None if it may not be read. After a refusal it is rarely tried again."""
        now = time.monotonic()
        if now >= self._due:
            self._policy, self._due = None, now + POLICY_TTL_SECONDS
            try:
                answer = await self._redis.command("INFO", "memory")
            except RedisRefused:
                self._due = now + REFUSAL_TTL_SECONDS
            except RedisUnavailable:
                self._due = now
            else:
                self._policy = _policy_in(answer)
        return self._policy


def _policy_in(answer: Any) -> str | None:
    for line in answer.splitlines() if isinstance(answer, bytes) else ():
        name, _, value = line.partition(b":")
        if name == b"maxmemory_policy":
            return str(value.strip().decode("ascii", "replace"))[:40]
    return None

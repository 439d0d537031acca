"""A connection to Redis that is subscribed to what Bull publishes under some prefixes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from redis import exceptions

from exporter.queues.queue import Queue
from exporter.queues.remark import Remark
from exporter.settings import RedisSettings
from exporter.stores.bull.events.frames import ErrorReply, Frame, FrameParser, InvalidFrame, Text
from exporter.stores.redis.client import (
    InvalidReply,
    RedisReader,
    RedisRefused,
    RedisUnavailable,
    escaped_glob,
    packed,
)

# Bytes that are read at once: some 500 messages.
READ_BYTES = 1 << 16


def pattern_of(prefix: str) -> str:
    """Returns the pattern of all channels of a prefix. ACLs must name it literally: `&bull:*`."""
    return escaped_glob(prefix) + ":*"


class Message(NamedTuple):
    """A message that was published."""

    pattern: bytes
    channel: bytes
    payload: Text


class Subscription:
    """Hears what is published under the patterns, from `open` until an error.

    An error in any call closes it. The caller opens it again; what is published in between is lost.
    All calls raise RedisUnavailable.
    """

    def __init__(self, settings: RedisSettings, *, slot: int | None) -> None:
        self._redis = RedisReader(settings, connections=1, slot=slot)
        self._settings = settings
        self._connection: Any = None
        self._parser = FrameParser()
        self._heard: list[Message] = []
        self._pings: list[float] = []  # when the unanswered ones were sent
        self._received_at = 0.0  # monotonic, of the last bytes
        self.patterns: frozenset[str] = frozenset()
        # When (monotonic) the last message arrived, or the last answered ping was sent, if that is
        # later: everything that was published before has been heard.
        self.heard_until = 0.0
        self.answered = 0  # pings

    @property
    def is_open(self) -> bool:
        return self._connection is not None

    @property
    def unanswered(self) -> int:
        """The number of pings that are not answered yet."""
        return len(self._pings)

    async def open(self, patterns: Iterable[str]) -> None:
        """Subscribe; once this returns, everything that is published from then on is heard.

        If the subscription is already open, only new patterns are added.
        """
        wanted = frozenset(patterns) - self.patterns
        if not self.is_open:
            self._parser, self._heard, self._pings = FrameParser(), [], []
            self._connection = await self._redis.open_connection()
        try:
            async with asyncio.timeout(self._settings.timeout):
                await self._guarded(self._subscribe(sorted(wanted)))
        except TimeoutError as error:
            await self.close()
            raise self._redis.explained(error) from None
        except asyncio.CancelledError:
            await self.close()
            raise
        self.patterns |= wanted
        self.heard_until = time.monotonic()

    async def close(self) -> None:
        connection, self._connection, self.patterns = self._connection, None, frozenset()
        if connection is not None:
            await self._redis.close_connection(connection)

    async def read(self, seconds: float) -> list[Message]:
        """Returns the messages that have arrived, or that arrive within so many seconds."""
        if not self._heard:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._guarded(self._hear())
        # If much is published, the answer arrives only after many messages.
        silent_since = max([self._received_at, *self._pings[:1]])
        if self._pings and time.monotonic() - silent_since > self._settings.timeout:
            await self.close()
            raise RedisUnavailable(
                f"Redis at {self._settings.address} no longer answers on the connection that hears "
                "Bull's events"
            )
        heard, self._heard = self._heard, []
        return heard

    async def ping(self) -> None:
        """Send a ping: everything that is published until now arrives before its answer."""
        sent = time.monotonic()
        await self._guarded(self._send(("PING",)))
        self._pings.append(sent)

    async def _guarded(self, call: Any) -> Any:
        """Await the call; an error closes the connection."""
        try:
            return await call
        except RedisUnavailable:
            await self.close()
            raise
        except (exceptions.RedisError, OSError, EOFError) as error:
            await self.close()
            raise self._redis.explained(error) from None

    async def _send(self, command: tuple[str, ...]) -> None:
        await self._connection.send_packed_command([packed(command)], check_health=False)

    async def _receive(self) -> list[Frame]:
        piece = await self._connection._reader.read(READ_BYTES)
        if not piece:
            raise RedisUnavailable(
                f"Redis at {self._settings.address} has ended the connection that hears Bull's "
                "events"
            )
        self._received_at = time.monotonic()
        try:
            return self._parser.feed(piece)
        except InvalidFrame as error:
            raise InvalidReply(
                f"Redis at {self._settings.address} sent no message of a subscription ({error})"
            ) from None

    async def _subscribe(self, patterns: list[str]) -> None:
        await self._send(("PSUBSCRIBE", *patterns))
        left = len(patterns)
        while left:
            for frame in await self._receive():
                if isinstance(frame, ErrorReply):
                    raise RedisRefused(self._refused(patterns, frame.message))
                if frame[0].kept == b"psubscribe":
                    left -= 1
                else:
                    self._take(frame)

    def _refused(self, patterns: list[str], reply: str) -> str:
        user = self._settings.user or "default"
        channels = " ".join(f"&{pattern}" for pattern in patterns)
        return (
            f"Redis at {self._settings.address} does not let user {user!r} hear what Bull "
            f"publishes ({reply[:200]}); allow it: ACL SETUSER {user} +psubscribe {channels}"
        )

    async def _hear(self) -> None:
        for frame in await self._receive():
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, ErrorReply):
            raise RedisRefused(f"Redis at {self._settings.address}: {frame.message[:200]}")
        if len(frame) == 4 and frame[0].kept == b"pmessage":
            self.heard_until = time.monotonic()
            # A channel name that is too long to be kept belongs to no watched queue.
            if frame[2].is_whole:
                self._heard.append(Message(frame[1].kept, frame[2].kept, frame[3]))
        elif frame[0].kept.lower() == b"pong" and self._pings:
            self.heard_until = max(self.heard_until, self._pings.pop(0))
            self.answered += 1


async def check_hearing(
    settings: RedisSettings, queues: Iterable[Queue], *, slot: int | None
) -> Remark | None:
    """Returns why the events of these queues cannot be heard; None if they can."""
    subscription = Subscription(settings, slot=slot)
    try:
        await subscription.open({pattern_of(queue.prefix) for queue in queues})
    except RedisUnavailable as error:
        return Remark(
            logging.WARNING,
            "events of Bull's queues cannot be heard",
            f"{error}; their counters and durations are absent",
        )
    finally:
        await subscription.close()
    return None

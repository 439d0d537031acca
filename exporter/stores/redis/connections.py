"""Connections to Redis: over TCP, TLS or a Unix socket; with Sentinels or a cluster.

Everything that is used of redis-py beyond its documented interface is named in
tests/unit/test_redis_py.py: a version without it fails there, and not during an outage.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import hiredis
from redis import exceptions
from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from exporter.settings import Address, RedisSettings
from exporter.stores.redis.credentials import Credentials


def pool(
    settings: RedisSettings, credentials: Credentials, *, connections: int, slot: int | None
) -> ConnectionPool:
    """A pool of at most `connections` connections as the settings describe them: one more is an
    error.

    In a cluster all of them go to the node that has the `slot`.
    """
    kind, options = _kind(settings, credentials, slot)
    return ConnectionPool(
        max_connections=connections,
        connection_class=kind,
        db=settings.db,
        credential_provider=credentials if settings.password else None,
        **options,
        **_COMMON,
    )


# Options that RedisReader's calls rely on, for Redis and for Sentinels.
_COMMON: Mapping[str, Any] = {
    # Connections begin like this; _Resp3Handshake switches to RESP3.
    "protocol": 2,
    # RedisReader limits every call. With limits of its own redis-py sends through asyncio.wait_for,
    # which in Python 3.11 can lose a cancellation: 8 of 120 runs that got SIGTERM at that moment
    # never ended.
    "socket_timeout": None,
    "socket_connect_timeout": None,
    # If the server has closed a pooled connection in the meantime, there is one more try instead of
    # an error; a timeout is not retried.
    "retry": Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
    # CLIENT SETINFO would be a command that an ACL of reads alone refuses.
    "driver_info": None,
}


def _kind(
    settings: RedisSettings, credentials: Credentials, slot: int | None
) -> tuple[type[Any], dict[str, Any]]:
    """A class of connections, and the arguments for its instances."""
    if settings.socket is not None:
        return _SocketConnection, {"path": str(settings.socket)}
    base: type[Connection] = _TcpConnection
    resolved: type[Connection] = _ResolvedTcpConnection
    options: dict[str, Any] = {}
    if settings.tls:
        base, resolved = _TlsConnection, _ResolvedTlsConnection
        options = {"credentials": credentials, "server_name": settings.tls_server_name}
    if settings.sentinels or slot is not None:
        resolver = (
            _ClusterResolver(settings, base, options, credentials, slot)
            if slot is not None
            else _SentinelResolver(settings, base, options)
        )
        return resolved, options | {"resolver": resolver}
    return base, options | {"host": settings.host, "port": settings.port}


# The beginnings of lengths of lists that no reply has, because hiredis allocates the whole list at
# once, and freeing 2^31 empty items blocks the process for 9 s; and of pushes and attributes
# (RESP3), which no server sends unasked: hiredis returns them among the replies, so each reply
# would be taken for that to another command.
_REFUSED = re.compile(rb"[*~]\d{7}|[>|]\d")
_REFUSED_LINE = re.compile(rb"\n(?:[*~]\d{7}|[>|]\d)")
# The same where the rest of it has not arrived yet.
_LENGTH_BEGINS = re.compile(rb"(?:[*~]\d{0,6}|[>|])\Z")

# Maximum size in bytes of the replies to commands that are sent together.
MAX_REPLIES_BYTES = 64 << 20


class ConnectionCut(exceptions.ConnectionError):
    """The server closed the connection before it replied."""


class _ReplyParser:
    """Parses a given number of replies, which arrive piece by piece. Raises InvalidResponse."""

    def __init__(
        self,
        number: int,
        error: Callable[[str], Exception],
        max_bytes: int = MAX_REPLIES_BYTES,
    ) -> None:
        self._number, self._max_bytes = number, max_bytes
        self._missing = object()
        self._reader = hiredis.Reader(
            protocolError=exceptions.InvalidResponse,
            replyError=error,
            notEnoughData=self._missing,
        )
        self._size = 0
        self._begins_line = True  # whether a piece begins where a line does
        self._held = b""  # the beginning of a length
        self.answers: list[Any] = []

    @property
    def is_complete(self) -> bool:
        return len(self.answers) >= self._number

    def feed(self, piece: bytes) -> None:
        self._size += len(piece)
        piece, fed = self._held + piece, 0
        if self._begins_line and _REFUSED.match(piece):
            self._refuse_at_item()
        for found in _REFUSED_LINE.finditer(piece):
            fed = self._parse(piece, fed, found.start() + 1)
            self._refuse_at_item()
        end = self._end(piece)
        self._parse(piece, fed, end)
        self._begins_line = end < len(piece) or piece.endswith(b"\n")
        self._held = piece[end:]
        if len(self.answers) > self._number or (self.is_complete and self._has_more):
            raise exceptions.InvalidResponse("more replies than commands")
        if self._size > self._max_bytes:
            raise exceptions.InvalidResponse(f"more than {self._max_bytes >> 20} MiB")

    def _end(self, piece: bytes) -> int:
        """The position of the beginning of a length that may be too large, or the end."""
        tail = max(0, len(piece) - 8)
        found = _LENGTH_BEGINS.search(piece, tail)
        if found is None:
            return len(piece)
        at = found.start()
        begins = self._begins_line if at == 0 else piece[at - 1] == ord("\n")
        return at if begins else len(piece)

    def _parse(self, piece: bytes, start: int, end: int) -> int:
        self._reader.feed(piece[start:end] if start or end < len(piece) else piece)
        self.answers.extend(iter(self._reader.gets, self._missing))
        return end

    @property
    def _has_more(self) -> bool:
        return bool(self._held) or self._reader.has_data()

    def _refuse_at_item(self) -> None:
        # Within a text it is not a length, and the text is still in the buffer.
        if not self._reader.has_data():
            raise exceptions.InvalidResponse("a list is too long, or no reply")


class _Resp3Handshake:
    """Switches to RESP3 if the server supports it, and then knows the server's role.

    redis-py's own way to RESP3 fails on servers without HELLO (before Redis 6.0, some proxies), and
    does not fall back. hiredis reads both.
    """

    role: bytes | None = None  # `master`, `replica`, `sentinel`; None if the server has no HELLO

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        try:
            await super().on_connect_check_health(check_health)  # type: ignore[misc]
            await self._switch_to_resp3()
        except BaseException:
            # redis-py keeps a connection whose handshake was cancelled. Its late replies would be
            # taken for those to the next commands.
            await self.disconnect(nowait=True)  # type: ignore[attr-defined]
            raise

    async def _switch_to_resp3(self) -> None:
        self.role = None
        await self.send_command("HELLO", 3, check_health=False)  # type: ignore[attr-defined]
        # Other errors than those of credentials leave the connection as it was.
        with suppress(exceptions.ResponseError):
            reply = await self.read_response()
            self.role = reply.get(b"role")

    async def read_response(self, *_: Any, **__: Any) -> Any:
        """Read one reply to a command that redis-py itself sends; its own parser bounds none."""
        (answer,) = await self._receive(1)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def exchange(
        self,
        commands: bytes,
        number: int,
        arrived: Callable[[bytes], None] | None = None,
        max_bytes: int = MAX_REPLIES_BYTES,
    ) -> list[Any]:
        """The answers to so many packed commands; one that failed is the exception itself.

        `arrived` is called with each piece of them as it arrives, and may raise to stop.

        Raises errors that concern all of them (not logged in, loading, moved), and ConnectionCut if
        the server ends the connection. redis-py uses a coroutine for each answer, which costs ten
        times as much as everything here.
        """
        await self.send_packed_command([commands], check_health=False)  # type: ignore[attr-defined]
        return await self._receive(number, arrived, max_bytes)

    async def _receive(
        self,
        number: int,
        arrived: Callable[[bytes], None] | None = None,
        max_bytes: int = MAX_REPLIES_BYTES,
    ) -> list[Any]:
        general = list[Exception]()

        def error(message: str) -> Exception:
            made: Exception = self._parser.parse_error(message)  # type: ignore[attr-defined]
            if isinstance(made, exceptions.ConnectionError | exceptions.MovedError):
                general.append(made)
            return made

        replies = _ReplyParser(number, error, max_bytes)
        while not replies.is_complete:
            received = await self._reader.read(1 << 16)  # type: ignore[attr-defined]
            if not received:
                raise ConnectionCut("the server has closed the connection")
            if arrived is not None:
                arrived(received)
            replies.feed(received)
        if general:
            raise general[0]
        return replies.answers


class _TcpConnection(_Resp3Handshake, Connection):
    pass


class _SocketConnection(_Resp3Handshake, UnixDomainSocketConnection):
    pass


class _TlsConnection(_Resp3Handshake, Connection):
    """A TLS connection; the server's certificate may be for a name other than the host.

    redis-py's own class reads certificate files on the event loop, and only once.
    """

    def __init__(
        self, *, credentials: Credentials, server_name: str | None, **options: Any
    ) -> None:
        self._credentials, self._server_name = credentials, server_name
        self._context: ssl.SSLContext | None = None
        super().__init__(**options)

    async def _connect(self) -> None:
        self._context = await self._credentials.tls_context()
        await super()._connect()  # type: ignore[no-untyped-call]

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = {**super()._connection_arguments(), "ssl": self._context}
        if self._server_name is not None:
            arguments["server_hostname"] = self._server_name
        return arguments


class _ResolvedConnection(_Resp3Handshake):
    """Resolves its address before it connects: after a failover it is another one.

    Sentinel closes the connections of a master that it demotes; a cluster node that lost a slot
    says so (MOVED), and RedisReader reconnects. One of several Sentinels may name the old master
    for some more seconds: now a replica, which could be read forever, and may be behind.
    """

    def __init__(self, *, resolver: _AddressResolver, **options: Any) -> None:
        self._resolver = resolver
        super().__init__(**options)

    async def _connect(self) -> None:
        self.host, self.port = await self._resolver.address()
        await super()._connect()  # type: ignore[misc]

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        await super().on_connect_check_health(check_health)
        if self.role not in (None, b"master"):
            raise exceptions.ConnectionError(f"{self.host}:{self.port} is no longer a master")


class _ResolvedTcpConnection(_ResolvedConnection, _TcpConnection):
    pass


class _ResolvedTlsConnection(_ResolvedConnection, _TlsConnection):
    pass


class _AddressResolver(ABC):
    """Asks servers where to connect: all of them at the same time, because some may be gone."""

    def __init__(
        self,
        settings: RedisSettings,
        kind: type[Connection],
        options: Mapping[str, Any],
    ) -> None:
        self._settings, self._kind, self._options = settings, kind, options

    @property
    @abstractmethod
    def addresses(self) -> Sequence[Address]:
        """The servers to ask."""

    @property
    @abstractmethod
    def unknown(self) -> str:
        """The error if none of them knows it."""

    @abstractmethod
    async def resolve(self, server: Address) -> Address | None:
        """The address according to this server; None if it does not know it."""

    async def address(self) -> Address:
        """The address according to the first server that knows it."""
        asking = [asyncio.create_task(self.resolve(each)) for each in self.addresses]
        problem: Exception | None = None
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    if found := await answer:
                        return found
                except (exceptions.RedisError, OSError) as error:
                    problem = error
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        raise problem or exceptions.ConnectionError(self.unknown)

    async def _ask(self, server: Address, *command: str, **credentials: Any) -> Any:
        client = Redis.from_pool(
            ConnectionPool(
                max_connections=1,
                connection_class=self._kind,
                host=server.host,
                port=server.port,
                **credentials,
                **self._options,
                **_COMMON,
            )
        )
        try:
            return await client.execute_command(*command)
        finally:
            await client.aclose()


class _SentinelResolver(_AddressResolver):
    """Asks Sentinels for the master."""

    @property
    def addresses(self) -> Sequence[Address]:
        return self._settings.sentinels

    @property
    def unknown(self) -> str:
        return f"no Sentinel knows a master {self._settings.sentinel_master!r}"

    async def resolve(self, server: Address) -> Address | None:
        password = self._settings.sentinel_password
        found = await self._ask(
            server,
            *("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._settings.sentinel_master or ""),
            username=self._settings.sentinel_user,
            password=password.get_secret_value() if password else None,
        )
        return Address(_text(found[0]), int(found[1])) if found else None


class _ClusterResolver(_AddressResolver):
    """Asks the nodes of a cluster, and those that they name, which of them has a slot."""

    def __init__(
        self,
        settings: RedisSettings,
        kind: type[Connection],
        options: Mapping[str, Any],
        credentials: Credentials,
        slot: int,
    ) -> None:
        super().__init__(settings, kind, options)
        self._credentials, self._slot = credentials, slot
        self._nodes = {Address(settings.host, settings.port)}

    @property
    def addresses(self) -> Sequence[Address]:
        return tuple(self._nodes)

    @property
    def unknown(self) -> str:
        return f"no node of the cluster has slot {self._slot}, which the prefix belongs to"

    async def resolve(self, server: Address) -> Address | None:
        provider = self._credentials if self._settings.password else None
        slots = await self._ask(server, "CLUSTER", "SLOTS", credential_provider=provider)
        owner = None
        for first, last, *nodes in slots:
            # A node that does not know its own address sends none: then it is the one that was
            # asked.
            known = [
                Address(_text(host or b"") or server.host, int(port))
                for host, port, *_ in nodes  # the primary first
            ]
            self._nodes.update(known)
            if int(first) <= self._slot <= int(last):
                owner = known[0]
        return owner


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

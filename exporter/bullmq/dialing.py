"""How a connection to Redis is made: over TCP, TLS or a Unix socket, or to whom Sentinel names."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection
from redis.asyncio.connection import Connection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from exporter.settings import Address, RedisSettings


def pool(settings: RedisSettings, *, connections: int) -> BlockingConnectionPool:
    """Connections as the settings describe them, at most so many; a further call waits its turn."""
    kind, options = _kind(settings)
    return BlockingConnectionPool(
        max_connections=connections,
        timeout=settings.timeout,
        connection_class=kind,
        db=settings.db,
        credential_provider=_Credentials(settings) if settings.password else None,
        **options,
        **_COMMON,
    )


# What the calls of RedisReader rely on, for Redis and for Sentinels alike.
_COMMON: Mapping[str, Any] = {
    "protocol": 2,
    # RedisReader limits every call. With limits of its own redis-py sends through
    # asyncio.wait_for, which in Python 3.11 can lose a cancellation: 8 of 120 runs that got
    # SIGTERM just then never ended.
    "socket_timeout": None,
    "socket_connect_timeout": None,
    # A pooled connection that the server has closed in the meantime costs one more try, not an
    # error; a time-out is not tried again.
    "retry": Retry(NoBackoff(), 1, supported_errors=(exceptions.ConnectionError,)),
    # CLIENT SETINFO would be a command that an ACL of reads alone refuses.
    "driver_info": None,
}


class _Credentials(CredentialProvider):
    """User and password; one from a file is read anew for each connection: it may change."""

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.password
        self._user = settings.user
        self._password = settings.password.get_secret_value()
        self._file = settings.password_file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        if self._file is not None:
            self._password = _line_of(self._file) or self._password
        return (self._user, self._password) if self._user else (self._password,)


def _line_of(file: Path) -> str | None:
    # While it is being replaced it may be away or empty: then what was in it last is tried.
    try:
        return file.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        return None


def _kind(settings: RedisSettings) -> tuple[type[Any], dict[str, Any]]:
    """A class of redis-py's connections, and what its instances are made with."""
    if settings.socket is not None:
        return UnixDomainSocketConnection, {"path": str(settings.socket)}
    base, options = (_TlsConnection, _tls(settings)) if settings.tls else (Connection, {})
    if settings.sentinels:
        followed = type("_Followed", (_FollowingMaster, base), {})
        return followed, options | {"settings": settings, "ask_with": (base, options)}
    return base, options | {"host": settings.host, "port": settings.port}


def _tls(settings: RedisSettings) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": ssl.CERT_REQUIRED if settings.tls_verify else ssl.CERT_NONE,
        "ssl_check_hostname": settings.tls_verify,
        "ssl_ca_certs": str(settings.tls_ca) if settings.tls_ca else None,
        "ssl_certfile": str(settings.tls_cert) if settings.tls_cert else None,
        "ssl_keyfile": str(settings.tls_key) if settings.tls_key else None,
        "server_name": settings.tls_server_name,
    }


class _TlsConnection(SSLConnection):
    """With the name that the server's certificate shall have, where it is not that of the host."""

    def __init__(self, *, server_name: str | None, **options: Any) -> None:
        self._server_name = server_name
        super().__init__(**options)

    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        if self._server_name is not None:
            arguments["server_hostname"] = self._server_name
        return arguments


class _FollowingMaster:
    """Asks for the master before each connection: after a failover it is another one.

    Sentinel ends the connections of a master that it demotes.
    """

    def __init__(
        self,
        *,
        settings: RedisSettings,
        ask_with: tuple[type[Connection], dict[str, Any]],
        **options: Any,
    ) -> None:
        self._settings, self._ask_with = settings, ask_with
        super().__init__(**options)

    async def _connect(self) -> None:
        self.host, self.port = await self._master()
        await super()._connect()  # type: ignore[misc]

    async def _master(self) -> tuple[str, int]:
        """What the first Sentinel to answer says; all are asked at once, since some may be gone."""
        asking = [asyncio.create_task(self._ask(each)) for each in self._settings.sentinels]
        problem: Exception | None = None
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    if master := await answer:
                        return master
                except (exceptions.RedisError, OSError) as error:
                    problem = error
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        if problem is None:
            raise exceptions.ConnectionError(
                f"no Sentinel knows a master {self._settings.sentinel_master!r}"
            )
        raise problem

    async def _ask(self, sentinel: Address) -> tuple[str, int] | None:
        kind, options = self._ask_with
        password = self._settings.sentinel_password
        asked = Redis.from_pool(
            BlockingConnectionPool(
                max_connections=1,
                connection_class=kind,
                host=sentinel.host,
                port=sentinel.port,
                username=self._settings.sentinel_user,
                password=password.get_secret_value() if password else None,
                **options,
                **_COMMON,
            )
        )
        try:
            found = await asked.execute_command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._settings.sentinel_master
            )
        finally:
            await asked.aclose()
        # redis-py gives it as (host, port), and raises nothing where the name is not known.
        return (_text(found[0]), int(found[1])) if found else None


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""Connections to PostgreSQL: how they are opened, and closed without waiting for the server."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.adapt import Dumper, Loader

from exporter.daemon_thread import call_in_daemon_thread
from exporter.settings import PostgresSettings, secret_in
from exporter.stores.postgres.errors import PostgresUnavailable, connection_error

log = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

# Where Linux distributions keep trusted certificates. The libpq in psycopg's wheel looks where the
# machine that built it had them.
AUTHORITIES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")


class _Raw(Loader):
    """Loads the text of a value as bytes: `json_values.parse_json` handles whatever it contains."""

    def load(self, data: psycopg.abc.Buffer) -> bytes:
        return bytes(data)


class _Text(Loader):
    """Loads a text whose bytes need not be UTF-8; see client.raw_text."""

    def load(self, data: psycopg.abc.Buffer) -> str:
        return bytes(data).decode("utf-8", "surrogateescape")


class _TextDumper(Dumper):
    """Dumps a text that `_Text` has loaded as its original bytes."""

    def dump(self, obj: str) -> bytes:
        return obj.encode("utf-8", "surrogateescape")


class Connector:
    """Opens connections.

    A SQL_ASCII database holds bytes of any encoding, and PostgreSQL refuses to send bytes that are
    not UTF-8 to a client whose encoding is UTF-8. So a connection to such a database reads bytes.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        self._encoding = "UTF8"  # the one that the last connection needed

    async def connect(self, deadline: float) -> Connection:
        """Opens a connection before the deadline. Raises PostgresUnavailable."""
        try:
            async with asyncio.timeout_at(deadline):
                connection = await self._connect()
                encoding = connection.info.parameter_status("server_encoding")
                wanted = "SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8"
                if wanted != self._encoding:
                    self._encoding = wanted
                    await close(connection)
                    connection = await self._connect()
        except TimeoutError:
            raise PostgresUnavailable(
                f"PostgreSQL at {self._settings.address} did not accept a connection within "
                f"{self._settings.timeout:g} s"
            ) from None
        except (psycopg.Error, OSError, ValueError) as error:
            raise connection_error(self._settings, error) from None
        connection.adapters.register_loader("jsonb", _Raw)
        if self._encoding == "SQL_ASCII":
            for name in ("text", "name", 0):
                connection.adapters.register_loader(name, _Text)
            connection.adapters.register_dumper(str, _TextDumper)
        return connection

    async def _connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            autocommit=True, prepare_threshold=None, **await self._parameters()
        )

    async def _parameters(self) -> dict[str, Any]:
        """Returns the parameters for libpq. One that is not set here could be set by libpq's own
        environment variables.
        """
        settings = self._settings
        parameters: dict[str, Any] = {
            "host": settings.host,
            "port": settings.port,
            "dbname": settings.database,
            "user": settings.user,
            "password": await self._password(),
            "application_name": settings.application_name,
            "client_encoding": self._encoding,
            "connect_timeout": max(2, int(settings.timeout)),
            "gssencmode": "disable",
            "sslmode": "disable",
        }
        if settings.tls and not settings.is_socket:
            parameters |= {
                "sslmode": "verify-full" if settings.tls_verify else "require",
                "sslrootcert": str(settings.tls_ca or _authorities()),
                "sslcert": str(settings.tls_cert or ""),
                "sslkey": str(settings.tls_key or ""),
            }
            if not settings.tls_verify:
                # libpq verifies against a root certificate file even with `require`, if the file
                # exists.
                parameters["sslrootcert"] = os.devnull + "/none"
        return {name: value for name, value in parameters.items() if value is not None}

    async def _password(self) -> str | None:
        """Reads the password again for each connection: the file may change while we run."""
        if (file := self._settings.password_file) is not None:
            try:
                return await asyncio.wrap_future(call_in_daemon_thread(partial(secret_in, file)))
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                log.debug("the password file cannot be read", extra={"reason": str(reason)})
        password = self._settings.password
        return None if password is None else password.get_secret_value()


def _authorities() -> str:
    """Returns the file of the certificates that the system trusts; `system` asks OpenSSL."""
    named = ssl.get_default_verify_paths().cafile
    return next((file for file in (named, *AUTHORITIES) if file and Path(file).is_file()), "system")


def has_ended(connection: Connection) -> bool:
    """Whether an idle connection has been closed, for example by a restart of the server.

    It is readable only then, because the server has nothing else to send.
    """
    return connection.closed or _is_readable(connection)


def _is_readable(connection: Connection) -> bool:
    with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.setblocking(False)
        try:
            duplicate.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True


def cut(connection: Connection) -> None:
    """Shut a connection down without asking the server: whoever waits on it gets an error."""
    with (
        suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(connection.fileno())) as same,
    ):
        same.shutdown(socket.SHUT_RDWR)


async def close(connection: Connection) -> None:
    with suppress(psycopg.Error, OSError):
        await connection.close()

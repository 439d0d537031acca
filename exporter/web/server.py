"""Opening a port and answering on it, for both ports alike."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from exporter.settings import Address, SettingsError, names_of

log = logging.getLogger(__name__)


class _WithoutClientFaults(logging.Filter):
    """Drops aiohttp's traceback for bytes that are no HTTP: it quotes them, credentials and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        return not isinstance(fault, HttpProcessingError)


_server_log = logging.getLogger("aiohttp.server")
_server_log.addFilter(_WithoutClientFaults())

# What the header `Server` says in every answer, even to bytes that are no HTTP, where no handler
# or hook of ours is asked. aiohttp's own tells the versions of Python and aiohttp.
setattr(web_response, "SERVER_SOFTWARE", "bullmq-exporter")  # noqa: B010 - no name that it exports

# In-flight answers may take this long (seconds) once we are told to end. aiohttp waits twice: until
# it cancels a handler, and for the cancelled one to end; the promise is 2 s in all.
SHUTDOWN_GRACE = 0.8
# Connections of one port at once. Prometheus needs one, a page a few; whoever opens them without
# end is hung up on, and the other port does not notice.
MOST_CONNECTIONS = 500
# Bytes of a request's first line unless a port needs longer ones: aiohttp's own limit.
MAX_LINE_BYTES = 8190
# Seconds within which a connection's first request has to be there, and a TLS handshake made.
FIRST_REQUEST = 10.0
# Seconds that a connection may be silent between two requests: a scrape comes each minute at least.
KEEP_ALIVE = 75.0


def listen(address: Address, setting: str) -> socket.socket:
    """A socket that listens. Raises SettingsError, naming the setting, where that cannot be."""
    try:
        return socket.create_server(
            (address.host, address.port),
            family=socket.AF_INET6 if ":" in address.host else socket.AF_INET,
            backlog=128,
        )
    except (OSError, UnicodeError) as error:
        code = error.errno if isinstance(error, OSError) else None
        reason = {
            errno.EADDRINUSE: "is taken; choose another port, or 0 for a free one",
            errno.EACCES: "may not be opened by this user; choose a port above 1023",
        }.get(code or 0, f"cannot be opened: {getattr(error, 'strerror', None) or error}")
        raise SettingsError(f"{names_of(setting)}: {address} {reason}") from None


@dataclass(frozen=True)
class Port:
    """A socket that listens, and what answers on it."""

    what: str
    sock: socket.socket
    app: web.Application
    # Whether an answer is given up when its client hangs up: a search then makes room for others.
    cancels: bool = False
    tls: ssl.SSLContext | None = None
    max_line_bytes: int = MAX_LINE_BYTES

    @property
    def url(self) -> str:
        """The address for people."""
        host, port = self.sock.getsockname()[:2]
        shown = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104
        return f"{'https' if self.tls else 'http'}://{Address(shown, port)}"


@asynccontextmanager
async def serving(*ports: Port) -> AsyncIterator[None]:
    """Answers on the ports while the context lasts."""
    runners: list[web.AppRunner] = []
    listening: list[asyncio.Server] = []
    try:
        for port in ports:
            runner = web.AppRunner(
                port.app,
                access_log=None,
                handler_cancellation=port.cancels,
                logger=_server_log,
                handle_signals=False,
                shutdown_timeout=SHUTDOWN_GRACE,
                keepalive_timeout=KEEP_ALIVE,
                max_line_size=port.max_line_bytes,
            )
            runners.append(runner)
            await runner.setup()
            assert runner.server is not None
            listening.append(
                await asyncio.get_running_loop().create_server(
                    _limited(runner.server),
                    sock=port.sock,
                    ssl=port.tls,
                    ssl_handshake_timeout=FIRST_REQUEST if port.tls else None,
                )
            )
            log.info("listening", extra={"what": port.what, "url": port.url})
        yield
    finally:
        for server in listening:
            server.close()
        await asyncio.shield(asyncio.gather(*(runner.cleanup() for runner in runners)))


class _HangingUp(asyncio.Protocol):
    """What answers a connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _limited(server: web.Server) -> Callable[[], asyncio.BaseProtocol]:
    """What makes a protocol for each connection, of which there are not too many.

    aiohttp ends a connection that is silent between two requests, but waits for the head of the
    first one for ever.
    """
    silent: set[RequestHandler] = set()
    answer = server.request_handler

    async def asked(request: web.BaseRequest) -> web.StreamResponse:
        silent.discard(request.protocol)
        return await answer(request)

    server.request_handler = asked

    def end_if_silent(connection: RequestHandler) -> None:
        if connection in silent:
            silent.discard(connection)
            connection.force_close()

    def protocol() -> asyncio.BaseProtocol:
        if len(server.connections) >= MOST_CONNECTIONS:
            return _HangingUp()
        connection = server()
        silent.add(connection)
        asyncio.get_running_loop().call_later(FIRST_REQUEST, end_if_silent, connection)
        return connection

    return protocol

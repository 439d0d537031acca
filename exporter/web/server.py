"""Opens and serves a port, for both ports."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from aiohttp import web, web_response
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from exporter.deadline import SHUTDOWN_SECONDS, Deadline
from exporter.settings import Address, SettingsError, names_of
from exporter.web.client_address import client_network
from exporter.web.connections import KEEP_ALIVE_SECONDS, MAX_CONNECTIONS, Connections
from exporter.web.responses import SECURITY_HEADERS, json_response

log = logging.getLogger(__name__)


class _WithoutClientFaults(logging.Filter):
    """Drops aiohttp's traceback for bytes that are not HTTP, or not a body of the declared
    encoding: it quotes them, including credentials.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        return not isinstance(fault, (HttpProcessingError, RequestPayloadError))


_server_log = logging.getLogger("aiohttp.server")
_server_log.addFilter(_WithoutClientFaults())

# The header `Server` of every answer, even to bytes that are not HTTP, for which no handler or hook
# of ours is called. aiohttp's own names the versions of Python and aiohttp.
setattr(web_response, "SERVER_SOFTWARE", "bullmq-exporter")  # noqa: B010 - no name that it exports

# Seconds that answers in flight may take at shutdown. aiohttp waits twice: before it cancels a
# handler, and for the cancelled handler to end.
ANSWER_SECONDS = 0.4 * SHUTDOWN_SECONDS
# Maximum size of a request's first line, unless a port needs longer ones: aiohttp's own limit.
MAX_LINE_BYTES = 8190


def listen(address: Address, setting: str) -> socket.socket:
    """Open a listening socket. Raises SettingsError, which names the setting, if that fails."""
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
    """A listening socket, and the application that answers on it."""

    what: str
    sock: socket.socket
    app: web.Application
    # Whether a request is cancelled when its client disconnects, so that a search makes room for
    # others.
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
async def serving(
    *ports: Port, limit: int = MAX_CONNECTIONS, deadline: Deadline
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Serve the ports while the context lasts, or until the yielded function is called; `limit` is
    the maximum number of connections of each.
    """
    runners: list[web.AppRunner] = []
    accepting: list[Connections] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_close, accepting, runners, deadline)
        for port in ports:
            runner = web.AppRunner(
                port.app,
                access_log=None,
                handler_cancellation=port.cancels,
                logger=_server_log,
                handle_signals=False,
                shutdown_timeout=ANSWER_SECONDS,
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                max_line_size=port.max_line_bytes,
                # No handler reads a body, so what is read only to be dropped must stay small.
                auto_decompress=False,
            )
            runners.append(runner)
            await runner.setup()
            assert runner.server is not None
            connections = Connections(
                port.what,
                port.sock,
                runner.server,
                limit=limit,
                max_line_bytes=port.max_line_bytes,
                tls=port.tls,
                stays_half_open=not port.cancels,
                client_of=client_network,
                busy=_busy,
            )
            connections.start()
            accepting.append(connections)
            log.info("listening", extra={"what": port.what, "url": port.url})
        yield stack.aclose


async def _close(
    accepting: Iterable[Connections], runners: Iterable[web.AppRunner], deadline: Deadline
) -> None:
    for connections in accepting:
        connections.stop()
    closing = [asyncio.create_task(runner.cleanup()) for runner in runners]
    if closing:
        await asyncio.wait(closing, timeout=deadline.left())


def _busy() -> web.Response:
    message = "Too many responses are being sent, try again in a few seconds"
    headers = {**SECURITY_HEADERS, "Retry-After": "5"}
    return json_response({"message": message}, 503, headers)

"""Opening a port and answering on it, for both ports alike."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter.settings import Address, SettingsError, names_of

log = logging.getLogger(__name__)


class _WithoutClientFaults(logging.Filter):
    """Drops aiohttp's traceback for bytes that are no HTTP: it quotes them, credentials and all."""

    def filter(self, record: logging.LogRecord) -> bool:
        fault = record.exc_info[1] if record.exc_info else None
        return not isinstance(fault, HttpProcessingError)


_server_log = logging.getLogger("aiohttp.server")
_server_log.addFilter(_WithoutClientFaults())

# In-flight answers may take this long (seconds) once we are told to end; the promise is 2 s in all.
SHUTDOWN_GRACE = 1.2


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


@asynccontextmanager
async def serving(
    app: web.Application, sock: socket.socket, what: str, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Answers on the socket while the context lasts; yields the address for people."""
    runner = web.AppRunner(
        app,
        access_log=None,
        logger=_server_log,
        handle_signals=False,
        shutdown_timeout=SHUTDOWN_GRACE,
        keepalive_timeout=75,
    )
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=tls).start()
    host, port = sock.getsockname()[:2]
    shown = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104
    url = f"{'https' if tls else 'http'}://{Address(shown, port)}"
    log.info("listening", extra={"what": what, "url": url})
    try:
        yield url
    finally:
        await asyncio.shield(runner.cleanup())

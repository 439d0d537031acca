"""Passes what clients send to aiohttp, in small pieces and only as far as a request needs it.

aiohttp bounds the size of a header and the number of headers, but not all of them together: they
may have 1 MB, of which several copies are held, and a client needs no credential to send that,
complete or not, on each of its connections.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web_protocol
from aiohttp.web_protocol import RequestHandler

# Requests that a connection queues in addition to the one that is being answered. aiohttp's own
# number is 32, and it has no setting for it.
setattr(web_protocol, "MAX_MSG_QUEUE_SIZE", 1)  # noqa: B010 - no name that it exports

PIECE_BYTES = 16 << 10
# Bytes of a head's headers.
MAX_HEADERS_BYTES = 32 << 10
# Seconds for a client to read the answer, while everything it still sends is dropped: if the
# connection were closed at once, it would be reset, and the answer lost.
LINGER_SECONDS = 1.0
# Seconds between two checks whether a client that has closed its side was answered.
CHECK_SECONDS = 0.1
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nServer: bullmq-exporter\r\n"
    b"Content-Length: 0\r\nConnection: close\r\n\r\n"
)

# asyncio fills it and hands it over at once, so all connections share it.
_buffer = memoryview(bytearray(PIECE_BYTES))


class Incoming(asyncio.BufferedProtocol):
    """A protocol between a connection and aiohttp's protocol.

    `is_answering` returns whether a request is being handled or answered. `stays_half_open`: a
    client that closes its side still gets the answer; otherwise its request is cancelled.
    """

    def __init__(
        self,
        protocol: RequestHandler,
        limit: int,
        is_answering: Callable[[], bool],
        *,
        stays_half_open: bool,
    ) -> None:
        self._protocol, self._limit, self._is_answering = protocol, limit, is_answering
        self._stays_half_open = stays_half_open
        self._transport: asyncio.Transport | None = None
        self._bytes = 0  # since the last request began to be handled
        self._is_refused = False
        self._has_body = False

    def begin(self, has_body: bool) -> None:
        """A request begins to be handled: data from now on is its body or the next request."""
        self._bytes, self._has_body = 0, has_body

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._protocol.connection_made(transport)

    def get_buffer(self, _: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_refused:
            return
        self._bytes += nbytes
        if self._bytes <= self._limit:
            self._protocol.data_received(bytes(_buffer[:nbytes]))
        else:
            self._refuse()

    def _refuse(self) -> None:
        self._is_refused = True
        if self._is_answering() or self._has_body:
            self._protocol.close()  # once it is answered
        elif self._transport is not None:
            self._transport.write(TOO_LARGE)
            asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.close)

    def eof_received(self) -> bool:
        if self._stays_half_open:
            # A request that arrived together with it is begun first.
            asyncio.get_running_loop().call_soon(self._close_once_answered)
        return self._stays_half_open

    def _close_once_answered(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_answering():
            asyncio.get_running_loop().call_later(CHECK_SECONDS, self._close_once_answered)
        else:
            self._transport.close()

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._protocol.connection_lost(exc)

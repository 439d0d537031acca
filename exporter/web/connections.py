"""The connections of one port: accepted, limited, and closed to make room for others.

Connecting needs no credential. A client may open connections endlessly, send nothing, or not read
the responses. Connections are therefore accepted here and not by asyncio's server, which accepts
until no file can be opened, and then logs a traceback for each attempt (10 MB in 10 s).
"""

from __future__ import annotations

import array
import asyncio
import errno
import fcntl
import logging
import socket
import ssl
import struct
import sys
import termios
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from aiohttp import hdrs, web
from aiohttp.web_protocol import RequestHandler

from exporter.web.incoming import MAX_HEADERS_BYTES, Incoming
from exporter.web.sending import PIECE_BYTES, SharedBody

log = logging.getLogger(__name__)

# Maximum number of connections of one port, if enough files can be opened. Prometheus needs one, a
# page a few.
MAX_CONNECTIONS = 500
MIN_CONNECTIONS = 4
# Files that are not connections of clients: of the process itself, and of each target (11
# connections, and files that are open for a moment).
OWN_FILES, TARGET_FILES = 20, 16
# A client may have all connections except this number, which is reserved for others: a scraper, a
# probe.
OTHERS_SHARE = 1 / 8
# Connections accepted before yielding to other tasks. As many files may be open for a moment beyond
# the limit, because a connection is closed after the current iteration of the event loop.
ACCEPT_BATCH_SIZE = 8
ACCEPT_RETRY_SECONDS = 0.1

# Seconds in which a TLS handshake and the first request must be complete.
FIRST_REQUEST_SECONDS = 10.0
# Seconds between two requests: a scrape comes at least each minute.
KEEP_ALIVE_SECONDS = 75.0

# Maximum number of bytes of response bodies that are being sent: to one client, and to all of a
# port. A body that several responses share counts once. A single body may be larger.
MAX_CLIENT_BYTES, MAX_PORT_BYTES = 48 << 20, 64 << 20
# Unsent bytes that the kernel keeps for a connection: by default up to 4 MB, which a container's
# memory limit includes. Bytes in flight do not count, so fast links stay fast.
UNSENT_BYTES = 128 << 10

# After this time the kernel drops data that a client has not acknowledged. It is for connections
# that are closed while the kernel still has data to send.
USER_TIMEOUT_MILLISECONDS = 30_000

CHECK_INTERVAL_SECONDS = 1.0
# Checks without progress after which a response is given up, and checks in all. A response that is
# slow but moves is not given up before that: 3 MB over a link of 10 kB/s take 300 s.
MAX_CHECKS_WITHOUT_PROGRESS, MAX_CHECKS = 15, 600
# The same if others need the connection.
CHECKS_WITHOUT_PROGRESS_IF_FULL, CHECKS_IF_FULL = 1, 10

LOG_INTERVAL_SECONDS = 60.0

OUT_OF_FILES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def connections_per_port(files: int, *, targets: int) -> int:
    """How many connections each of the two ports may have, so that files are left for Redis."""
    left = files - OWN_FILES - TARGET_FILES * targets
    return min(MAX_CONNECTIONS, max(MIN_CONNECTIONS, left // 2 - ACCEPT_BATCH_SIZE))


@dataclass(eq=False, slots=True)
class Connection:
    """A connection of a client. It is idle unless a request is being handled or answered."""

    sock: socket.socket
    client: str
    since: float  # when it was accepted or last became idle, or when it began to send; monotonic
    transport: asyncio.Transport | None = None  # None until the TLS handshake is done
    opening: asyncio.Task[None] | None = None
    incoming: Incoming | None = None
    has_asked: bool = False
    is_handling: bool = False
    sending: SharedBody | None = None
    checks: int = 0  # of the response that is being sent
    checks_without_progress: int = 0
    progress: tuple[int, int, int] = (0, 0, 0)

    @property
    def is_closed(self) -> bool:
        return self.sock.fileno() < 0

    @property
    def is_answering(self) -> bool:
        return self.is_handling or self.sending is not None

    @property
    def can_be_closed(self) -> bool:
        """Whether it may be closed to make room for others."""
        if self.sending is not None:
            return (
                self.checks_without_progress >= CHECKS_WITHOUT_PROGRESS_IF_FULL
                or self.checks >= CHECKS_IF_FULL
            )
        return not self.is_handling

    def end_sending(self) -> None:
        self.sending, self.since = None, time.monotonic()

    def check(self) -> bool:
        """Whether it may continue, because its response makes progress."""
        unsent = 0 if self.transport is None else self.transport.get_write_buffer_size()
        if not unsent and self.sending is None:
            self.checks = self.checks_without_progress = 0
            return True
        sent = 0 if self.sending is None else self.sending.sent
        before, self.progress = self.progress, (sent, unsent, _unacknowledged(self.sock))
        self.checks += 1
        self.checks_without_progress += 1
        if self.progress != before:
            self.checks_without_progress = 0
        return (
            self.checks < MAX_CHECKS and self.checks_without_progress < MAX_CHECKS_WITHOUT_PROGRESS
        )

    def abort(self) -> None:
        """Close it at once, and drop unsent data."""
        if self.has_asked and not self.is_closed:
            # By a reset: otherwise the kernel would keep the rest for a client that does not read.
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.transport is not None:
            self.transport.abort()
        elif self.opening is not None:
            self.opening.cancel()


def _unacknowledged(sock: socket.socket) -> int:
    """Bytes in the kernel that the client has not acknowledged (SIOCOUTQ)."""
    number = array.array("i", [0])
    with suppress(OSError):
        fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, number)
    return number[0]


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class Connections:
    """The connections of one port.

    `stays_half_open`: whether a client that closes its side after the request still gets the
    answer, which TLS does not allow. `client_of` returns the client that an address stands for;
    `busy` makes the response if there is no room.
    """

    def __init__(
        self,
        what: str,
        sock: socket.socket,
        server: web.Server,
        *,
        limit: int,
        max_line_bytes: int,
        tls: ssl.SSLContext | None,
        stays_half_open: bool,
        client_of: Callable[[str], str],
        busy: Callable[[], web.Response],
    ) -> None:
        self._what, self._sock, self._server, self._tls = what, sock, server, tls
        self._stays_half_open = stays_half_open and tls is None
        self._limit = limit
        self._limit_of_client = limit - max(1, int(limit * OTHERS_SHARE))
        self._max_head_bytes = max_line_bytes + MAX_HEADERS_BYTES
        self._client_of, self._busy = client_of, busy
        self._connections: dict[RequestHandler, Connection] = {}
        self._closed: Counter[str] = Counter()  # by reason, since the last line of the log
        self._next_log = 0.0
        self._loop = asyncio.get_running_loop()
        self._checking: asyncio.Task[None] | None = None
        self._resuming: asyncio.TimerHandle | None = None
        server.request_handler = self._answering(server.request_handler)

    def start(self) -> None:
        self._sock.setblocking(False)
        if sys.platform == "linux":  # accepted sockets inherit both
            tcp = socket.IPPROTO_TCP
            self._sock.setsockopt(tcp, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)
            self._sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MILLISECONDS)
        self._resume()
        self._checking = self._loop.create_task(self._check_forever())

    def stop(self) -> None:
        """Accept no more connections. aiohttp closes the open ones."""
        self._loop.remove_reader(self._sock)
        if self._resuming is not None:
            self._resuming.cancel()
        if self._checking is not None:
            self._checking.cancel()
        for connection in self._connections.values():
            if connection.transport is None:
                connection.abort()

    def _resume(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPT_BATCH_SIZE):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._closed[error.strerror or "cannot accept"] += 1
                # Other code has used up the files: closing an idle connection frees one.
                if error.errno not in OUT_OF_FILES or not self._close_one(self._connections):
                    self._loop.remove_reader(self._sock)
                    self._resuming = self._loop.call_later(ACCEPT_RETRY_SECONDS, self._resume)
                return
            client = self._client_of(address[0])
            if not self._make_room(client):
                self._closed["refused"] += 1
                sock.close()
                continue
            sock.setblocking(False)
            protocol = self._server()
            connection = Connection(sock, client, time.monotonic())
            self._connections[protocol] = connection
            connection.opening = self._loop.create_task(self._open(connection, protocol))

    async def _open(self, connection: Connection, protocol: RequestHandler) -> None:
        incoming = connection.incoming = Incoming(
            protocol,
            self._max_head_bytes,
            lambda: connection.is_answering,
            stays_half_open=self._stays_half_open,
        )
        # A handshake that fails is the client's concern: OSError includes SSLError, TimeoutError.
        with suppress(OSError):
            transport, _ = await self._loop.connect_accepted_socket(
                lambda: incoming,
                connection.sock,
                ssl=self._tls,
                ssl_handshake_timeout=FIRST_REQUEST_SECONDS if self._tls else None,
            )
            # A response waits until the kernel has taken what was written before. Not 0: asyncio's
            # TLS takes an empty buffer for a full one then.
            transport.set_write_buffer_limits(high=1)
            connection.transport = transport

    def _answering(self, answer: Answer) -> Answer:
        async def answered(request: web.BaseRequest) -> web.StreamResponse:
            connection = self._connections.get(request.protocol)
            if connection is None:  # it is being closed
                return await answer(request)
            connection.has_asked = connection.is_handling = True
            if connection.incoming is not None:
                connection.incoming.begin(request.can_read_body)
            try:
                response = await answer(request)
            finally:
                connection.is_handling, connection.since = False, time.monotonic()
            if isinstance(response, web.Response) and request.method != hdrs.METH_HEAD:
                if isinstance(response.body, bytes) and len(response.body) > PIECE_BYTES:
                    response.body = SharedBody.of(response.body)
                if isinstance(response.body, SharedBody):
                    if not self._make_room_for_body(connection, response.body.held):
                        self._closed["too many bytes"] += 1
                        return self._busy()
                    response.body.on_end = connection.end_sending
                    connection.sending = response.body
                    connection.checks = connection.checks_without_progress = 0
            return response

        return answered

    def _make_room(self, client: str) -> bool:
        """Whether this client may have one more connection, after closing another if necessary."""
        if len(self._connections) < self._limit_of_client:
            return True
        self._forget_closed()
        own = {
            protocol: each for protocol, each in self._connections.items() if each.client == client
        }
        if len(own) >= self._limit_of_client and not self._close_one(own):
            return False
        return len(self._connections) < self._limit or self._close_one(self._connections)

    def _make_room_for_body(self, connection: Connection, held: bytes) -> bool:
        """Whether this may be sent, after closing connections that do not read if necessary."""
        others = {
            protocol: each
            for protocol, each in self._connections.items()
            if each.sending is not None and each.sending.held is not held and each is not connection
        }
        own = {
            protocol: each for protocol, each in others.items() if each.client == connection.client
        }
        for among, limit in ((own, MAX_CLIENT_BYTES), (others, MAX_PORT_BYTES)):
            while (sending := _bytes_of(among.values())) and sending + len(held) > limit:
                if not self._close_one(among):
                    return False
        return True

    def _close_one(self, among: dict[RequestHandler, Connection]) -> bool:
        """Close the least needed one: the longest idle one of the client with the most connections,
        otherwise one that does not read its response. False if all are needed.
        """
        number_of = Counter(each.client for each in among.values())
        closable = [
            (each.sending is not None, -number_of[each.client], each.since, number)
            for number, each in enumerate(among.values())
            if each.can_be_closed
        ]
        if not closable:
            return False
        is_sending, _, _, number = min(closable)
        protocol = list(among)[number]
        connection = self._connections.pop(protocol, None)
        among.pop(protocol, None)
        if connection is not None and not connection.is_closed:
            connection.abort()
            self._closed["unread" if is_sending else "idle"] += 1
        return True

    def _forget_closed(self) -> None:
        for protocol in [each for each, it in self._connections.items() if it.is_closed]:
            del self._connections[protocol]

    async def _check_forever(self) -> None:
        while True:
            await asyncio.sleep(CHECK_INTERVAL_SECONDS)
            try:
                self._check()
            except Exception:
                log.exception("connections could not be checked")

    def _check(self) -> None:
        self._forget_closed()
        now = time.monotonic()
        for connection in list(self._connections.values()):
            if not connection.has_asked:
                # aiohttp waits for the head of a first request without a limit.
                if now - connection.since > FIRST_REQUEST_SECONDS:
                    connection.abort()
            elif not connection.check():
                self._closed["unread"] += 1
                connection.abort()
        if self._closed and now >= self._next_log:
            self._next_log = now + LOG_INTERVAL_SECONDS
            log.warning(
                "connections were closed or refused",
                extra={
                    "what": self._what,
                    "limit": self._limit,
                    "reasons": ", ".join(f"{why}: {times}" for why, times in self._closed.items()),
                },
            )
            self._closed.clear()


def _bytes_of(connections: Iterable[Connection]) -> int:
    """The size of all bodies that these connections send; a shared body counts once."""
    held = {id(each.sending.held): each.sending.held for each in connections if each.sending}
    return sum(map(len, held.values()))

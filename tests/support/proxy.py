"""A port that leads to a server: to another one later, slowly, or cut."""

from __future__ import annotations

import socket
import socketserver
import struct
import threading
import time
from contextlib import suppress
from typing import Any, Self


class Proxy(socketserver.ThreadingTCPServer):
    """Copies both ways between its clients and the server on port `to`.

    `delay` holds each piece of an answer back, in seconds. While it is `silent`, it accepts and
    passes nothing on. An answer that comes in a piece of more than `cut_after` bytes ends there,
    and its connection is reset; so does the answer to one request after `most` bytes; with `stalls`
    the connection stays open, and no more of the answer comes. `rate` is how many bytes of answers
    a second a connection passes on; `passed` counts them. When its `with` ends, every connection is
    closed and every thread has ended.
    """

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]
        self.to = to
        self.delay = 0.0
        self.silent = False
        self.cut_after: int | None = None
        self.most: int | None = None
        self.stalls = False
        self.rate: float | None = None
        self.passed = 0
        self._clients: set[socket.socket] = set()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.cut()
        self.server_close()  # waits for the threads of all connections

    def switch(self, to: int) -> None:
        """Lead new connections to another server, and end those that there are."""
        self.to = to
        self.cut()

    def cut(self) -> None:
        """End every connection."""
        for client in list(self._clients):
            _shut(client)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._clients.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._clients.discard(request)
        super().shutdown_request(request)


class _Connection(socketserver.BaseRequestHandler):
    server: Proxy
    request: socket.socket
    _answered = 0  # bytes, of the answer to the last request

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.to)) as server:
            answers = threading.Thread(target=self._copy, args=(server, self.request, True))
            answers.start()
            self._copy(self.request, server)
            answers.join()

    def _copy(self, source: socket.socket, sink: socket.socket, late: bool = False) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.server.delay if late else 0)
                if self.server.silent:
                    continue
                if not late:
                    self._answered = 0
                    sink.sendall(data)
                elif not self._answer(sink, data):
                    break
        _shut(source)
        _shut(sink)

    def _answer(self, sink: socket.socket, data: bytes) -> bool:
        """Pass a piece of an answer on; False where the connection ends with it."""
        server = self.server
        limits = [server.cut_after, None if server.most is None else server.most - self._answered]
        passed = data[: min((limit for limit in limits if limit is not None), default=None)]
        self._answered += len(passed)
        server.passed += len(passed)
        sink.sendall(passed)
        time.sleep(len(passed) / server.rate if server.rate else 0)
        if len(passed) < len(data) and not server.stalls:
            # Without a rest to linger for, closing it sends a reset.
            sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        return True


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)

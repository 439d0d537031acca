"""A server between a client and a real Redis that answers some commands with something else."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import hiredis

from exporter.stores.bullmq.scripts import load_script

# By the SHA-1 with which EVALSHA names them.
SCRIPTS = {
    load_script(f"{name}.lua").sha.encode(): f"{name}.lua".encode()
    for name in ("edges", "page", "job", "children", "schedulers", "events")
}

# Given what a command is and its true reply: the bytes to send in its place, or None for the truth.
Lie = Callable[[bytes, bytes], bytes | None]


def kind_of(words: Sequence[bytes]) -> bytes:
    """What a command is: its name, or that of the script that it runs."""
    if words[0].startswith(b"EVAL"):
        return SCRIPTS.get(words[1], b"EVAL")
    return bytes(words[0].upper())


class LyingServer(socketserver.ThreadingTCPServer):
    """Speaks for the server on port `to`. A `lie` that ends in CUT also ends the connection."""

    CUT = b"<cut>"
    daemon_threads = True

    def __init__(self, to: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.port: int = self.server_address[1]
        self.to = to
        self.lie: Lie = lambda _, __: None

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class _Connection(socketserver.BaseRequestHandler):
    server: LyingServer
    request: socket.socket

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.to)) as server:
            commands, missing = hiredis.Reader(notEnoughData=b"<none>"), b"<none>"
            while data := self.request.recv(65536):
                commands.feed(data)
                replies = []
                for words in iter(commands.gets, missing):
                    replies.append(self._reply(server, words))
                    if replies[-1].endswith(LyingServer.CUT):
                        self.request.sendall(b"".join(replies)[: -len(LyingServer.CUT)])
                        return
                self.request.sendall(b"".join(replies))

    def _reply(self, server: socket.socket, words: Sequence[bytes]) -> bytes:
        server.sendall(hiredis.pack_command(tuple(words)))
        # As it came: hiredis only says where it ends.
        reader, reply, missing = hiredis.Reader(notEnoughData=b"<none>"), b"", b"<none>"
        answer: Any = missing
        while answer is missing:
            if not (data := server.recv(65536)):
                raise OSError("the server has gone")
            reply += data
            reader.feed(data)
            answer = reader.gets()
        lie = self.server.lie(kind_of(words), reply)
        return reply if lie is None else lie

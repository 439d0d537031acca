"""Response bodies that are sent piece by piece, from a buffer shared by several responses.

aiohttp joins a body of bytes to its headers, and asyncio's transport keeps what the client has not
read yet: two copies of the body for each client. 250 clients that did not read a page of 40 MB took
9.2 GB. Here a response keeps one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

PIECE_BYTES = 64 << 10


class SharedBody(Payload):
    """A body of `size` bytes in pieces; `held` is the buffer that they are made from."""

    def __init__(self, held: bytes, size: int, pieces: Iterable[bytes | memoryview]) -> None:
        super().__init__(held)
        self._size = size
        self.held = held
        self.sent = 0
        self.on_end: Callable[[], None] | None = None
        self._pieces = pieces

    @classmethod
    def of(cls, body: bytes) -> SharedBody:
        return cls(body, len(body), _slices(body))

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._pieces).decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        try:
            for piece in self._pieces:
                await writer.write(piece)
                # Waits until the kernel has taken all of it: connections.py sets the transport's
                # limit.
                await writer.drain()
                self.sent += len(piece)
        finally:
            if self.on_end is not None:
                self.on_end()


def _slices(body: bytes) -> Iterator[memoryview]:
    view = memoryview(body)
    for start in range(0, len(view), PIECE_BYTES):
        yield view[start : start + PIECE_BYTES]

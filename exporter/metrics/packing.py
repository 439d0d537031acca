"""Pages as gzip, made of segments that can be kept and used again.

Each segment ends in a full flush, after which compression does not depend on what came before. So a
page can be joined from segments of earlier pages: of 10,000 queues with 136 MB of text only what
has changed is rendered and compressed again, and only 6 MB are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from zlib_ng import zlib_ng

# zlib-ng's level 2 makes a page as small as level 1 of zlib does (66 kB of 1.1 MB), in a third of
# its time.
LEVEL = 2
RAW, GZIP = -zlib_ng.MAX_WBITS, 16 + zlib_ng.MAX_WBITS  # zlib's `wbits`
# The gzip header: no name, no time, unknown system (RFC 1952).
HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# Bytes of a page that are decompressed at once.
INPUT_BYTES = 4096


class Segment(NamedTuple):
    """Compressed text; `size` and `crc` are those of the text."""

    packed: bytes
    size: int
    crc: int


class SegmentPacker:
    """Makes segments."""

    def __init__(self) -> None:
        self._compressor = _compressor()

    def pack(self, text: str) -> Segment:
        if not text:
            return Segment(b"", 0, 0)
        data = text.encode()
        packed = self._compressor.compress(data) + self._compressor.flush(zlib_ng.Z_FULL_FLUSH)
        return Segment(packed, len(data), zlib_ng.crc32(data))


class Page(NamedTuple):
    """A page as gzip; `size` is that of its text."""

    packed: bytes
    size: int

    def text(self, piece_bytes: int) -> Iterator[bytes]:
        """The page's text, in pieces of at most this size."""
        decompressor = zlib_ng.decompressobj(wbits=GZIP)
        for start in range(0, len(self.packed), INPUT_BYTES):
            rest = self.packed[start : start + INPUT_BYTES]
            while rest:
                if piece := decompressor.decompress(rest, piece_bytes):
                    yield piece
                rest = decompressor.unconsumed_tail
        # The last piece may end exactly at the end of the input.
        while piece := decompressor.decompress(b"", piece_bytes):
            yield piece


class PagePacker:
    """Makes a page of text and segments."""

    def __init__(self) -> None:
        self._compressor = _compressor()
        self._packed = [HEAD]
        self._size = self._crc = 0
        self._is_flushed = True

    def add(self, text: bytes) -> None:
        self._packed.append(self._compressor.compress(text))
        self._size += len(text)
        self._crc = zlib_ng.crc32(text, self._crc)
        self._is_flushed = False

    def add_segment(self, segment: Segment) -> None:
        if not segment.size:
            return
        if not self._is_flushed:
            self._packed.append(self._compressor.flush(zlib_ng.Z_FULL_FLUSH))
            self._is_flushed = True
        self._packed.append(segment.packed)
        self._size += segment.size
        self._crc = zlib_ng.crc32_combine(self._crc, segment.crc, segment.size)

    def finish(self) -> Page:
        self._packed.append(self._compressor.flush())
        tail = (self._crc, self._size & 0xFFFFFFFF)
        self._packed += [number.to_bytes(4, "little") for number in tail]
        return Page(b"".join(self._packed), self._size)


def _compressor() -> zlib_ng._Compress:
    return zlib_ng.compressobj(level=LEVEL, wbits=RAW)

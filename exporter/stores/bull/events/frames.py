"""Parses what a server sends on a subscribed connection, piece by piece, and keeps only what is
needed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Bytes of a message that are kept: the job's id and the reason are at its beginning. The rest, such
# as megabytes of a return value or of progress, is never kept in memory.
MAX_KEPT_BYTES = 64 * 1024
# Items of a frame at most; a message has four.
MAX_ITEMS = 8
# Bytes of the line that begins an item at most: its kind, and a length or a short text.
MAX_LINE_BYTES = 1024

_LENGTH = re.compile(rb"[0-9]{1,10}")


class Text(NamedTuple):
    """The beginning of a text, and whether that is all of it."""

    kept: bytes
    is_whole: bool = True


class ErrorReply(NamedTuple):
    """An error reply, with its text."""

    message: str


Frame = list[Text] | ErrorReply


class InvalidFrame(Exception):
    """The server sent something that it does not send to subscribers."""


class FrameParser:
    """Takes bytes as they arrive, and returns complete frames: lists of texts.

    A number or a line counts as a text, and a reply that is not a list counts as a list of one
    item. Every byte of a text beyond MAX_KEPT_BYTES is dropped as it arrives.
    """

    def __init__(self) -> None:
        self._data = b""  # what is not parsed yet begins at `_at`
        self._at = 0
        self._items: list[Text] = []
        self._missing = 0  # items of the frame that are still to come
        self._kept = b""  # of a long text that is arriving
        self._skip = 0  # bytes to drop, up to the end of that text

    def feed(self, piece: bytes) -> list[Frame]:
        """Returns the frames that are complete with this piece. Raises InvalidFrame."""
        self._data, self._at = self._data[self._at :] + piece, 0
        frames: list[Frame] = []
        while self._skip_rest() and (end := self._end_of_line()) is not None:
            kind, line = self._data[self._at], self._data[self._at + 1 : end]
            if kind == _TEXT:
                text = self._take_text(_length(line), end + 2)
                if text is None:
                    break
                self._add(text, frames)
                continue
            self._at = end + 2
            if kind in _LINES:
                self._add(Text(line), frames)
            elif self._missing:
                raise InvalidFrame(f"no item of a list: {bytes([kind]) + line[:20]!r}")
            elif kind in _LISTS:
                self._missing = _length(line)
                if not 1 <= self._missing <= MAX_ITEMS:
                    raise InvalidFrame(f"a list of {self._missing} items")
            elif kind == _ERROR:
                frames.append(ErrorReply(line.decode("utf-8", "replace")))
            else:
                raise InvalidFrame(f"no item: {bytes([kind]) + line[:20]!r}")
        return frames

    def _end_of_line(self) -> int | None:
        """Returns the end of the line that begins an item; None if it has not arrived."""
        end = self._data.find(b"\r\n", self._at, self._at + MAX_LINE_BYTES)
        if end <= self._at:
            if end == self._at or len(self._data) - self._at >= MAX_LINE_BYTES:
                raise InvalidFrame(f"no line: {self._data[self._at : self._at + 20]!r}")
            return None
        return end

    def _take_text(self, size: int, begin: int) -> Text | None:
        """Returns the text of this size at `begin`; None if the part to keep has not arrived."""
        kept = min(size, MAX_KEPT_BYTES)
        if len(self._data) < begin + kept + 2:
            return None
        self._at = begin + kept
        self._skip = size - kept + 2
        return Text(self._data[begin : begin + kept], is_whole=kept == size)

    def _skip_rest(self) -> bool:
        """Drop the rest of a text that is not kept; returns whether all of it has arrived."""
        passed = min(self._skip, len(self._data) - self._at)
        self._skip -= passed
        self._at += passed
        return self._skip == 0

    def _add(self, item: Text, frames: list[Frame]) -> None:
        self._items.append(item)
        self._missing = max(0, self._missing - 1)
        if not self._missing:
            frames.append(self._items)
            self._items = []


_TEXT, _ERROR = b"$-"
_LISTS = b"*>"
_LINES = b"+:_"


def _length(digits: bytes) -> int:
    if not _LENGTH.fullmatch(digits):
        raise InvalidFrame(f"no length: {digits[:20]!r}")
    return int(digits)

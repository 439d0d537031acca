"""Writes log lines without waiting for whoever reads them."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque

from exporter.deadline import Deadline

# Maximum size of the lines that wait to be written, in bytes: some 5,000 lines.
MAX_WAITING_BYTES = 1 << 20


class LineWriter(logging.Handler):
    """Writes lines to a file descriptor in a daemon thread.

    Somebody may hold the other end of a pipe and not read, and a terminal may be stopped: then
    lines are dropped once MAX_WAITING_BYTES wait, and a line afterwards says how many.
    """

    def __init__(self, descriptor: int, encoding: str, deadline: Deadline) -> None:
        super().__init__()
        self._deadline = deadline
        self._descriptor = descriptor
        self._encoding = encoding
        self._lines: deque[bytes] = deque()  # the first one is being written
        self._waiting_bytes = 0
        self._dropped = 0
        self._changed = threading.Condition()
        threading.Thread(target=self._write_forever, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self._encode(record)
        except Exception:  # not handleError, which writes to stderr
            line = self._encode(logging.makeLogRecord({"msg": "a log line cannot be formatted"}))
        with self._changed:
            if self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
                self._dropped += 1
                return
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all is written, at most until the deadline."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines, timeout=self._deadline.left())

    def _encode(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(self._encoding, "backslashreplace")

    def _write_forever(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines[0]
            written = self._write(line)
            with self._changed:
                self._lines.popleft()
                self._waiting_bytes -= len(line)
                self._dropped += not written
                dropped = self._dropped if written and not self._lines else 0
                if dropped:
                    # It waits like any other line, so that `flush` waits for it.
                    self._dropped = 0
                    self._lines.append(self._encode(_line_on(dropped)))
                    self._waiting_bytes += len(self._lines[0])
                self._changed.notify_all()

    def _write(self, line: bytes) -> bool:
        left = memoryview(line)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    select.select([], [self._descriptor], [])
        except OSError:
            return False  # there is no reader: a closed pipe or terminal
        return True


def _line_on(dropped: int) -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": __name__,
            "levelno": logging.WARNING,
            "levelname": "WARNING",
            "msg": "log lines were dropped: stderr was not read",
            "count": dropped,
        }
    )

"""Bounded reads of the files that settings name: in bytes, and in seconds.

Allowing only regular files would not be enough: a file on a stalled network does not answer either,
and a shell's `<(…)` is a pipe.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from exporter.daemon_thread import call_in_daemon_thread

Result = TypeVar("Result")

# How long a start waits for a file, which may be the pipe of a program that requests it from
# another host.
MAX_READ_SECONDS = 10.0
# And how much of it is read (characters): an endless one, such as /dev/zero, would fill all memory
# within that time.
MAX_FILE_LENGTH = 1 << 20


def text_in(file: Path) -> str:
    """The content of a file. Raises OSError, also if it is too large, or UnicodeDecodeError."""
    with file.open(encoding="utf-8") as opened:
        text = opened.read(MAX_FILE_LENGTH + 1)
    if len(text) > MAX_FILE_LENGTH:
        raise OSError(errno.EFBIG, "it is larger than 1 MiB")
    return text


def secret_in(file: Path) -> str:
    """The content of a secret's file, without line breaks at both ends.

    Raises OSError, or ValueError where it is not UTF-8 text.
    """
    try:
        return text_in(file).strip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None


def read_in_time(read: Callable[[], Result]) -> Result:
    """Call `read`, which reads files, and return its result or raise its error.

    Raises OSError where it takes longer than MAX_READ_SECONDS.
    """
    try:
        return call_in_daemon_thread(read).result(timeout=MAX_READ_SECONDS)
    except TimeoutError:
        reason = f"no answer within {MAX_READ_SECONDS:g} s"
        raise TimeoutError(errno.ETIMEDOUT, reason) from None
    except RuntimeError as error:  # no thread can be started
        raise OSError(errno.EAGAIN, str(error)) from None


def described_path(file: Path) -> str:
    """The path of a secret's file for a message; nothing if that may be the secret itself."""
    return f"{file} " if file.is_absolute() else ""

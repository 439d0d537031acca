"""The file that keeps the follower's memory across restarts.

It may be on a disk or a network that stalls. So each file system call is made in a daemon thread,
one at a time, and nothing waits for it without a limit.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from exporter.daemon_thread import call_in_daemon_thread
from exporter.deadline import Deadline
from exporter.queues.tallies import Layout, Saves
from exporter.state import state_format
from exporter.state.state_format import NOTHING_SAVED, Saved

log = logging.getLogger(__name__)

Result = TypeVar("Result")

# Seconds that a start waits for the file, while counters are absent: longer than the 90 s after
# which an NFSv4 server releases the lock of a host that died, and than the 30 s that Kubernetes
# gives the previous pod.
MAX_START_WAIT_SECONDS = 120.0
# Seconds after which a file system counts as stalled at the start, and between two attempts to get
# the lock.
SLOW_SECONDS = 5.0
LOCK_RETRY_SECONDS = 0.25

# Seconds that publishing waits for the counts to be saved.
MAX_SAVE_WAIT_SECONDS = 0.5

# Saves take at most a twentieth of the time, but are never further apart than this.
MAX_PAUSE_SECONDS = 60.0

# A larger file is not read: this program does not write one.
MAX_BYTES = 1 << 30

STALLED = "its file system does not answer"


class FileInUse(OSError):
    """Another process holds the file's lock."""


class StateFile:
    """Positions, counts and unfinished jobs, replaced as a whole.

    A lock on the file `….lock` next to it keeps two processes from replacing each other's file.
    (The file itself is not locked, because each save makes a new one.)
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._due = 0.0
        self._lock: int | None = None  # the file descriptor that holds it
        self._has_locks = True
        self._pending: asyncio.Future[Any] | None = None  # the most recent call
        self._failing = False  # whether that was logged
        self._saved_at = 0.0
        self._failed = 0

    @property
    def due(self) -> bool:
        """Whether to save again: at most once a second."""
        return time.monotonic() >= self._due

    @property
    def saves(self) -> Saves:
        return Saves(self._saved_at, self._failed)

    # Loading

    async def load(self, layout: Layout) -> Saved:
        """The content of the file; empty if there is none.

        Waits while another process has the file, or the file system does not answer. If that lasts
        for MAX_START_WAIT_SECONDS, counters start over, and the file is replaced as soon as
        possible. Histograms whose bounds have changed are omitted.
        """
        give_up = time.monotonic() + MAX_START_WAIT_SECONDS
        reading: asyncio.Future[Saved] | None = None
        reason, said = "", False
        while time.monotonic() < give_up:
            reading = reading or self._start(partial(self._lock_and_read, layout))
            await asyncio.wait({reading}, timeout=SLOW_SECONDS)
            reason = STALLED
            if reading.done():
                try:
                    return reading.result()
                except (FileInUse, RuntimeError) as error:  # or no thread can be started
                    reading, reason = None, str(error)
            if not said:
                self._warn("waiting for the state file: counters are absent", reason)
            said = True
            await asyncio.sleep(LOCK_RETRY_SECONDS)
        self._warn("the state file cannot be used now: counters start over", reason)
        self._failing = True
        return NOTHING_SAVED

    def _lock_and_read(self, layout: Layout) -> Saved:
        """Raises FileInUse. A file that cannot be used is kept as `….unusable`."""
        try:
            self._take_lock()
        except FileInUse:
            raise
        except OSError:
            pass  # the first save gives the reason
        try:
            return state_format.decode(self._read(), layout)
        except FileNotFoundError:
            return NOTHING_SAVED
        except Exception as error:
            # No content of the file may end the process.
            reason = str(error) if type(error) is ValueError else repr(error)
            self._warn("the state file cannot be used: counters start over", reason[:200])
            with suppress(OSError):
                self._file.replace(self._sibling("unusable"))
            return NOTHING_SAVED

    @cached_property
    def _file(self) -> Path:
        """The file that symbolic links lead to: the links are never replaced."""
        return Path(os.path.realpath(self._path))

    def _sibling(self, suffix: str) -> Path:
        return self._file.with_name(f"{self._file.name}.{suffix}")

    def _read(self) -> bytes:
        if self._file.stat().st_size > MAX_BYTES:
            raise ValueError(f"it is larger than {MAX_BYTES} bytes")
        return self._file.read_bytes()

    def _take_lock(self) -> None:
        """Raises FileInUse while another process has it, and OSError."""
        if not self._has_locks or self._holds_lock():
            return
        self._release_lock()
        lock, is_writable = self._open_lock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise FileInUse("in use by another process") from None
        except OSError as error:
            os.close(lock)
            if not is_writable:  # NFS locks only writable files
                raise self._lock_refused() from None
            self._has_locks = False
            self._warn(
                "the state file's file system has no locks: no second exporter may use it",
                str(error),
            )
            return
        self._lock = lock
        if not self._holds_lock():
            self._release_lock()
            raise FileInUse("its lock file was replaced by another process")

    def _open_lock(self) -> tuple[int, bool]:
        """The open lock file, and whether it may be written. Raises OSError.

        It may belong to another user, as whom the exporter ran before.
        """
        flags = os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(self._lock_path, flags | os.O_WRONLY | os.O_CREAT, 0o644), True
        except PermissionError as error:
            refused = error
        try:
            return os.open(self._lock_path, flags | os.O_RDONLY), False
        except FileNotFoundError:
            raise refused from None  # the directory is not writable
        except PermissionError:
            raise self._lock_refused() from None

    def _lock_refused(self) -> PermissionError:
        return PermissionError(
            f"this user may not lock {self._lock_path}: give it the file (chown), or remove the "
            "file once no exporter uses it"
        )

    @property
    def _lock_path(self) -> Path:
        return self._sibling("lock")

    def _holds_lock(self) -> bool:
        """Whether the locked file is the one that others would lock.

        If it was removed, another process can create and lock a new one.
        """
        if self._lock is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._lock), self._lock_path.stat())
        except OSError:
            return False

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # Saving

    async def save(self, memory: Mapping[str, Any]) -> None:
        """Save this memory. Returns when it is saved, or after MAX_SAVE_WAIT_SECONDS.

        A failure is logged once: counting continues, and only a restart would lose something.
        """
        if self._pending is not None and not self._pending.done():
            self._due = time.monotonic() + 1
            self._note_failure(STALLED)
            return
        await asyncio.wait({self._start_save(memory)}, timeout=MAX_SAVE_WAIT_SECONDS)

    async def close(
        self, memory: Mapping[str, Any] | None, deadline: Deadline | None = None
    ) -> None:
        """Save this memory, if any, for the last time; then another process may have the file."""
        seconds = (deadline or Deadline()).left()
        end = time.monotonic() + seconds
        if self._pending is not None and not self._pending.done():
            if memory is None:
                return
            await asyncio.wait({self._pending}, timeout=seconds)
        if self._pending is None or self._pending.done():
            last = self._start_save(memory, release=True)
            await asyncio.wait({last}, timeout=max(end - time.monotonic(), 0))
            if last.done():
                return
        self._note_failure(STALLED)

    def _start(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        self._pending = started = asyncio.wrap_future(call_in_daemon_thread(call))
        return started

    def _start_save(
        self, memory: Mapping[str, Any] | None, *, release: bool = False
    ) -> asyncio.Future[None]:
        # Packed right now, because its lists are the live counters: later counts would be saved
        # with an earlier position.
        packed = None if memory is None else state_format.pack(memory)
        began = time.monotonic()
        saving = self._start(partial(self._write, packed, release))
        if packed is not None:
            saving.add_done_callback(partial(self._note_end, began))
        return saving

    def _note_end(self, began: float, saving: asyncio.Future[None]) -> None:
        now = time.monotonic()
        error = saving.exception()
        if error is not None:
            self._due = now + 1
            self._note_failure(str(error))
        else:
            self._due = max(began + 1, now + min(19 * (now - began), MAX_PAUSE_SECONDS))
            self._saved_at = time.time()
            if self._failing:
                log.info("the state file is written again", extra={"file": str(self._path)})
            self._failing = False

    def _note_failure(self, reason: str) -> None:
        self._failed += 1
        if not self._failing:
            self._warn("the state file cannot be written", reason)
        self._failing = True

    def _write(self, packed: bytes | None, release: bool) -> None:
        """Replace the file in one step: a crash leaves the old or the new one."""
        try:
            if packed is not None:
                self._take_lock()
                self._replace(state_format.file_parts(packed))
        finally:
            if release:
                self._release_lock()

    def _replace(self, parts: tuple[bytes, bytes]) -> None:
        new = self._sibling("new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(new, flags, 0o600), "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._file)
        except OSError:
            with suppress(OSError):
                new.unlink()  # it must not take space on a full disk
            raise

    def _warn(self, message: str, reason: str) -> None:
        log.warning(message, extra={"reason": f"{self._path}: {reason}"})

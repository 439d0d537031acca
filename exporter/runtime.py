"""Tunes Python, the C library and the kernel for this process; nothing else does.

- Python looks for cycles among young objects after 2,000 new ones (700 in Python 3.11), and among
  old ones once an hour or when memory has grown, not whenever their number has (`collect_garbage`).
- glibc returns freed blocks of 128 KiB or more at once, and has one heap for all threads, not eight
  for each core (`return_freed_memory`): as MALLOC_MMAP_THRESHOLD_=131072 and MALLOC_ARENA_MAX=1 in
  the environment would do, wherever the process is started.
- The kernel lets it open as many files as the hard limit allows (`raise_file_limit`).
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource
from contextlib import suppress
from pathlib import Path

# glibc's numbers for mallopt(3).
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8
MMAP_THRESHOLD_BYTES = 128 << 10

# Number of new objects after which young ones are searched for cycles, in less than 1 ms.
YOUNG_OBJECTS = 2000
# All objects are searched once in this many checks, and as soon as memory has grown by more than
# this: by a quarter, as in Python itself, plus a few MB.
GARBAGE_CHECK_SECONDS, GARBAGE_CHECKS = 10, 360
GARBAGE_GROWTH, GARBAGE_BYTES = 1.25, 16 << 20

# In place of "no limit".
MANY_FILES = 1 << 30


def return_freed_memory() -> None:
    """Have the C library return what pages and answers of some MB took, as soon as they are gone.

    By default glibc keeps it, in a heap for each thread: with 10,000 queues 248 MB were held at
    times, and 206 so. Other C libraries have no such switches, and are left alone.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        for switch, value in ((M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES), (M_ARENA_MAX, 1)):
            libc.mallopt(switch, value)


def raise_file_limit() -> int:
    """Raise the limit of open files as far as allowed, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MANY_FILES if soft == resource.RLIM_INFINITY else soft


async def collect_garbage() -> None:
    """Search all objects for cycles once an hour, and whenever memory has grown. Never returns.

    With 10,000 queues a search takes 240 ms, during which nothing else runs, and Python did it
    every other second. Hardly any of our objects are in cycles, but a closed connection is: a
    client that opens 2,000 connections a second leaves 3 MB of them each second.
    """
    gc.set_threshold(YOUNG_OBJECTS, 10, 1 << 30)
    while True:
        limit = resident_bytes() * GARBAGE_GROWTH + GARBAGE_BYTES
        for _ in range(GARBAGE_CHECKS):
            await asyncio.sleep(GARBAGE_CHECK_SECONDS)
            if resident_bytes() > limit:
                break
        gc.collect()


def resident_bytes() -> int:
    """The memory that the process occupies; 0 if that is not known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0

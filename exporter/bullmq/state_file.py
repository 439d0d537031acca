"""The file that keeps the follower's memory over a restart."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

FORMAT = 1


class StateUnreadable(Exception):
    """There is a file, and it is not one of ours, or not whole."""


def load(path: Path) -> dict[str, Any] | None:
    """What was saved, None where nothing was. Raises StateUnreadable and OSError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        memory = msgpack.unpackb(raw, strict_map_key=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise StateUnreadable(f"{path} is not a whole state file") from error
    if not isinstance(memory, dict) or memory.get("format") != FORMAT:
        raise StateUnreadable(f"{path} is not a state file of format {FORMAT}")
    return memory


def save(path: Path, memory: Mapping[str, Any]) -> None:
    """Replace the file in one step: a crash leaves the old or the new one. Raises OSError."""
    packed = msgpack.packb({"format": FORMAT, **memory})
    new = path.with_name(f"{path.name}.new")
    with new.open("wb") as file:
        file.write(packed)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def put_aside(path: Path) -> None:
    """Keep a file that cannot be used as `….unusable`, as far as that can be done."""
    with suppress(OSError):
        path.replace(path.with_name(f"{path.name}.unusable"))

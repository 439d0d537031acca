"""What one source sets, before it is validated."""

from __future__ import annotations

from typing import Any, NamedTuple


class Value(NamedTuple):
    """A value as it was given, and where."""

    value: Any
    origin: str  # how the user would name it: a flag, a variable, or a key of the file


# By path: `redis.host`.
Layer = dict[str, Value]

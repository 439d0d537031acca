"""Hiding parts of what applications wrote, as those see it who do not know how it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

# Returns a text, or another value of JSON, without what the settings name; a text stays one.
Redact = Callable[[Any], Awaitable[Any]]


async def unredacted(value: Any) -> Any:
    """The value as it is."""
    return value

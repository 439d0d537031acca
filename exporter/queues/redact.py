"""The interface of redaction, for code that does not know how it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

# Returns a JSON value without what the settings hide; a text stays a text.
Redact = Callable[[Any], Awaitable[Any]]


async def unredacted(value: Any) -> Any:
    """The value as it is."""
    return value

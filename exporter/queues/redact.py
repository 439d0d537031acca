"""Hiding parts of what applications wrote, as those see it who do not know how it is done."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

# Returns the text without what the settings name.
Redact = Callable[[str], Awaitable[str]]


async def unredacted(text: str) -> str:
    """The text as it is."""
    return text

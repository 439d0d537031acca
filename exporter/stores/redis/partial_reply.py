"""Parses the beginning of a reply whose end did not arrive."""

from __future__ import annotations

from typing import Any


def first_items(head: bytes) -> list[Any]:
    """The items at the beginning of an incomplete reply that is a list or a map.

    An incomplete list within it has the complete items only; a map is a flat list.
    """
    items, _, _ = _items(head, 0)
    return items if isinstance(items, list) else []


def _items(head: bytes, at: int) -> tuple[Any, int, bool]:
    """The item at `at` (None if nothing of it arrived), its end, and whether it is complete."""
    end = head.find(b"\r\n", at)
    if end < 0:
        return None, at, False
    kind, rest, at = head[at : at + 1], head[at + 1 : end], end + 2
    if kind == b"$" and rest != b"-1":
        size = int(rest)
        if len(head) < at + size + 2:
            return None, at, False
        return head[at : at + size], at + size + 2, True
    if kind in (b"*", b"%") and rest != b"-1":
        items = []
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            item, at, complete = _items(head, at)
            if complete or item is not None:
                items.append(item)
            if not complete:
                return items, at, False
        return items, at, True
    return (int(rest) if kind == b":" else None), at, True

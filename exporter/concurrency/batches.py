"""Work in batches: what is requested from Redis at once, or done before yielding to other tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`size` items at a time, in order; the last ones may be fewer. (itertools: from 3.12.)"""
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch

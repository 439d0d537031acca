"""Regular expressions match alike in all versions of Python that are supported."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from exporter import logs
from exporter.queues import reason_lines, reason_tokens, reason_values, reason_words
from exporter.web import redaction

MODULES = (logs, reason_lines, reason_tokens, reason_values, reason_words, redaction)
constants = re._constants  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.__name__))
def test_a_group_that_is_repeated_possessively_is_atomic(module: ModuleType) -> None:
    """Python before 3.11.5, as in Debian 12, matches other groups wrongly (gh-106052)."""
    for pattern in patterns(vars(module).values()):
        parsed = re._parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)  # type: ignore[attr-defined]
        for repeated in repeated_possessively(parsed):
            (item,) = repeated  # a single element: a character, a set of them or a group
            assert item[0] in (*SINGLE_CHARACTERS, constants.ATOMIC_GROUP), pattern.pattern


SINGLE_CHARACTERS = (constants.LITERAL, constants.NOT_LITERAL, constants.IN, constants.ANY)


def patterns(values: Any) -> Iterator[re.Pattern[str]]:
    for value in values:
        if isinstance(value, re.Pattern):
            if isinstance(value.pattern, str):
                yield value
        elif isinstance(value, dict):
            yield from patterns(value.values())
        elif isinstance(value, tuple | list):
            yield from patterns(value)


def repeated_possessively(parsed: Any) -> Iterator[Any]:
    if isinstance(parsed, tuple | list) or hasattr(parsed, "data"):
        items = list(parsed.data if hasattr(parsed, "data") else parsed)
        if items and items[0] is constants.POSSESSIVE_REPEAT:
            yield items[1][2]
        for item in items:
            yield from repeated_possessively(item)

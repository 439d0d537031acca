"""Values of jobs that should be JSON, and may be anything."""

from __future__ import annotations

import json
from typing import Any

import orjson

from exporter.queues.text import text

# orjson reads deeper than it writes: 1,024 levels, and 254.
MAX_JSON_DEPTH = 240


class NotJson(str):
    """A text found where JSON is expected."""

    __slots__ = ()


def parse_json(raw: bytes | None) -> Any:
    """The parsed value; for anything that is not JSON, the string itself as a NotJson."""
    if raw is None:
        return None
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _with_lone_surrogates(raw)
    if len(raw) > MAX_JSON_DEPTH and _may_be_deep(raw, value):
        try:
            # The answer of the API adds further levels around it.
            orjson.dumps([[[[[[[[value]]]]]]]])
        except TypeError:
            return NotJson(text(raw))
    return value


def _may_be_deep(raw: bytes, value: Any) -> bool:
    # Nearly always a stack trace, for which counting brackets takes longer than parsing.
    if isinstance(value, list) and set(map(type, value)) == {str}:
        return False
    return raw.count(b"[") + raw.count(b"{") > MAX_JSON_DEPTH


def _with_lone_surrogates(raw: bytes) -> Any:
    r"""JSON with half of a surrogate pair, such as a text that was cut within an emoji.

    JSON.stringify writes it as `\ud83d`, which orjson refuses; it is shown as U+FFFD.
    """
    if rb"\ud" not in raw.lower():
        return NotJson(text(raw))
    try:
        written = json.dumps(json.loads(raw), ensure_ascii=False)
        return orjson.loads(written.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    except (ValueError, RecursionError):
        return NotJson(text(raw))

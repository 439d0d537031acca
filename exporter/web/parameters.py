"""Validates a request's parameters; every error says what is allowed."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_plus, unquote_to_bytes

from aiohttp import web

from exporter.web.responses import BadRequest

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
MAX_TEXT_LENGTH = 500


def parameter(request: web.Request, name: str) -> str | None:
    """A parameter's value, or None. Raises BadRequest if it is given twice."""
    given = request.query.getall(name, [])
    if len(given) > 1:
        raise BadRequest(f"{name} is given {len(given)} times, but may be given only once")
    return given[0] if given else None


def raw_parameter(request: web.Request, name: str) -> bytes | None:
    """A parameter's bytes, which need not be UTF-8. Raises BadRequest if it is given twice."""
    if parameter(request, name) is None:
        return None
    parts = request.raw_path.partition("#")[0].partition("?")[2].split("&")
    values = {unquote_plus(key): value for key, _, value in (part.partition("=") for part in parts)}
    return unquote_to_bytes(values[name].replace("+", " "))


def raw_rest(request: web.Request) -> bytes:
    """The last part of the path, decoded to bytes, which need not be UTF-8.

    It is found by the number of parts, because the route matched the parts before it decoded.
    """
    resource = request.match_info.route.resource
    before = 0 if resource is None else resource.canonical.count("/")
    return unquote_to_bytes(request.rel_url.raw_path.split("/", before)[-1])


def choice(request: web.Request, name: str, allowed: list[str], default: str | None) -> Any:
    """One of the allowed words. Raises BadRequest."""
    given = parameter(request, name)
    if given is None:
        return default
    if given not in allowed:
        raise BadRequest(f"{name} must be one of {', '.join(allowed)}")
    return given


def whole_number(request: web.Request, name: str, default: int, highest: int) -> int:
    """A number from 1 on. Raises BadRequest."""
    given = parameter(request, name)
    if given is None:
        return default
    if not re.fullmatch("[0-9]{1,12}", given) or not 1 <= int(given) <= highest:
        raise BadRequest(f"{name} must be a whole number from 1 to {highest}")
    return int(given)


def duration(request: web.Request, name: str) -> int | None:
    """Seconds, or None for no limit. Raises BadRequest."""
    given = parameter(request, name)
    if given is None:
        return None
    match = re.fullmatch("([0-9]{1,5})([smhdw])", given)
    if not match or not int(match[1]):
        raise BadRequest(f"{name} must be a duration such as 30m, 24h or 7d (s, m, h, d, w)")
    return int(match[1]) * UNITS[match[2]]


def short_text(request: web.Request, name: str) -> str | None:
    """Text to search for; None if there is none. Raises BadRequest."""
    given = parameter(request, name)
    if given and len(given) > MAX_TEXT_LENGTH:
        raise BadRequest(f"{name} must not be longer than {MAX_TEXT_LENGTH} characters")
    return given or None

"""The messages on wrong settings: one line, what is allowed, and no secret."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from exporter.settings.layer import Layer
from exporter.settings.model import LEAVES
from exporter.settings.names import FILE_ONLY


class SettingsError(Exception):
    """What is wrong with a setting and what is allowed, in one line and without its secrets."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def hint_for(name: str, known: Iterable[str]) -> str:
    """What to add to the name of a setting that does not exist: the closest one that does."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else "; config/exporter.yml lists them all"


# Replacements for messages of pydantic that mention Python, by the first word of the error's type.
COMPLAINTS = {
    "bool": "must be true or false",
    "extra": "no such setting",
    "float": "must be a number",
    "int": "must be a whole number",
    "missing": "is missing",
    "model": "must be a mapping of settings to values",
    "path": "must be a file's path",
    "string": "must be text",
    "tuple": "must be a list",
}


def explain(error: ValidationError, layer: Layer) -> str:
    """The first error, with the name by which the setting was given according to `layer`."""
    first = error.errors(include_url=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    kind, context = first["type"], first.get("ctx", {})
    if kind.endswith("too_short"):
        least = context["min_length"]
        message = "must not be empty" if least == 1 else f"must have at least {least} characters"
    else:
        message = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        message = message.replace("greater than or equal to", "at least")
        message = message.replace("less than or equal to", "at most")
        message = COMPLAINTS.get(kind.partition("_")[0], message)
    parent = next(
        (known for known in LEAVES if path == known or path.startswith(f"{known}.")), None
    )
    if parent is None:
        return message
    origin = layer[parent].origin + path[len(parent) :] if parent in layer else path
    shown = first["input"]
    if LEAVES[parent].secret or parent in FILE_ONLY or not _may_be_shown(shown, kind, layer):
        return f"{origin}: {message}"
    return f"{origin}: {message}, not {shown[:60]!r}"


def _may_be_shown(value: Any, kind: str, layer: Layer) -> bool:
    """Whether the message may repeat a wrong value with this type of error: it may be or contain a
    secret.

    Values for numbers and choices are repeated, addresses and other texts are not.
    """
    if not isinstance(value, str) or kind == "value_error" or "://" in value or "@" in value:
        return False
    secrets = [
        str(each.value) for path, each in layer.items() if path in LEAVES and LEAVES[path].secret
    ]
    return not any(secret in value for secret in secrets)

"""Secrets from files, as container platforms mount them: `REDIS_PASSWORD_FILE`, `key_file`.

A file is read before the settings are validated: its content has bounds too, and a URL
(`redis.url_file`) contains several settings, which have to be known before sources are merged.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from exporter.settings.files import described_path, read_in_time, secret_in
from exporter.settings.layer import Layer, Value
from exporter.settings.messages import SettingsError
from exporter.settings.model import LEAVES


def read_secret_files(layer: Layer) -> Layer:
    """The layer with the content of the secret files that it names. Raises SettingsError."""
    read = dict(layer)
    for leaf in LEAVES.values():
        given = read.pop(f"{leaf.path}_file", None) if leaf.secret else None
        if given is None:
            continue
        if leaf.path in read:
            raise SettingsError(f"{given.origin} and {read[leaf.path].origin}: set one of the two")
        read[leaf.path] = Value(_read_secret(given.value, given.origin), given.origin)
        if leaf.path in ("redis.password", "postgres.password"):
            # It may change while the exporter runs: each connection reads it again.
            read[f"{leaf.path}_file"] = given
    return read


def read_key_files(keys: Value) -> Value:
    """`api.keys` is a list, so its `key_file` entries are read here. Raises SettingsError."""
    if not isinstance(keys.value, list):
        return keys
    read = []
    for index, entry in enumerate(keys.value):
        if isinstance(entry, dict) and entry.get("key_file") is not None:
            rest = {name: value for name, value in entry.items() if name != "key_file"}
            origin = f"{keys.origin}.{index}.key_file"
            if rest.get("key") is not None:
                raise SettingsError(f"{origin} and {keys.origin}.{index}.key: set one of the two")
            read.append(rest | {"key": _read_secret(entry["key_file"], origin)})
        else:
            read.append(entry)
    return Value(read, keys.origin)


def _read_secret(path: Any, origin: str) -> str:
    try:
        return read_in_time(partial(secret_in, Path(str(path))))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        described = described_path(Path(str(path)))
        raise SettingsError(f"{origin}: {described}cannot be read: {reason}") from None

"""Splits the URL of Redis into the settings that it contains."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from exporter.settings.layer import Layer, Value
from exporter.settings.messages import SettingsError


def expand_redis_url(layer: Layer) -> Layer:
    """The layer with its `redis.url` split into the settings that it contains.

    Raises SettingsError, which does not repeat the URL: it may hold a password.
    """
    given = layer.get("redis.url")
    if given is None:
        return layer
    refusal = SettingsError(
        f"{given.origin}: must be redis[s]://[user[:password]@]host[:port][/database] or "
        "unix://[user[:password]@]/path/of/the.sock, with what is special in a URL "
        "(@ : / ? # %) percent-encoded in user and password"
    )
    try:
        url = urlsplit(str(given.value))
        port = url.port
    except ValueError:
        raise refusal from None
    if url.scheme == "unix":
        return _expand_socket_url(layer, given, url, refusal)
    database = url.path.strip("/")
    if (
        url.scheme not in ("redis", "rediss", "valkey", "valkeys")
        or not url.hostname
        or port == 0
        or url.query
        or url.fragment
        or not re.fullmatch(r"[0-9]{0,10}", database)
    ):
        raise refusal
    parts: dict[str, Any] = {"host": url.hostname, "tls": url.scheme in ("rediss", "valkeys")}
    if port is not None:
        parts["port"] = port
    if database:
        parts["db"] = database
    return _with_url(layer, given, url, parts | {"socket": None})


def _expand_socket_url(
    layer: Layer, given: Value, url: SplitResult, refusal: SettingsError
) -> Layer:
    if url.hostname or not url.path.strip("/") or url.query or url.fragment:
        raise refusal
    return _with_url(layer, given, url, {"socket": unquote(url.path), "tls": False})


def _with_url(layer: Layer, given: Value, url: SplitResult, parts: dict[str, Any]) -> Layer:
    if url.username:
        parts["user"] = unquote(url.username)
    if url.password:
        parts["password"] = unquote(url.password)
    # It names a server, so no Sentinel is asked for one.
    parts |= {"sentinels": (), "sentinel_master": None}
    replaced = {"redis.url", *(["redis.password_file"] if url.password else [])}
    expanded = {path: value for path, value in layer.items() if path not in replaced}
    return expanded | {f"redis.{name}": Value(part, given.origin) for name, part in parts.items()}

"""Splits the URL of PostgreSQL into the settings that it contains."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from exporter.settings.layer import Layer, Value
from exporter.settings.messages import SettingsError

# What `sslmode` says of TLS. `allow` and `prefer` would go on without it where somebody in between
# says so, and `verify-ca` takes the certificate of any host.
SSL_MODES: dict[str, dict[str, Any]] = {
    "disable": {"tls": False},
    "require": {"tls": True, "tls_verify": False},
    "verify-full": {"tls": True, "tls_verify": True},
}


def expand_postgres_url(layer: Layer) -> Layer:
    """The layer with its `postgres.url` split into the settings that it contains.

    Raises SettingsError, which does not repeat the URL: it may hold a password.
    """
    given = layer.get("postgres.url")
    if given is None:
        return layer
    parts = _parts(str(given.value))
    if parts is None:
        raise SettingsError(
            f"{given.origin}: must be postgres[ql]://[user[:password]@]host[:port][/database]"
            f"[?sslmode={'|'.join(SSL_MODES)}], or ?host=/directory/of/the/socket without a host, "
            "with what is special in a URL (@ : / ? # %) percent-encoded in user, password and "
            "database"
        )
    replaced = {"postgres.url", *(["postgres.password_file"] if "password" in parts else [])}
    kept = {path: value for path, value in layer.items() if path not in replaced}
    return kept | {f"postgres.{name}": Value(part, given.origin) for name, part in parts.items()}


def _parts(given: str) -> dict[str, Any] | None:
    """The settings that a URL names; None if it is not one of PostgreSQL."""
    try:
        url = urlsplit(given)
        port = url.port
        query = dict(parse_qsl(url.query, strict_parsing=True)) if url.query else {}
    except ValueError:
        return None
    mode, directory = query.pop("sslmode", None), query.pop("host", None)
    host = directory or url.hostname
    if (
        url.scheme not in ("postgres", "postgresql")
        or not host
        or (directory is not None and (url.hostname or not directory.startswith("/")))
        or port == 0
        # As a password with a `/` would look.
        or any(special in url.path.removeprefix("/") for special in "/@:")
        or query
        or url.fragment
        or (mode is not None and mode not in SSL_MODES)
    ):
        return None
    parts: dict[str, Any] = {"host": host}
    if port is not None:
        parts["port"] = port
    if database := unquote(url.path.removeprefix("/")):
        parts["database"] = database
    if url.username:
        parts["user"] = unquote(url.username)
    if url.password:
        parts["password"] = unquote(url.password)
    return parts | (SSL_MODES[mode] if mode else {})

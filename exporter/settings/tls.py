"""TLS contexts from the files that settings name."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

from exporter.settings.files import described_path
from exporter.settings.model import MetricsSettings, PostgresSettings, RedisSettings
from exporter.settings.names import names_of


def client_context(settings: RedisSettings | PostgresSettings) -> ssl.SSLContext:
    """The context for connecting to a store. Waits without a limit for files that do not answer.

    Raises ValueError for files that cannot be used, in one line that names the settings.
    """
    context = ssl.create_default_context()
    if not settings.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.tls_ca is not None:
        try:
            context.load_verify_locations(settings.tls_ca)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{settings.names_of('tls_ca')}: {settings.tls_ca} cannot be used, a PEM file of "
                f"certificates is needed: {getattr(error, 'strerror', None) or error}"
            ) from None
    if settings.tls_cert is not None:
        _load_pair(context, settings.tls_cert, settings.tls_key, settings.names_of)
    return context


def metrics_context(settings: MetricsSettings) -> ssl.SSLContext | None:
    """The context for serving the metrics port; None if TLS is off. Waits and raises as above."""
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    _load_pair(
        context, settings.tls_cert, settings.tls_key, lambda field: names_of(f"metrics.{field}")
    )
    return context


def _load_pair(
    context: ssl.SSLContext, cert: Path, key: Path | None, name: Callable[[str], str]
) -> None:
    """`name` is how messages name `tls_cert` and `tls_key`."""
    try:
        # With a password OpenSSL does not ask for one on the terminal.
        context.load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name('tls_cert')} {described_path(cert)}and {name('tls_key')} "
            f"{described_path(key) if key else ''}cannot be used, two PEM files that belong "
            "together, the key without a password, are needed: "
            f"{getattr(error, 'strerror', None) or error}"
        ) from None

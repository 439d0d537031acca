"""Settings: what can be set, by which names, and from where.

A start takes three steps, each with its own errors (SettingsError, one line without secrets):

1. `sources.load` collects what flags, environment and file say, with the secrets in files, and
2. validates it (`model`), which reads nothing;
3. `preparation.prepare` tries the files that they name: certificates, keys, the state file.
"""

from exporter.settings.files import secret_in
from exporter.settings.messages import SettingsError
from exporter.settings.model import (
    LEAVES,
    ApiSettings,
    EventsSettings,
    LogSettings,
    MetricsSettings,
    PostgresSettings,
    RedisSettings,
    Settings,
    Watched,
)
from exporter.settings.names import FILE_ONLY, FLAGS, OPEN_ARCHIVER_NAMES, names_of
from exporter.settings.preparation import Prepared, prepare
from exporter.settings.sources import load
from exporter.settings.tls import client_context
from exporter.settings.values import Address, ValueKind, is_pattern, literal

__all__ = [
    "FILE_ONLY",
    "FLAGS",
    "LEAVES",
    "OPEN_ARCHIVER_NAMES",
    "Address",
    "ApiSettings",
    "EventsSettings",
    "LogSettings",
    "MetricsSettings",
    "PostgresSettings",
    "Prepared",
    "RedisSettings",
    "Settings",
    "SettingsError",
    "ValueKind",
    "Watched",
    "client_context",
    "is_pattern",
    "literal",
    "load",
    "names_of",
    "prepare",
    "secret_in",
]

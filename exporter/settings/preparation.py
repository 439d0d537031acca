"""Tries the files that validated settings name, before the settings are used."""

from __future__ import annotations

import importlib.util
import os
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from exporter.daemon_thread import call_in_daemon_thread
from exporter.settings.files import described_path, read_in_time
from exporter.settings.messages import SettingsError
from exporter.settings.model import PostgresSettings, RedisSettings, Settings
from exporter.settings.names import names_of
from exporter.settings.tls import client_context, metrics_context

Context = TypeVar("Context")

# How long a start waits for a file system that stalls.
FILE_SYSTEM_SECONDS = 2.0


@dataclass(frozen=True)
class Prepared:
    """Settings whose files can be used, and the objects made from them."""

    settings: Settings
    metrics_tls: ssl.SSLContext | None  # None: the metrics port has no TLS


def prepare(settings: Settings) -> Prepared:
    """Make the TLS contexts, and check the place of the state file.

    Raises SettingsError: one line for the first file that cannot be used, does not answer within
    10 s, or cannot be written.
    """
    for each in settings.by_target().values():
        _check_store(each.postgres if each.in_postgres else each.redis)
    metrics = settings.metrics
    files = (file for file in (metrics.tls_cert, metrics.tls_key) if file is not None)
    metrics_tls = _load_in_time(partial(metrics_context, metrics), names_of("metrics.tls_*"), files)
    _check_state_file(settings.events.state_file)
    return Prepared(settings, metrics_tls)


def _check_store(store: RedisSettings | PostgresSettings) -> None:
    """Only check that a context can be made: connections read the files again."""
    if isinstance(store, PostgresSettings) and importlib.util.find_spec("psycopg") is None:
        raise SettingsError(
            f"{store.names_of('host')} needs the package psycopg: "
            "pip install 'bullmq-exporter[postgres]'"
        )
    if store.tls_files:
        _load_in_time(partial(client_context, store), store.names_of("tls_*"), store.tls_files)


def _load_in_time(load: Callable[[], Context], place: str, files: Iterable[Path]) -> Context:
    try:
        return read_in_time(load)
    except OSError as error:
        described = "".join(map(described_path, files))
        raise SettingsError(
            f"{place}: one of the files {described}cannot be read: {error.strerror}"
        ) from None
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _check_state_file(file: Path | None) -> None:
    if file is not None and not _may_be_replaced(file):
        raise SettingsError(
            f"{names_of('events.state_file')}: {file} cannot be written, a file in a directory "
            "that exists and that this user may write is needed"
        )


def _may_be_replaced(file: Path) -> bool:
    """Whether it is a regular file or does not exist, and its directory may be written; with
    symbolic links, the directory of the file that they lead to.
    """

    def look() -> bool:
        real = Path(os.path.realpath(file))
        is_regular = real.is_file() or not os.path.lexists(real)
        return is_regular and os.access(real.parent, os.W_OK)

    try:
        return call_in_daemon_thread(look).result(timeout=FILE_SYSTEM_SECONDS)
    except (TimeoutError, RuntimeError):
        return True  # a file system that stalls, or no thread; the start goes on
    except (OSError, ValueError):  # or a NUL in its path
        return False

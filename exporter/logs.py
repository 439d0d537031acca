"""Structured logs on stderr, as logfmt or JSON, without secrets."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from exporter.settings import LogSettings


def _without(secrets: Iterable[str]) -> Processor:
    """The last guard: should a library put a secret into a message, it is not printed."""
    # Longest first, so that no part of a secret that holds another one is left standing.
    known = sorted(set(secrets), key=len, reverse=True)

    def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        def clean(value: Any) -> Any:
            if value is None or isinstance(value, bool | int | float):
                return value
            shown = str(value)
            for secret in known:
                shown = shown.replace(secret, "[redacted]")
            return shown

        return {key: clean(value) for key, value in event.items()}

    return redact


def configure(settings: LogSettings, secrets: Iterable[str] = ()) -> None:
    """Send every logger's lines, those of libraries too, through one formatter to stderr."""
    shared: list[Processor] = [
        # The name of the target that a line is about, where there are several.
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        structlog.processors.EventRenamer("msg"),
    ]
    render: Processor
    if settings.format == "json":
        render = structlog.processors.JSONRenderer()
    else:
        render = structlog.processors.LogfmtRenderer(key_order=["ts", "level", "msg"])
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without(secrets),
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)
    # One line for every request is what a reverse proxy is for.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

"""Structured logs on stderr, as logfmt or JSON, without secrets and control characters."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from exporter.deadline import Deadline
from exporter.log_writer import LineWriter
from exporter.settings import LogSettings

# Characters that a terminal or a log viewer may interpret instead of showing them: control
# characters, marks and overrides of the writing direction, line separators, and zero-width
# characters (the same as in web/page/text.js). Names of queues and errors of Redis may contain any
# of them.
_UNPRINTABLE = re.compile(
    r"[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]"
    r"|[\ud800-\udfff]"
)
# Maximum number of characters of one value of a log line: an error of Redis may have any length. A
# traceback has about 5,000.
MAX_VALUE_CHARS = 20_000
# Shorter secrets (characters) are not searched for: the text of the lines is known, so the mark
# would reveal the secret. In `[redacted]edis is unavailable` it stands for an R.
MIN_SECRET_CHARS = 8
# Lines with the same message within a minute: a FLUSHALL of 10,000 queues, or somebody who changes
# the type of a key again and again, would write one for each.
MAX_LINES_PER_MINUTE = 100
_REDACTED = "[redacted]"
# User and password in any URL.
_URL_USER = re.compile(r"(?<=://)[^\s/?#@\"']++@")


def one_line(text: str) -> str:
    r"""The text with unprintable characters as escapes, a line end as `\n`."""
    return _UNPRINTABLE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def _printable(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Escape unprintable characters. Line ends stay: both formats escape them themselves."""

    def clean(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        more = len(value) - MAX_VALUE_CHARS
        if more > 0:
            value = f"{value[:MAX_VALUE_CHARS]}... ({more} more characters)"
        return "\n".join(map(one_line, value.split("\n")))

    return {key: clean(value) for key, value in event.items()}


def secret_remover(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that removes these secrets from a text, and users and passwords in URLs.

    For the exporter's own secrets; web.redaction hides what jobs contain.
    """
    # Longest first: if one secret contains another, nothing of the longer one remains.
    long = {secret for secret in secrets if len(secret) >= MIN_SECRET_CHARS}
    known = sorted(long, key=len, reverse=True)

    def remove_secrets(text: str) -> str:
        text = _URL_USER.sub(f"{_REDACTED}@", text)
        for secret in known:
            text = text.replace(secret, _REDACTED)
        return text

    return remove_secrets


def _without(secrets: Iterable[str]) -> Processor:
    """A last guard, in case a library puts a secret into a message."""
    remove_secrets = secret_remover(secrets)

    def redact(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        def clean(value: Any) -> Any:
            if value is None or isinstance(value, bool | int | float):
                return value
            return remove_secrets(str(value))

        # Our own messages are constants, and a secret may be one of their words.
        kept = {"ts", "level", "_record", "_from_structlog"}
        if event["_record"].name.startswith("exporter"):
            kept.add("msg")
        return {key: value if key in kept else clean(value) for key, value in event.items()}

    return redact


class LineLimit(logging.Filter):
    """Passes MAX_LINES_PER_MINUTE lines with the same message, and reports when it begins to drop
    lines and how many it has dropped. Lines of level `debug` are never dropped, because somebody
    asked for them.
    """

    def __init__(self) -> None:
        super().__init__()
        # Since when, and how many lines: by our messages, which are constants, or by the loggers
        # of libraries.
        self._windows: dict[str, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return True
        kind = str(record.msg) if record.name.startswith("exporter") else record.name
        now = time.monotonic()
        began, lines = self._windows.get(kind, (now, 0))
        if now - began >= 60:
            if lines > MAX_LINES_PER_MINUTE:
                record.unlogged = lines - MAX_LINES_PER_MINUTE
            began, lines = now, 0
        self._windows[kind] = (began, lines + 1)
        if lines + 1 == MAX_LINES_PER_MINUTE:
            record.further = "not logged for up to a minute"
        return lines < MAX_LINES_PER_MINUTE


def configure(
    settings: LogSettings, secrets: Iterable[str] = (), deadline: Deadline | None = None
) -> None:
    """Send every logger's lines, those of libraries too, through one formatter to stderr.

    The end of the process waits for them until the deadline.
    """
    deadline = deadline or Deadline()
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
    if sys.stderr is None:  # it was closed before the start (`2>&-`)
        handler = LineWriter(os.open(os.devnull, os.O_WRONLY), "utf-8", deadline)
    else:
        handler = LineWriter(sys.stderr.fileno(), sys.stderr.encoding, deadline)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _without(secrets),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _printable,
                render,
            ],
        )
    )
    handler.addFilter(LineLimit())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    logging.captureWarnings(True)
    # An access log is left to a reverse proxy.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)

"""The command line."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import io
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

from exporter import __version__, app, check, logs
from exporter.deadline import Deadline
from exporter.queues.errors import StoreUnavailable
from exporter.runtime import return_freed_memory
from exporter.settings import FLAGS, SettingsError, load, prepare

# For each flag the placeholder of its value, and what it does.
HELP = {
    "redis.url": ("URL", "redis[s]://[user[:password]@]host[:port][/database]"),
    "postgres.url": ("URL", "postgres://[user[:password]@]host[:port][/database]; for BullMQ 6"),
    "metrics.listen": ("HOST:PORT", "address of the metrics port (:9538)"),
    "api.listen": ("HOST:PORT", "address of the Jobs API and the page (:9539)"),
    "poll_interval": ("SECONDS", "time from one poll of Redis to the next (5)"),
    "queues": ("A,B", "watch only these queues (default: all that are found)"),
    "prefix": ("PREFIX", "BullMQ's key prefix, or several with commas (bull)"),
    "log.level": ("LEVEL", "debug, info, warning or error (info)"),
}


class _Parser(argparse.ArgumentParser):
    @property
    def flags(self) -> list[str]:
        return list(self._option_string_actions)

    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists the options")


def _parser() -> _Parser:
    parser = _Parser(
        prog="bullmq-exporter",
        description="Prometheus exporter and Jobs API for BullMQ queues.",
        epilog="Every setting, its environment variable and its default: config/exporter.yml",
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", type=Path, help="settings in YAML")
    for path, flag in FLAGS.items():
        metavar, text = HELP[path]
        parser.add_argument(flag, dest=path, metavar=metavar, help=text)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--check",
        action="store_true",
        help="test the settings: connect, list queues, exit (1 if there are none)",
    )
    mode.add_argument("--demo", action="store_true", help="start a Valkey with example queues")
    parser.add_argument("--postgres", action="store_true", help="with --demo: a PostgreSQL instead")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    return parser


def main() -> None:
    """Run the command line.

    Exits 0, 1 if --check finds no queue, or 2 with one line that says what is wrong.
    """
    secrets: list[str] = []
    try:
        _run(sys.argv[1:], secrets)
    except (SettingsError, StoreUnavailable) as error:
        message = logs.one_line(" ".join(logs.secret_remover(secrets)(str(error)).split()))
        print(f"bullmq-exporter: {message[: logs.MAX_VALUE_CHARS]}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(arguments: list[str], secrets: list[str]) -> None:
    """`secrets` are noted there as soon as they are known."""
    parser = _parser()
    namespace, unknown = parser.parse_known_args(arguments)
    parsed = vars(namespace)
    if unknown:
        # An argument that is not an option's name is not repeated: it may be a password, or a URL
        # with one.
        name = unknown[0].partition("=")[0]
        if not name.startswith("-"):
            parser.error("unexpected positional argument")
        close = difflib.get_close_matches(name, parser.flags, n=1)
        parser.error(f"unknown option {name}" + (f", did you mean {close[0]}?" if close else ""))
    if [] in parsed.values():
        # This is how Python 3.11's argparse parses `--flag=--`.
        parser.error("-- is not a value of an option")
    flags = {path: parsed[path] for path in FLAGS if parsed[path] is not None}
    if parsed["demo"]:
        _demo(flags, parsed["config"], in_postgres=parsed["postgres"])
        return
    if parsed["postgres"]:
        parser.error("--postgres requires --demo; for queues in PostgreSQL use --postgres-url")
    settings = load(flags, os.environ, parsed["config"])
    secrets += settings.secrets()
    prepared = prepare(settings)
    if parsed["check"]:
        logging.disable()
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A name that the terminal's encoding cannot represent must not end the program.
            sys.stdout.reconfigure(errors="backslashreplace")
        checked = asyncio.run(check.check(settings))
        print(checked.text)
        if not checked.has_found:
            sys.exit(1)
        return
    deadline = Deadline()
    logs.configure(settings.log, secrets, deadline)
    return_freed_memory()
    asyncio.run(app.run(prepared, deadline=deadline))


def _demo(flags: dict[str, str], config: Path | None, *, in_postgres: bool) -> None:
    try:
        from exporter.demo import choose_store, run_demo  # noqa: PLC0415 - an extra's packages

        running_store = choose_store(in_postgres=in_postgres)
    except ModuleNotFoundError as error:
        extras = "demo,postgres" if in_postgres else "demo"
        raise SettingsError(
            f"--demo needs the package {error.name}: pip install 'bullmq-exporter[{extras}]'"
        ) from None
    asyncio.run(run_demo(flags, config, running_store))

"""`python -m exporter.healthcheck`, for an image's HEALTHCHECK: whether the exporter that runs here
answers; exits 0 or 1.

It asks the metrics port for `/-/healthy`. Where that is, the running exporter says: its flags, its
environment and its file, which /proc shows to the same user. `--metrics-listen` and `--config` name
them instead where several exporters run. Without both, and with no exporter to be found, its own
environment counts.

TLS is used if the exporter has a certificate. The certificate is not verified: it is made for the
name under which others reach the port, and may be signed by anybody; the check is only whether this
machine's own process answers. No credential is sent. An expired certificate is for Prometheus to
notice, and no reason to restart the process.

Settings are not validated here, because that takes 0.7 s of CPU each time instead of 0.1: the
exporter accepted them when it started.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import ssl
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

# Less than the timeout of the Dockerfile's HEALTHCHECK, so that the reason can be printed.
TIMEOUT_SECONDS = 4
MAX_FILE_BYTES = 1 << 20
DEFAULT_LISTEN = ":9538"
PROC = Path("/proc")


class Unhealthy(Exception):
    """Why the exporter is not healthy, or cannot be asked: one line."""


@dataclass(frozen=True)
class Start:
    """How an exporter was started."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class MetricsPort:
    """Where the exporter answers."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unhealthy(message)


def main() -> None:
    """Print the answer, or why there is none."""
    signal.signal(signal.SIGALRM, _time_is_over)
    signal.alarm(TIMEOUT_SECONDS)
    try:
        print(ask(metrics_port(_start(sys.argv[1:]))))
    except Unhealthy as error:
        sys.exit(f"unhealthy: {error}")


def _time_is_over(*_: object) -> NoReturn:
    raise Unhealthy(f"no answer within {TIMEOUT_SECONDS} s")


def _start(arguments: Sequence[str]) -> Start:
    """How the exporter to check was started. Raises Unhealthy if there are several candidates."""
    own = Start(arguments, os.environ, Path())
    parser = _parser()
    parser.parse_args(arguments)
    if arguments:
        return own
    running = dict(_running_exporters())
    if len(running) > 1:
        raise Unhealthy(
            f"several exporters run here (processes {', '.join(map(str, sorted(running)))}): name "
            "one by --metrics-listen or --config"
        )
    return next(iter(running.values()), own)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m exporter.healthcheck", allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE", help="the exporter's settings file")
    parser.add_argument("--metrics-listen", metavar="HOST:PORT", help="where the exporter listens")
    return parser


def _running_exporters() -> Iterator[tuple[int, Start]]:
    """The exporters of this user that can be reached, by the ids of their processes."""
    for process in PROC.glob("[0-9]*"):
        try:
            command = _texts(process / "cmdline")
            arguments = _arguments_of_exporter(command)
            if arguments is None or process.stat().st_uid != os.getuid():
                continue
            # With `pid: host` those of other containers are seen too.
            if (process / "ns/net").readlink() != (PROC / "self/ns/net").readlink():
                continue
            variables = (text.partition("=") for text in _texts(process / "environ"))
            environment = {name: value for name, _, value in variables}
            yield int(process.name), Start(arguments, environment, (process / "cwd").readlink())
        except OSError:  # it has ended, or is not ours to look at
            continue


def _texts(file: Path) -> list[str]:
    return [os.fsdecode(text) for text in file.read_bytes().split(b"\0")][:-1]


def _arguments_of_exporter(command: Sequence[str]) -> Sequence[str] | None:
    """The arguments of a command line that runs `bullmq-exporter`; None for any other."""
    if not command or not re.fullmatch(r"python[0-9.]*", Path(command[0]).name):
        return None
    words = iter(command[1:])
    for word in words:
        if word == "-m":
            is_exporter = next(words, None) == "exporter"
        elif word in ("-W", "-X"):  # of Python, with a value
            next(words, None)
            continue
        elif word.startswith("-"):
            continue
        else:
            is_exporter = Path(word).name == "bullmq-exporter"
        arguments = list(words)
        ends_by_itself = {"--check", "--demo", "--version", "--help"} & set(arguments)
        return arguments if is_exporter and not ends_by_itself else None
    return None


def metrics_port(start: Start) -> MetricsPort:
    """Where an exporter that was started so has its metrics port. Raises Unhealthy."""
    flags, _ = _parser().parse_known_args(start.arguments)
    file = {} if flags.config is None else _metrics_section(start.directory / flags.config)

    def given(name: str) -> str | None:
        variable = start.environment.get(f"EXPORTER_METRICS_{name.upper()}", "").strip()
        return variable or file.get(name)

    listen = flags.metrics_listen or given("listen") or DEFAULT_LISTEN
    match = re.fullmatch(r"(?:\[([^]]*)]|([^:/@]*)):([0-9]{1,5})", listen.strip())
    if match is None:  # not repeated: it may be a secret at the wrong place
        raise Unhealthy("metrics.listen is not HOST:PORT")
    host, port = match[1] or match[2] or "", int(match[3])
    if port == 0:
        raise Unhealthy(
            "metrics.listen has port 0, which takes any free port; set one that does not change"
        )
    return MetricsPort(_reachable(host), port, tls=given("tls_cert") is not None)


def _metrics_section(file: Path) -> Mapping[str, str]:
    """What a settings file says about the metrics port; all values are text. Raises Unhealthy."""
    import yaml  # noqa: PLC0415 - 70 ms of CPU that most have no use for

    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe was read by the exporter, once
            raise Unhealthy(f"{file} is not a regular file; name the address by --metrics-listen")
        with file.open("rb") as opened:
            document: Any = yaml.load(opened.read(MAX_FILE_BYTES), yaml.BaseLoader)  # noqa: S506 - only text
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "is not valid YAML"
        raise Unhealthy(f"{file}: {reason}") from None
    section = document.get("metrics") if isinstance(document, dict) else None
    if not isinstance(section, dict):
        return {}
    nothing = ("", "~", "null", "Null", "NULL")
    return {
        name: value
        for name, value in section.items()
        if isinstance(value, str) and value not in nothing
    }


def _reachable(host: str) -> str:
    """An address of this machine at which a server that listens on `host` answers."""
    if not host:
        return "127.0.0.1"
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def ask(where: MetricsPort) -> str:
    """What the exporter answers. Raises Unhealthy if that is not 200, or nothing."""
    connection: http.client.HTTPConnection
    if where.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            where.host, where.port, timeout=TIMEOUT_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(where.host, where.port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        text = answer.read(100).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or error or type(error).__name__
        raise Unhealthy(f"{where}: {reason}") from None
    if answer.status != http.HTTPStatus.OK:
        raise Unhealthy(f"{where}: {answer.status} {text}")
    return text


if __name__ == "__main__":
    main()

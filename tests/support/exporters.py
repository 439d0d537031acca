"""The exporter as a process, as a user starts it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.support.http_client import Client
from tests.support.template import Process, StartProcess, start_by, start_process
from tests.support.waiting import eventually

API_KEY = "a-key-of-the-tests-0123456789"


JWT_SECRET = "a-secret-of-the-tests-that-is-long-enough"


class Exporter:
    """The exporter as a process, as a user starts it."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self._log = log
        urls = eventually(self._addresses)
        self.metrics = Client(urls["metrics"])
        self.api = Client(urls["api"], {"X-API-KEY": API_KEY})

    def _addresses(self) -> dict[str, str] | None:
        assert self.process.poll() is None, self.log
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        urls = {line["what"]: line["url"] for line in lines if line["msg"] == "listening"}
        return urls if len(urls) == 2 else None

    @property
    def log(self) -> str:
        return self._log.read_text()

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines that say this."""
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["msg"] == message]

    @property
    def outages(self) -> list[list[str]]:
        """Of each outage of Redis or PostgreSQL that the log reports, the reasons."""
        outages: list[list[str]] = [[]]
        for line in map(json.loads, filter(lambda each: each[0] == "{", self.log.splitlines())):
            if line["msg"] in ("Redis is unavailable", "PostgreSQL is unavailable"):
                outages[-1].append(line["reason"])
            elif line["msg"] in ("Redis is back", "PostgreSQL is back"):
                outages.append([])
        return outages if outages[-1] else outages[:-1]

    @property
    def peak_mib(self) -> int:
        """The most memory that the process has had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) >> 10

    def wait_ready(self) -> None:
        eventually(lambda: self.metrics.get("/-/ready").status == 200)

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(180)


StartExporter = Callable[..., Exporter]


def clean_environment(**variables: str) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("REDIS_", "EXPORTER_", "JWT_"))
    }
    return kept | variables


def spawn_exporter(
    url: str, log: Path, *flags: str, start: StartProcess = start_process, **variables: str
) -> Exporter:
    """An exporter on free ports; all that is not given here is as by default."""
    for_tests = {
        "EXPORTER_API_KEY": API_KEY,
        "JWT_SECRET": JWT_SECRET,
        "EXPORTER_API_RATE_LIMIT": "0",
        "EXPORTER_API_LOCKOUT": "0",
        "EXPORTER_LOG_FORMAT": "json",
    }
    environment = clean_environment(**(for_tests | variables))
    arguments = ["--redis-url", url] if url else []
    arguments += ["--metrics-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", *flags]
    with log.open("w") as stderr:
        return Exporter(start(arguments, environment, stderr), log)


def run_exporter(*flags: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the command line answers where it ends by itself."""
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        environment = clean_environment(**variables)
        process = start_by(variables)(flags, environment, stderr, stdout)
        try:
            code = process.wait(180)
        finally:
            process.kill()
        texts = []
        for file in (stdout, stderr):
            file.seek(0)
            texts.append(file.read())
        return subprocess.CompletedProcess(flags, code, *texts)

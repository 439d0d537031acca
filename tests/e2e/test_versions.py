"""docs/versions.md says what tests run on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version

import helm_python

from tests.support.paths import ROOT
from tests.support.programs import BULLMQ, DOCKER_COMPOSE, newest, program
from tests.support.servers import SERVERS, binary_of

DOCUMENT = (ROOT / "docs" / "versions.md").read_text()


def documented(name: str) -> list[str]:
    [versions] = re.findall(rf"^\| {re.escape(name)} \| ([0-9., ]+) \|", DOCUMENT, re.MULTILINE)
    return str(versions).split(", ")


def said(*command: str) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, check=True)
    [number] = re.findall(r"(?:version|v=|v)[ =v]*(\d+\.\d+)", done.stdout + done.stderr)[:1]
    return str(number)


def not_older(found: str, name: str) -> bool:
    """What comes newer with time; the newest one documented was tried."""
    parts = [tuple(map(int, number.split(".")[:2])) for number in (found, documented(name)[-1])]
    return parts[0] >= parts[1]


def test_the_versions_that_are_documented_are_those_of_what_tests_run() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in documented("Python")
    for kind in SERVERS:
        name = "Valkey" if kind == "valkey" else "Redis"
        assert said(binary_of(kind), "--version") in documented(name), kind
    packages = [BULLMQ / "node_modules" / name / "package.json" for name in ("bullmq5", "bullmq6")]
    assert [json.loads(file.read_text())["version"] for file in packages] == documented(
        "BullMQ (Node)"
    )
    alertmanager = "prometheus-alertmanager"
    assert said(program("prometheus", "prometheus"), "--version") in documented("Prometheus")
    assert said(program(alertmanager, alertmanager), "--version") in documented("Alertmanager")
    assert not_older(said(newest("prometheus"), "--version"), "Prometheus")
    assert not_older(said(newest(alertmanager), "--version"), "Alertmanager")
    compose = newest(DOCKER_COMPOSE)
    assert not_older(said(compose, "version"), "Docker Compose")
    assert not_older(helm_python.helm_sdk_version().removeprefix("v"), "Helm")
    assert not_older(version("bullmq"), "BullMQ (Python)")

"""Programs that tests start, and where they are found."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import TESTS

BULLMQ = TESTS / "bullmq"


def program(name: str, package: str) -> str:
    """The path of a program. Without it the test fails: what is not tested must not look tested."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


def newest(name: str) -> str:
    """The path of a program of Prometheus as Debian testing has it: of another major version."""
    found = TESTS / "newest" / "usr" / "bin" / name
    if not found.exists():
        pytest.fail(f"{found} is missing: make test brings it")
    return str(found)


# What `newest` has it as: a plugin of Docker.
DOCKER_COMPOSE = "../libexec/docker/cli-plugins/docker-compose"


def needs_root(why: str) -> None:
    """In CI there is no way around it."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip(f"{why}: run it as root")


Spawn = Callable[..., None]


@contextmanager
def spawning(**options: Any) -> Iterator[Spawn]:
    """Starts programs, and ends them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: str | Path) -> None:
        started.append(subprocess.Popen([*map(str, command)], **options))

    try:
        yield start
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


def faked_time(clock: str) -> dict[str, str]:
    """The environment of a process whose clock is ahead or behind (`-90s`)."""
    program("faketime", "faketime")
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": clock,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }

"""Real BullMQ and Bull in Node.js: histories, and workers that work."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.programs import BULLMQ, faked_time, program

# Versions of Bull, not BullMQ, by their names in tests/bullmq/package.json.
BULL = ("bull3", "bull4")


class Node:
    """A script of tests/bullmq with a real BullMQ or Bull: answers a line with a line of JSON."""

    def __init__(self, script: str, version: str, *arguments: str, clock: str = "+0s") -> None:
        """`clock`: by how much the time that it sees differs, as faketime takes it."""
        if not (BULLMQ / "node_modules" / version).is_dir():
            pytest.fail("BullMQ is missing: make test installs it")
        self._script = script
        self._process = subprocess.Popen(
            [program("node", "nodejs"), script, version, *arguments],
            cwd=BULLMQ,
            env=None if clock == "+0s" else {**os.environ, **faked_time(clock)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.first_words = self.hear()

    def hear(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, f"{self._script} failed"
        return json.loads(line)

    def say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ask(self, line: str) -> Any:
        self.say(line)
        return self.hear()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class History(Node):
    """Makes a history, and says what BullMQ makes of it."""

    def __init__(self, version: str, place: int | str, queue: str, prefix: str) -> None:
        """`place`: the port of a Redis, or the URL of a database of PostgreSQL."""
        script = "bull_history.mjs" if version in BULL else "history.mjs"
        super().__init__(script, version, str(place), queue, prefix)
        self.truth: dict[str, Any] = self.first_words

    def run(self, command: str) -> dict[str, Any]:
        """`pause` or `resume`, and the truth after it."""
        self.truth = self.ask(command)
        return self.truth


class Work(Node):
    """Adds jobs and works on them; each command of work.mjs, or of bull_work.mjs, is a method."""

    def __init__(
        self, version: str, place: int | str, prefix: str = "bull", *, clock: str = "+0s"
    ) -> None:
        """`place`: the port of a Redis, or the URL of a database of PostgreSQL."""
        script = "bull_work.mjs" if version in BULL else "work.mjs"
        super().__init__(script, version, str(place), prefix, clock=clock)

    def __getattr__(self, command: str) -> Callable[..., Any]:
        return lambda *arguments: self.ask(json.dumps([command, *arguments]))


StartWork = Callable[..., Work]

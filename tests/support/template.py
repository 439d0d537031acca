"""Exporters that begin where Python has imported all they need: half of the suite's time was that.

A process that has imported the exporter forks one for each request. It is a process like any other,
with its own arguments, environment and log; `python -m exporter` differs in the 0.8 s of CPU that
importing takes. What a test is about (an interpreter's start, memory, another library beneath it)
may need the real start: `start_process`.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TextIO

PR_SET_CHILD_SUBREAPER = 36
MAX_REQUEST_BYTES = 1 << 20


class Process(Protocol):
    """What tests need of a process: `subprocess.Popen` is one."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class StartProcess(Protocol):
    def __call__(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        stderr: TextIO,
        stdout: TextIO | None = None,
    ) -> Process:
        """Without `stdout`, that of the tests."""


def start_process(
    arguments: Sequence[str],
    environment: dict[str, str],
    stderr: TextIO,
    stdout: TextIO | None = None,
    *,
    python: str | Path = sys.executable,
    files: int | None = None,
) -> Process:
    """`python -m exporter` in a new interpreter, which may open so many files."""
    command = [str(python), "-m", "exporter", *arguments]
    if files is not None:
        command = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", *command]
    options: dict[str, Any] = {"env": environment, "stdin": subprocess.DEVNULL}
    return subprocess.Popen(command, stderr=stderr, stdout=stdout, **options)


def fork_process(
    arguments: Sequence[str],
    environment: dict[str, str],
    stderr: TextIO,
    stdout: TextIO | None = None,
) -> Process:
    """The same, from an interpreter that has imported everything."""
    descriptors = [stderr.fileno()] if stdout is None else [stderr.fileno(), stdout.fileno()]
    return _Forked(_template().fork(arguments, environment, descriptors))


def start_by(variables: Iterable[str]) -> StartProcess:
    """How to start where these are set: all but settings (LANG, LD_PRELOAD) is an interpreter's."""
    are_settings = all(name.startswith(("EXPORTER_", "REDIS_", "JWT_")) for name in variables)
    return fork_process if are_settings else start_process


class _Forked:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("exporter", timeout or 0)
            time.sleep(0.005)
        return status

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Template:
    def __init__(self) -> None:
        # What the template forks outlives the process between, so that it becomes our child.
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST_BYTES)
        with theirs:
            command = [sys.executable, "-m", "tests.support.template", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()]
            )
        atexit.register(self.close)

    def fork(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Sequence[int],
    ) -> int:
        request = {"arguments": arguments, "environment": environment, "directory": str(Path.cwd())}
        socket.send_fds(self._ours, [json.dumps(request).encode()], descriptors)
        return int(self._ours.recv(100))

    def close(self) -> None:
        self._ours.close()  # ends it
        self._process.wait()


@cache
def _template() -> _Template:
    return _Template()


def _await_request(requests: socket.socket) -> None:
    """Forks for each request; returns in the fork alone, as the process that was asked for."""
    read_end, write_end = os.pipe()
    while True:
        message, descriptors, _, _ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
        if not message:
            os._exit(0)
        between = os.fork()
        if between == 0:
            pid = os.fork()
            if pid == 0:
                break
            os.write(write_end, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)  # only from then on the fork is the child of whoever asked for it
        requests.send(os.read(read_end, 100))
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    os.close(read_end)
    os.close(write_end)
    request = json.loads(message)
    for descriptor, standard in zip(descriptors, (2, 1), strict=False):
        os.dup2(descriptor, standard)
        os.close(descriptor)
    os.chdir(request["directory"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv[1:] = request["arguments"]


if __name__ == "__main__":
    from exporter.cli import main

    gc.freeze()
    _await_request(socket.socket(fileno=int(sys.argv[1])))
    main()

"""The demo, as somebody who has just found the project runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.exporters import clean_environment
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[bytes]
    directory: Path

    @property
    def printed(self) -> str:
        return (self.directory / "stdout").read_text()

    @property
    def complaints(self) -> str:
        return (self.directory / "stderr").read_text()

    @property
    def ready(self) -> bool:
        assert self.process.poll() is None, self.complaints
        return "Ctrl-C ends it." in self.printed

    def paste(self, number: int) -> str:
        """What a printed `curl` line gives when it is pasted."""
        lines = [line for line in self.printed.splitlines() if line.startswith("curl ")]
        done = subprocess.run(
            ["bash", "-c", lines[number]], check=False, capture_output=True, text=True, timeout=180
        )
        return done.stdout

    def ends_cleanly(self) -> None:
        assert self.process.wait(180) == 0, self.complaints
        assert self.complaints == ""
        self.leaves_nothing()

    def leaves_nothing(self) -> None:
        assert list((self.directory / "tmp").iterdir()) == []
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)


StartDemo = Callable[..., Demo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts the demo in a process group of its own, as a terminal does, and ends it."""
    started: list[Demo] = []

    def start(metrics: str = "127.0.0.1:0", *, ready: bool = True) -> Demo:
        (tmp_path / "tmp").mkdir()
        command = [sys.executable, "-m", "exporter", "--demo", "--metrics-listen", metrics]
        # The demo must not take its settings, nor its Redis, from here.
        environment = clean_environment(
            TMPDIR=str(tmp_path / "tmp"), REDIS_HOST="redis.invalid", REDIS_TLS_ENABLED="true"
        )
        with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [*command, "--api-listen", "127.0.0.1:0"],
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        started.append(Demo(process, tmp_path))
        if ready:
            eventually(lambda: started[-1].ready)
        return started[-1]

    yield start
    for demo in started:
        with suppress(ProcessLookupError):
            os.killpg(demo.process.pid, signal.SIGKILL)
        demo.process.wait()


def test_the_printed_lines_work_jobs_fail_and_ctrl_c_leaves_nothing(start_demo: StartDemo) -> None:
    demo = start_demo()

    def counts() -> bool:
        samples = demo.paste(0)
        return all(
            f'bullmq_job_count{{queue="{queue}",state="failed"}}' in samples
            for queue in ("ingestion", "indexing", "compliance-lifecycle")
        )

    def failed_job() -> bool:
        answer = json.loads(demo.paste(1))
        assert answer["pagination"]["currentPage"] == 1
        return any(
            job["attemptsMade"] == 5
            and "process_mailbox" in job["stacktrace"][0]
            and job["data"]["userEmail"]
            and job["ingestionSourceId"]
            for job in answer["jobs"]
        )

    eventually(counts)
    eventually(failed_job, pause=1)
    os.killpg(demo.process.pid, signal.SIGINT)
    demo.ends_cleanly()


def test_sigterm_ends_it_as_well(start_demo: StartDemo) -> None:
    demo = start_demo()
    demo.process.terminate()
    demo.ends_cleanly()


def test_a_taken_port_is_told_in_one_line_and_nothing_is_left(start_demo: StartDemo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        demo = start_demo(f"127.0.0.1:{port}", ready=False)
        assert demo.process.wait(180) == 2
    assert demo.printed == ""
    assert len(demo.complaints.splitlines()) == 1
    assert f"127.0.0.1:{port} is taken" in demo.complaints
    demo.leaves_nothing()

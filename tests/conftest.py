"""Real servers, real BullMQ and the real exporter, for tests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.bullmq import History, StartWork, Work
from tests.support.exporters import Exporter, StartExporter, spawn_exporter
from tests.support.postgres import DEBIAN, Database, PostgresServer, running_postgres
from tests.support.programs import Spawn, spawning
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.servers import SERVERS, Server, running
from tests.support.template import start_by, start_process

# Each run tries the same examples, in its own time; FUZZ_TIMES (see test_fuzz.py) tries new ones.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize="FUZZ_TIMES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Adds the end of what its programs logged to the report of a test that failed."""
    report = yield
    path = getattr(item, "funcargs", {}).get("tmp_path")
    if report.failed and path is not None:
        for log in sorted(path.glob("*.log")):
            report.sections.append(
                (f"{log.name}, its end", log.read_text("utf-8", "replace")[-5000:])
            )
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that take long, as they say, begin first: no core waits at the end."""

    def seconds(item: pytest.Item) -> int:
        marker = item.get_closest_marker("takes")
        return int(marker.kwargs["seconds"]) if marker else 0

    items.sort(key=seconds, reverse=True)


# Waits until the tests' process has ended, however it did, and kills what it has left running.
KILL_ORPHANS = """
import os, sys
mark = sys.argv[1].encode()
sys.stdin.read()
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{pid}/environ", "rb") as environ:
            if mark in environ.read() and int(pid) != os.getpid():
                os.kill(int(pid), 9)
    except OSError:
        pass
"""


def pytest_configure() -> None:
    """Nothing that a run started outlives it: an orphan would disturb every later run."""
    mark = os.environ["BULLMQ_EXPORTER_TESTS"] = f"run-{os.getpid()}-{random.getrandbits(64):x}"
    until_our_end, _ours = os.pipe()  # whose other end is closed when this process ends
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", KILL_ORPHANS, f"BULLMQ_EXPORTER_TESTS={mark}"],
        {},
        file_actions=[(os.POSIX_SPAWN_DUP2, until_our_end, 0)],
        setsid=True,  # Ctrl-C is not meant for it
    )
    os.close(until_our_end)


@pytest.fixture(scope="session", params=SERVERS)
def any_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A test with this runs once on each kind of server."""
    with running(request.param, tmp_path_factory.mktemp(request.param)) as server:
        yield server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running("valkey", tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Server:
    """A Valkey with nothing in it."""
    with shared_server.client() as client:
        client.flushall()
    return shared_server


@pytest.fixture(scope="session")
def postgres_of() -> Iterator[Callable[[str], PostgresServer]]:
    """The PostgreSQL of a kind, which is started when it is first needed."""
    with ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(running_postgres(kind)))


@pytest.fixture
def shared_postgres(postgres_of: Callable[[str], PostgresServer]) -> PostgresServer:
    return postgres_of(DEBIAN)


@pytest.fixture
def database(
    request: pytest.FixtureRequest, postgres_of: Callable[[str], PostgresServer]
) -> Database:
    """A database of a PostgreSQL with BullMQ's tables and no queue; see EACH_DATABASE."""
    return postgres_of(getattr(request, "param", DEBIAN)).create_database()


@pytest.fixture
def own_postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A PostgreSQL that the test may stop; see EACH_OWN."""
    with running_postgres(getattr(request, "param", DEBIAN)) as server:
        yield server


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey that the test may stop."""
    with running("valkey", tmp_path) as server:
        yield server


@pytest.fixture
def start_exporter(tmp_path: Path) -> Iterator[StartExporter]:
    """Starts exporters on free ports, and ends them."""
    started: list[Exporter] = []

    def start(
        url: str, *flags: str, ready: bool = True, files: int | None = None, **variables: str
    ) -> Exporter:
        log = tmp_path / f"exporter-{len(started)}.log"
        quick = {
            "EXPORTER_POLL_INTERVAL": "0.2",
            "EXPORTER_DISCOVERY_INTERVAL": "0.5",
            "EXPORTER_WORKERS_INTERVAL": "0.2",
            # A real Prometheus of these tests scrapes at least as often.
            "EXPORTER_METRICS_SCRAPE_INTERVAL": "1",
        }
        how = start_by(variables)
        if files is not None:
            how = partial(start_process, files=files)
        started.append(spawn_exporter(url, log, *flags, start=how, **(quick | variables)))
        if ready:
            started[-1].wait_ready()
        return started[-1]

    yield start
    for exporter in started:
        if "COVERAGE_PROCESS_CONFIG" in os.environ:
            _end_with_its_data(exporter)
        if exporter.process.poll() is None:
            exporter.process.kill()
        exporter.process.wait()


def _end_with_its_data(exporter: Exporter) -> None:
    """`make coverage` learns what a process has done when it ends by itself."""
    exporter.process.terminate()
    with suppress(subprocess.TimeoutExpired):
        exporter.process.wait(10)


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    with spawning(stderr=subprocess.DEVNULL) as start:
        yield start


@pytest.fixture
def scrape(tmp_path: Path, spawn: Spawn) -> Callable[[Exporter], Prometheus]:
    """Starts a Prometheus that scrapes an exporter once a second and keeps exemplars."""

    def start(exporter: Exporter) -> Prometheus:
        target = exporter.metrics.url.removeprefix("http://")
        job = {"job_name": "bullmq", "static_configs": [{"targets": [target]}]}
        config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job]}
        return start_prometheus(spawn, tmp_path, config, "--enable-feature=exemplar-storage")

    return start


@pytest.fixture
def start_work() -> Iterator[StartWork]:
    started: list[Work] = []

    def start(version: str, place: int | str, prefix: str = "bull", *, clock: str = "+0s") -> Work:
        started.append(Work(version, place, prefix, clock=clock))
        return started[-1]

    yield start
    for work in started:
        work.close()


@pytest.fixture
def history() -> Iterator[Callable[..., History]]:
    made: list[History] = []

    def make(version: str, place: int | str, queue: str, prefix: str = "bull") -> History:
        made.append(History(version, place, queue, prefix))
        return made[-1]

    yield make
    for each in made:
        each.close()

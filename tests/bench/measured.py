"""What is measured of processes, of Redis and of answers, and on what data."""

from __future__ import annotations

import gzip
import http.client
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import redis

from tests.support.exporters import Exporter, spawn_exporter
from tests.support.servers import Server, running
from tests.support.template import start_process

PEERS = Path(__file__).parent / "peers"
# With what the image installs and no more: cryptography and rich, which the tests need, are
# imported by PyJWT and structlog where they are there, and take 11 MiB.
SHIPPED = Path(__file__).parent / "shipped/bin/python"
# As Prometheus 2.42 asks.
PROMETHEUS = {
    "Accept": "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
    "Accept-Encoding": "gzip",
}
# In microseconds: a command that holds Redis for less is not noted.
NOTED = 100


@contextmanager
def fresh_server() -> Iterator[Server]:
    with (
        tempfile.TemporaryDirectory() as directory,
        running("redis", Path(directory), "--appendonly", "no") as server,
    ):
        yield server


@contextmanager
def exporting(url: str, *flags: str, **variables: str) -> Iterator[Exporter]:
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        shipped = partial(start_process, python=SHIPPED)
        exporter = spawn_exporter(url, log, *flags, start=shipped, **variables)
        try:
            exporter.wait_ready()
            yield exporter
            assert "Traceback" not in exporter.log
        finally:
            exporter.terminate()


@contextmanager
def peer(file: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process and its port."""
    runner = "node" if file.endswith(".mjs") else SHIPPED
    process = subprocess.Popen(
        [runner, PEERS / file, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used; its `stat` has hundredths."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError):  # it has ended
            used += int(thread.read_text().split()[0])
    return used / 1e9


def memory_of(pid: int) -> float:
    """MiB that a process holds."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


class Scraper:
    """Asks as Prometheus does, over one connection."""

    def __init__(self, port: int, path: str = "/metrics") -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._path = path

    def __call__(self) -> tuple[float, bytes]:
        """How long an answer took in seconds, and its bytes as they came."""
        began = time.perf_counter()
        self._connection.request("GET", self._path, headers=PROMETHEUS)
        response = self._connection.getresponse()
        body = response.read()
        took = time.perf_counter() - began
        assert response.status == 200, body[:200]
        return took, body

    def text(self) -> bytes:
        """The page as it reads."""
        return gzip.decompress(self()[1])


@dataclass
class Cost:
    """What so many scrapes, or polls with a scrape each, have cost. Times in milliseconds."""

    scrapes: list[float]
    cpu: float
    redis_cpu: float
    commands: float
    longest: float  # that one command held Redis
    memory: float  # MiB
    size: int  # bytes sent
    poll: float | None = None  # how long one took, where polls and scrapes are two things


@dataclass
class Meter:
    """Measures a process and its Redis from when it is made.

    `idle` is what this Redis uses where nobody asks, in seconds a second: that is left out.
    """

    pid: int
    client: redis.Redis
    idle: float
    cpu: float = field(init=False)
    redis_cpu: float = field(init=False)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.client.config_set("slowlog-log-slower-than", NOTED)
        self.client.config_resetstat()
        self.client.slowlog_reset()
        self.cpu, self.redis_cpu = cpu_of(self.pid), redis_cpu(self.client)
        self.began = time.monotonic()

    def cost(self, rounds: int, scrapes: Sequence[float], size: int) -> Cost:
        used = redis_cpu(self.client) - self.redis_cpu
        took = time.monotonic() - self.began
        slow = self.client.slowlog_get(1000)
        calls = sum(each["calls"] for each in self.client.info("commandstats").values())
        return Cost(
            scrapes=[1000 * each for each in scrapes],
            cpu=1000 * (cpu_of(self.pid) - self.cpu) / rounds,
            redis_cpu=1000 * (used - self.idle * took) / rounds,
            commands=calls / rounds,
            longest=max((_held(each) for each in slow), default=0.0),
            memory=memory_of(self.pid),
            size=size,
        )


def redis_cpu(client: redis.Redis) -> float:
    """Seconds that Redis has used, without its threads that free memory."""
    info = client.info("cpu")
    return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])


def idle_of(client: redis.Redis) -> float:
    """Seconds of CPU a second that Redis uses where nobody asks."""
    before, seconds = redis_cpu(client), 5
    time.sleep(seconds)
    return (redis_cpu(client) - before) / seconds


def _held(entry: dict[str, Any]) -> float:
    # Our own CONFIG and INFO are no reading of queues.
    name = bytes(entry["command"]).split()[0].upper()
    return 0.0 if name in (b"CONFIG", b"INFO", b"SLOWLOG") else float(entry["duration"]) / 1000


def p99(figures: Sequence[float]) -> float:
    return quantiles(figures, n=100)[98] if len(figures) > 1 else figures[0]


BUSY_EVERY = 10


def fill_queues(client: redis.Redis, numbers: Iterable[int]) -> None:
    """Queues as BullMQ 5 has them: all keep finished jobs, some have jobs in every state."""
    now = int(time.time() * 1000)
    pipeline = client.pipeline(transaction=False)
    for number in numbers:
        base = f"bull:queue-{number}:"
        pipeline.hset(f"{base}meta", mapping={"version": "bullmq:5.56.3", "opts.maxLenEvents": 10})
        for state in ("completed", "failed"):
            pipeline.zadd(f"{base}{state}", {f"{state[0]}{at}": now + at for at in range(5)})
        pipeline.xadd(f"{base}events", {"event": "added", "jobId": "w0", "name": "import"})
        if number % BUSY_EVERY == 0:
            _fill_with_work(pipeline, base, now)
        if number % 500 == 499:
            pipeline.execute()
    pipeline.execute()


def _fill_with_work(pipeline: Any, base: str, now: int) -> None:
    pipeline.rpush(f"{base}wait", *(f"w{at}" for at in range(5)))
    pipeline.rpush(f"{base}active", "a0", "a1")
    pipeline.zadd(f"{base}delayed", {f"d{at}": (now + at) * 4096 for at in range(5)})
    pipeline.zadd(f"{base}prioritized", {f"p{at}": (at + 1) << 32 for at in range(3)})
    for job in ("w0", "w3", "w4", "a1", "p0", "p2"):
        fields = {"name": "import", "data": "{}", "opts": '{"attempts":3}', "timestamp": now}
        pipeline.hset(f"{base}{job}", mapping=fields | {"processedOn": now} | {"atm": 0})
    pipeline.hdel(f"{base}w0", "processedOn")
    pipeline.hdel(f"{base}w4", "processedOn")


def finish_jobs(client: redis.Redis, numbers: Iterable[int], job: int) -> None:
    """The events of one job for each of these queues: counters and histograms begin."""
    pipeline = client.pipeline(transaction=False)
    for number in numbers:
        add_events(pipeline, f"queue-{number}", job)
    pipeline.execute()


def add_events(pipeline: Any, queue: str, job: int) -> None:
    """What a worker writes of a job from its adding to its end."""
    for event, rest in (
        ("added", {"name": "import"}),
        ("waiting", {}),
        ("active", {"prev": "waiting"}),
        ("completed", {"returnvalue": '{"batches":2}', "prev": "active"}),
    ):
        entry = {"event": event, "jobId": str(job), **rest}
        pipeline.xadd(f"bull:{queue}:events", entry)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n**{title}**\n")
    print(f"| {' | '.join(columns)} |")
    print(f"| --- |{' ---: |' * (len(columns) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def spread(ratios: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the most."""
    least, most = min(ratios), max(ratios)
    return f"{median(ratios):.{digits}f} ({least:.{digits}f} to {most:.{digits}f})"

"""The Jobs API beside express, beside our own work; how soon we are there, and how little we do."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections import defaultdict
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import NamedTuple

import aiohttp
import redis

from tests.bench.events import fill
from tests.bench.measured import (
    Scraper,
    cpu_of,
    exporting,
    fill_queues,
    fresh_server,
    memory_of,
    p99,
    peer,
    port_of,
    spread,
    table,
)
from tests.support.exporters import API_KEY, Exporter

JOBS = 5000  # failed ones, as Open Archiver keeps them
CLIENTS = 50
CLIENT = Path(__file__).parent / "client.lua"
SECONDS = 8
# Beside which one client asks: queues that are polled, and streams of 10,000 events.
QUEUES, STREAMS = 10_000, 600
PAGE = "/v1/jobs/queues/ingestion?status=failed&limit=100&page="
OURS, EXPRESS = "this project", "Open Archiver's way: `getJobs` + `getState`, express"


class Load(NamedTuple):
    """How a server bore up: pages a second; milliseconds of an answer, and of CPU for each."""

    pages: float
    middle: float
    p99: float
    cpu: float


def pages(rounds: int) -> None:
    """Pages of 100 jobs of 5,000 that failed, for 50 clients at once."""
    measured: dict[str, list[Load]] = defaultdict(list)
    with fresh_server() as server, server.client() as client:
        _fail(client)
        for _ in range(rounds):
            with exporting(server.url) as exporter:
                measured[OURS].append(_loaded(port_of(exporter.api.url), exporter.process.pid))
            with peer("jobs.mjs", server.port) as (process, port):
                measured[EXPRESS].append(_loaded(port, process.pid))
    rows = []
    for name, loads in measured.items():
        figures = Load(*map(median, zip(*loads, strict=True)))
        rows.append(
            (
                name,
                f"{figures.pages:,.0f}",
                f"{figures.middle:,.0f}",
                f"{figures.p99:,.0f}",
                f"{figures.cpu:,.2f}",
            )
        )
    table(
        f"Pages of 100 jobs out of {JOBS:,} failed, {CLIENTS} clients at once",
        ("", "pages a second", "p50 ms", "p99 ms", "CPU ms a page"),
        rows,
    )
    ratios = [
        ours.pages / its.pages for ours, its in zip(measured[OURS], measured[EXPRESS], strict=True)
    ]
    print(f"\nThroughput, ratio of each round: {spread(ratios, 1)}", flush=True)


def _fail(client: redis.Redis) -> None:
    now = int(time.time() * 1000)
    pipeline = client.pipeline(transaction=False)
    pipeline.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
    trace = (
        "Error: connect ECONNREFUSED 10.0.0.7:993\n"
        + "    at Object.<anonymous> (/app/x.js:1:1)\n" * 8
    )
    for number in range(JOBS):
        pipeline.zadd("bull:ingestion:failed", {str(number): now + number})
        source = {
            "ingestionSourceId": f"source-{number % 40}",
            "userEmail": f"user{number}@corp.example",
        }
        fields = {
            "name": "process-mailbox",
            "data": json.dumps(source),
            "opts": '{"attempts":5,"backoff":{"type":"exponential","delay":60000}}',
            "timestamp": now,
            "processedOn": now + number,
            "finishedOn": now + number,
            "atm": 5,
            "failedReason": "connect ECONNREFUSED 10.0.0.7:993",
            "stacktrace": json.dumps([trace] * 2),
        }
        pipeline.hset(f"bull:ingestion:{number}", mapping=fields)
    pipeline.execute()


def _loaded(port: int, pid: int) -> Load:
    """By wrk: clients that are written in Python take more of the two cores than what they ask."""
    before = cpu_of(pid)
    command = ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "-s", str(CLIENT)]
    asked = subprocess.run(
        [*command, f"http://127.0.0.1:{port}", "--", API_KEY, PAGE, str(JOBS // 100)],
        capture_output=True,
        text=True,
        check=True,
    )
    used = cpu_of(pid) - before
    answered, failed, seconds, middle, slow = map(float, asked.stdout.splitlines()[-1].split())
    assert not failed, asked.stdout
    return Load(answered / seconds, middle, slow, 1000 * used / answered)


def _one_client(port: int, seconds: float) -> Future[list[float]]:
    """What one client sees, in a process of its own: what we do meanwhile costs it no time."""
    pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    asked = pool.submit(_run_ask, port, seconds)
    pool.shutdown(wait=False)
    return asked


def _run_ask(port: int, seconds: float) -> list[float]:
    return asyncio.run(_ask(port, seconds))


async def _ask(port: int, seconds: float) -> list[float]:
    times: list[float] = []
    page, end = 0, time.perf_counter() + seconds
    async with aiohttp.ClientSession(headers={"X-API-KEY": API_KEY}) as session:
        while time.perf_counter() < end:
            page = page % (JOBS // 100) + 1
            began = time.perf_counter()
            async with session.get(f"http://127.0.0.1:{port}{PAGE}{page}") as response:
                assert response.status == 200
                await response.read()
            times.append(time.perf_counter() - began)
    return times


def beside_work() -> None:
    """One client's pages while 10,000 queues are polled and events followed at full rate."""
    figures = {}
    with fresh_server() as server, server.client() as client:
        _fail(client)
        quiet = {"EXPORTER_POLL_INTERVAL": "3600", "EXPORTER_EVENTS_ENABLED": "false"}
        with exporting(server.url, **quiet) as exporter:
            api = port_of(exporter.api.url)
            figures["quiet: nothing else to do"] = _one_client(api, 15).result()
        fill_queues(client, range(QUEUES))
        with exporting(server.url) as exporter:
            api = port_of(exporter.api.url)
            figures[f"{QUEUES:,} queues polled every 5 s"] = _one_client(api, 30).result()
            polled = exporter.metrics.value("bullmq_exporter_poll_duration_seconds_count")
            fill(client, "full-0", known=False)
            for number in range(1, STREAMS):
                client.copy("bull:full-0:events", f"bull:full-{number}:events")
            times, read = _beside_events(exporter, client)
            figures[f"and {read:,.0f} events a second followed"] = times
            memory = memory_of(exporter.process.pid)
            missed = sum(exporter.metrics.samples("bullmq_exporter_events_missed_total").values())
    table(
        "Pages of 100 jobs for one client",
        ("", "pages", "p50 ms", "p99 ms"),
        [
            (name, f"{len(times):,}", f"{1000 * median(times):.1f}", f"{1000 * p99(times):.1f}")
            for name, times in figures.items()
        ],
    )
    first, *others = (p99(times) for times in figures.values())
    ratios = ", ".join(f"{other / first:.2f}" for other in others)
    print(
        f"\np99 to the quiet one: {ratios}; {polled or 0:.0f} polls; events missed: {missed:.0f};"
    )
    print(f"{QUEUES + STREAMS:,} queues: {memory:.0f} MiB", flush=True)


def _beside_events(exporter: Exporter, client: redis.Redis) -> tuple[list[float], float]:
    """Times of pages while streams are read that have just appeared; events a second."""
    # As Prometheus asks: the whole page as text each time would be work beside the work.
    scrape = Scraper(port_of(exporter.metrics.url))

    def read() -> int:
        found = re.search(rb"^bullmq_exporter_events_read_total (\S+)", scrape.text(), re.MULTILINE)
        return int(float(found[1])) if found else 0  # from a million on it reads 1e+06

    before = read()
    for number in range(STREAMS):
        client.hset(f"bull:full-{number}:meta", "version", "bullmq:5.56.3")
    while read() == before:  # until they are found
        time.sleep(0.5)
    began, first = time.monotonic(), read()
    times = _one_client(port_of(exporter.api.url), 10).result()
    followed = (read() - first) / (time.monotonic() - began)
    assert read() < before + STREAMS * 10_000, "there were events to read all the time"
    return times, followed


def start(rounds: int) -> None:
    """From the start of the process to the first good page of 100 queues."""
    took = []
    with fresh_server() as server, server.client() as client:
        fill_queues(client, range(100))
        for _ in range(2 * rounds):
            began = time.perf_counter()
            with exporting(server.url) as exporter:
                assert exporter.metrics.value("bullmq_up") == 1
                took.append(time.perf_counter() - began)
    print(f"\nFrom start to a good /metrics, 100 queues: {spread(took)} s", flush=True)


def idle(seconds: int = 60) -> None:
    """What three queues cost where nothing happens, with the settings as they are."""
    with fresh_server() as server, server.client() as client:
        fill_queues(client, range(3))
        with exporting(server.url) as exporter:
            time.sleep(10)
            before = cpu_of(exporter.process.pid)
            for _ in range(seconds // 15):
                time.sleep(15)
                exporter.metrics.get("/metrics", Accept_Encoding="gzip")
            used = cpu_of(exporter.process.pid) - before
    print(f"3 queues, scraped every 15 s: {used / seconds:.2%} of a core", flush=True)

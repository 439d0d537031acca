"""A scrape of N queues: this project beside its peers, and beside the limit of what can be."""

from __future__ import annotations

import os
import re
import shlex
import socket
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import hiredis
import redis

from tests.bench.measured import (
    BUSY_EVERY,
    Cost,
    Meter,
    Scraper,
    exporting,
    fill_queues,
    finish_jobs,
    fresh_server,
    idle_of,
    p99,
    peer,
    port_of,
    spread,
    table,
)
from tests.support.servers import Server

OURS = "this project"
BULLMQ = "BullMQ 6.7.0's `exportPrometheusMetrics`"
OLDER = "that of 5.56.3, which exposes counts only"
NAIVE = "redis-py pipeline, prometheus-client"
HIREDIS = "limit: the same reads packed once, raw hiredis"
STILL = "limit: the same bytes from memory over aiohttp"
# What a poll sends, itself or from its scripts.
READS = {
    *("EXISTS", "GET", "HEXISTS", "HGET", "HMGET", "LINDEX", "LLEN", "LRANGE"),
    *("ZCARD", "ZRANGE", "ZRANGEBYSCORE", "ZREVRANGE"),
}
FIRST = ["HEXISTS", "bull:queue-0:meta", "paused"]
# Queues, and how many scrapes of each way in a round.
SIZES = {10: 15, 100: 15, 1000: 15, 10_000: 8}
# Seconds between two scrapes, of all ways and sizes alike: back to back a processor's caches still
# hold what the last one read, and what passes with time alone would count for some only.
PAUSE = 0.5


def scrapes(sizes: Sequence[int], rounds: int) -> None:
    at_size: dict[int, dict[str, list[Cost]]] = {}
    for queues in sizes:
        with fresh_server() as server, server.client() as client:
            fill_queues(client, range(queues))
            at_size[queues] = _in_turn(server, client, queues, rounds)
        _show(queues, at_size[queues])
    if {1000, 10_000} <= at_size.keys():
        pairs = list(zip(at_size[1000][OURS], at_size[10_000][OURS], strict=True))
        for what in ("cpu", "poll"):
            grows = [getattr(many, what) / getattr(few, what) for few, many in pairs]
            print(f"\n10,000 queues cost {spread(grows, 1)} times the {what} of 1,000.")


def _in_turn(
    server: Server, client: redis.Redis, queues: int, rounds: int
) -> dict[str, list[Cost]]:
    costs: dict[str, list[Cost]] = defaultdict(list)
    number, idle = SIZES[queues], idle_of(client)
    with tempfile.TemporaryDirectory() as directory:
        for _ in range(rounds):
            commands, page = _ours(server, client, queues, number, idle, costs)
            still = Path(directory) / "page"
            still.write_bytes(page)
            for name, file, arguments in (
                (BULLMQ, "metrics.mjs", ("bullmq6", server.port, queues)),
                (OLDER, "metrics.mjs", ("bullmq5", server.port, queues)),
                (NAIVE, "naive.py", (server.port, queues)),
                (STILL, "still.py", (still,)),
            ):
                with peer(file, *arguments) as (process, port):
                    scrape = Scraper(port)
                    scrape()
                    meter = Meter(process.pid, client, idle)
                    scraped = [_later(scrape) for _ in range(number)]
                    costs[name].append(
                        meter.cost(number, [took for took, _ in scraped], len(scraped[-1][1]))
                    )
            costs[HIREDIS].append(_raw(server, client, commands, number, idle))
    return costs


def _ours(
    server: Server,
    client: redis.Redis,
    queues: int,
    number: int,
    idle: float,
    costs: dict[str, list[Cost]],
) -> tuple[list[list[str]], bytes]:
    """Measures us; the commands that the script of a poll sends, and the page."""
    settings = {"EXPORTER_POLL_INTERVAL": str(PAUSE)}
    with exporting(server.url, **settings) as exporter:
        # In no other form than Prometheus asks for: each that is asked for is made ahead.
        scrape = Scraper(port_of(exporter.metrics.url))
        _begin_counters(scrape, client, queues)
        commands = _commands_of_a_poll(server, scrape)
        polls, seconds = _polls(scrape)
        meter = Meter(exporter.process.pid, client, idle)
        scraped = [_later(scrape) for _ in range(number)]
        cost = meter.cost(1, [took for took, _ in scraped], len(scraped[-1][1]))
        now_polls, now_seconds = _polls(scrape)
        polled, spent = now_polls - polls, now_seconds - seconds
        cost.poll = 1000 * spent / polled
        for what in ("cpu", "redis_cpu", "commands"):
            setattr(cost, what, getattr(cost, what) / polled)
        costs[OURS].append(cost)
        return commands, scraped[-1][1]


def _later(scrape: Scraper) -> tuple[float, bytes]:
    time.sleep(PAUSE)
    return scrape()


def _begin_counters(scrape: Scraper, client: redis.Redis, queues: int) -> None:
    """A tenth of the queues have finished jobs, so counters and histograms are on the page."""
    busy = range(0, queues, BUSY_EVERY)
    for job in range(1, 30):
        finish_jobs(client, busy, job)
        time.sleep(1)
        sample = rb"^bullmq_job_completed_total{.*?} [1-9]"
        counted = re.findall(sample, scrape.text(), re.MULTILINE)
        if len(counted) == len(busy):
            return
    raise RuntimeError("the events are not followed")


def _polls(scrape: Scraper) -> tuple[float, float]:
    """How many polls there were, and how long they took in seconds."""
    text = scrape.text()
    family = b"bullmq_exporter_poll_duration_seconds_"
    samples = (rb"^%b%b (\S+)" % (family, what) for what in (b"count", b"sum"))
    found = (re.search(sample, text, re.MULTILINE) for sample in samples)
    count, total = (float(each[1]) if each else 0.0 for each in found)
    return count, total


def _commands_of_a_poll(server: Server, scrape: Scraper) -> list[list[str]]:
    """What one poll calls, itself or from its scripts, as MONITOR shows it."""
    lines: list[str] = []
    ended = threading.Event()
    with socket.create_connection(("127.0.0.1", server.port)) as monitor:
        monitor.sendall(b"MONITOR\r\n")

        def listen() -> None:
            for line in monitor.makefile("r", errors="replace"):
                lines.append(line.rstrip())
                if ended.is_set():
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        began, _ = _polls(scrape)
        while _polls(scrape)[0] < began + 3:
            time.sleep(0.05)
        ended.set()
        with server.client() as client:
            client.echo("the end")
        thread.join()
    called = [shlex.split(line.partition("] ")[2]) for line in lines if "] " in line]
    reads = [each for each in called if each and each[0].upper() in READS]
    begins = [at for at, each in enumerate(reads) if each == FIRST]
    assert len(begins) >= 3, begins
    # The flag of the first queue is asked for twice in a poll, for it has waiting jobs.
    return reads[begins[0] : begins[2]]


def _raw(
    server: Server, client: redis.Redis, commands: list[list[str]], number: int, idle: float
) -> Cost:
    packed = b"".join(hiredis.pack_command(tuple(command)) for command in commands)
    took = []
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        reader = hiredis.Reader()
        meter = Meter(os.getpid(), client, idle)
        for _ in range(number):
            time.sleep(PAUSE)
            began = time.perf_counter()
            sender = threading.Thread(target=connection.sendall, args=(packed,))
            sender.start()
            left = len(commands)
            while left:
                reader.feed(connection.recv(1 << 20))
                while reader.gets() is not False:
                    left -= 1
            took.append(time.perf_counter() - began)
            sender.join()
        cost = meter.cost(number, took, len(packed))
    cost.poll, cost.memory = 1000 * median(took), 0.0
    return cost


def _show(queues: int, costs: dict[str, list[Cost]]) -> None:
    def middle(name: str, what: str) -> float:
        return median(getattr(cost, what) for cost in costs[name])

    rows = []
    for name in (OURS, BULLMQ, OLDER, NAIVE, HIREDIS, STILL):
        all_scrapes = [each for cost in costs[name] for each in cost.scrapes]
        limit = name in (HIREDIS, STILL)
        rows.append(
            (
                name,
                "" if name == HIREDIS else f"{median(all_scrapes):,.2f}",
                "" if name == HIREDIS else f"{p99(all_scrapes):,.2f}",
                f"{middle(name, 'poll'):,.1f}" if name in (OURS, HIREDIS) else "",
                f"{middle(name, 'cpu'):,.1f}",
                "" if name == STILL else f"{middle(name, 'commands'):,.0f}",
                "" if name == STILL else f"{middle(name, 'redis_cpu'):,.1f}",
                "" if name == STILL else f"{max(cost.longest for cost in costs[name]):,.1f}",
                "" if limit else f"{middle(name, 'memory'):,.0f}",
                f"{middle(name, 'size') / 1000:,.0f}",
            )
        )
    columns = ("", "scrape p50", "p99", "poll", "CPU", "commands", "CPU of Redis", "longest hold")
    table(
        f"{queues:,} queues; milliseconds, but for the last two columns and the commands",
        (*columns, "MiB", "kB sent"),
        rows,
    )

    def ratios(what: str, other: str) -> str:
        pairs = zip(costs[OURS], costs[other], strict=True)
        return spread([_figure(a, what) / _figure(b, what) for a, b in pairs], 3)

    print(f"\nRatios of each round, {queues:,} queues (median, least to most):")
    for text, what, others in (
        ("scrape p50", "scrape", (BULLMQ, NAIVE, STILL)),
        ("CPU of poll, render and scrape", "cpu", (BULLMQ, NAIVE)),
        ("CPU of Redis", "redis_cpu", (BULLMQ, NAIVE)),
        ("time of a poll", "poll", (HIREDIS,)),
        ("memory", "memory", (BULLMQ, NAIVE)),
    ):
        comparison = "; ".join(f"{ratios(what, other)} of {other}" for other in others)
        print(f"- {text}: {comparison}", flush=True)


def _figure(cost: Cost, what: str) -> float:
    return median(cost.scrapes) if what == "scrape" else float(getattr(cost, what))

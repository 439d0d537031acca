"""`make bench`: what docs/performance.md says, measured anew.

All that is compared runs in turn in one go, so that the ratios hold on a machine that is shared.
"""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

from tests.bench.events import full_rate, speed, steady
from tests.bench.folding import folding
from tests.bench.postgres import postgres
from tests.bench.requests import beside_work, idle, pages, start
from tests.bench.scrapes import SIZES, scrapes

PARTS = ("scrapes", "postgres", "api", "start", "events", "folding")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="make bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steady-seconds", type=int, default=600)
    parser.add_argument("--postgres-seconds", type=int, default=60)
    parser.add_argument("--queues", type=int, nargs="*", default=list(SIZES), choices=SIZES)
    parser.add_argument("--parts", nargs="*", default=PARTS, choices=PARTS)
    arguments = parser.parse_args()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if "model name" in line), "?")
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores of {model}", flush=True)
    if "scrapes" in arguments.parts:
        scrapes(arguments.queues, arguments.rounds)
    if "postgres" in arguments.parts:
        postgres(arguments.rounds, arguments.postgres_seconds)
    if "api" in arguments.parts:
        pages(arguments.rounds)
        beside_work()
    if "start" in arguments.parts:
        start(arguments.rounds)
        idle()
    if "events" in arguments.parts:
        speed(arguments.rounds)
        full_rate()
        steady(arguments.steady_seconds)
    if "folding" in arguments.parts:
        folding(arguments.rounds)


if __name__ == "__main__":
    main()

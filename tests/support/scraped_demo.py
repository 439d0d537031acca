"""The demo, and a Prometheus with the rules that scrapes it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.exporters import clean_environment
from tests.support.http_client import Client
from tests.support.ports import free_port
from tests.support.programs import spawning
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.rules import RULES
from tests.support.waiting import eventually


@contextmanager
def scraped_demo(directory: Path, scrape_interval: int) -> Iterator[tuple[Prometheus, Client]]:
    """A Prometheus that scrapes a demo every so many seconds, and the demo's API."""
    metrics, api = free_port(), free_port()
    config = {
        "global": {
            "scrape_interval": f"{scrape_interval}s",
            "evaluation_interval": f"{2 * scrape_interval}s",
        },
        "rule_files": [str(RULES / "*.yml")],
        "scrape_configs": [
            {"job_name": "bullmq", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}
        ],
    }
    log = directory / "log"
    with (
        log.open("w") as output,
        spawning(stdout=output, stderr=output, env=clean_environment()) as spawn,
    ):
        spawn(
            *(sys.executable, "-m", "exporter", "--demo"),
            *("--metrics-listen", f"127.0.0.1:{metrics}", "--api-listen", f"127.0.0.1:{api}"),
        )
        prometheus = start_prometheus(spawn, directory, config, "--enable-feature=exemplar-storage")
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        [key] = re.findall(r"API key +(\S+)", log.read_text())
        yield prometheus, Client(f"http://127.0.0.1:{api}", {"X-API-KEY": key})

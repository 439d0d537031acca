"""The demo, and a Prometheus with the rules that scrapes it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Prometheus, clean_environment, eventually, free_port, program
from tests.http_client import Client
from tests.test_rules import RULES


@contextmanager
def scraped_demo(directory: Path, scrape_interval: int) -> Iterator[tuple[Prometheus, Client]]:
    """A Prometheus that scrapes a demo every so many seconds, and the demo's API."""
    metrics, api, port = free_port(), free_port(), free_port()
    config = directory / "prometheus.yml"
    jobs = [{"job_name": "bullmq", "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}]}]
    intervals = {
        "scrape_interval": f"{scrape_interval}s",
        "evaluation_interval": f"{2 * scrape_interval}s",
    }
    rules = [str(RULES / "*.yml")]
    config.write_text(
        json.dumps({"global": intervals, "rule_files": rules, "scrape_configs": jobs})
    )
    commands = (
        [
            *(sys.executable, "-m", "exporter", "--demo"),
            *("--metrics-listen", f"127.0.0.1:{metrics}", "--api-listen", f"127.0.0.1:{api}"),
        ],
        [
            program("prometheus", "prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--enable-feature=exemplar-storage",
        ],
    )
    with (directory / "log").open("w") as log:
        started = [
            subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment())
            for command in commands
        ]
        try:
            eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
            [key] = re.findall(r"API key +(\S+)", (directory / "log").read_text())
            yield Prometheus(port), Client(f"http://127.0.0.1:{api}", {"X-API-KEY": key})
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait()

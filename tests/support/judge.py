"""A real Prometheus as the judge of many pages: each is a target of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

from tests.support.programs import Spawn
from tests.support.prometheus import Prometheus, start_prometheus
from tests.support.waiting import eventually

Series = frozenset[tuple[str, str]]


class Page(NamedTuple):
    content_type: str
    body: bytes


class Verdict(NamedTuple):
    """What Prometheus made of a page."""

    error: str  # empty where it took it
    samples: int
    series: Set[Series]  # those that were asked for


class _Server(ThreadingHTTPServer):
    request_queue_size = 512


@contextmanager
def serving(pages: Mapping[str, Page]) -> Iterator[str]:
    """Answers with the pages by their paths; yields HOST:PORT."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages[self.path]
            self.send_response(200)
            self.send_header("Content-Type", page.content_type)
            self.send_header("Content-Length", str(len(page.body)))
            self.end_headers()
            self.wfile.write(page.body)

        def log_message(self, *_: object) -> None: ...

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def judge(
    pages: Mapping[str, Page],
    address: str,
    *,
    binary: str,
    spawn: Spawn,
    directory: Path,
    query: str,
) -> dict[str, Verdict]:
    """The verdicts of this Prometheus by path, with the series of each page that `query` finds."""
    targets = [
        {"targets": [address], "labels": {"__metrics_path__": path, "page": path}} for path in pages
    ]
    config = {
        "global": {"scrape_interval": "5s", "scrape_timeout": "5s"},
        "scrape_configs": [{"job_name": "pages", "static_configs": targets}],
    }
    flags = ("--enable-feature=exemplar-storage",)
    prometheus = start_prometheus(spawn, directory, config, *flags, binary=binary)

    def errors() -> dict[str, str] | None:
        found = prometheus.get("targets", state="active")["activeTargets"]
        # A busy machine is not the page's fault: what was not read is asked for again.
        read = {
            each["labels"]["page"]: each["lastError"]
            for each in found
            if each["health"] != "unknown" and not each["lastError"].startswith("Get ")
        }
        return read if read.keys() == pages.keys() else None

    read: dict[str, str] = eventually(errors)
    samples = _samples(prometheus)
    series: dict[str, set[Series]] = {path: set() for path in pages}
    for row in prometheus.query(query):
        labels = row["metric"]
        for name in ("instance", "job"):
            del labels[name]
        series[labels.pop("page")].add(frozenset(labels.items()))
    return {path: Verdict(read[path], samples[path], series[path]) for path in pages}


def _samples(prometheus: Prometheus) -> dict[str, int]:
    return {
        row["metric"]["page"]: int(row["value"][1])
        for row in prometheus.query("scrape_samples_scraped")
    }

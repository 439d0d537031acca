"""A real Prometheus."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.exporters import Exporter
from tests.support.ports import free_port
from tests.support.programs import Spawn, program


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

"""Writes each dashboard as JSON, as Grafana provisions it."""

from __future__ import annotations

from pathlib import Path

from dashboards import exporter, overview, queue
from dashboards.parts import as_json

DASHBOARDS = (overview.dashboard, queue.dashboard, exporter.dashboard)


def files() -> dict[Path, str]:
    """What stands in each file."""
    made = (dashboard().build() for dashboard in DASHBOARDS)
    return {Path(__file__).parent / f"{each.uid}.json": as_json(each) for each in made}


if __name__ == "__main__":
    for file, text in files().items():
        file.write_text(text)

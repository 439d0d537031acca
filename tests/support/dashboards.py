"""The shipped dashboards and their queries."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dashboards.__main__ import files

BOARDS = {path.stem: json.loads(text) for path, text in files().items()}


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each query of a dashboard, with the name of its panel."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


def filled_in(expression: str) -> str:
    """As Grafana sends it, for the queue that the demo breaks."""
    for name, value in (
        ("$__rate_interval", "20s"),
        ("$__range", "1m"),
        ("$instance", ".*"),
        ("$target", ".*"),
        ("$prefix", ".*"),
        ("$queue", "ingestion"),
        ("$release", "app_build_info"),
    ):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression

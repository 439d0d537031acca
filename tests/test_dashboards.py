"""The Grafana dashboards: made by their script, sound, and answering with real data."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dashboards.__main__ import files
from dashboards.parts import UnknownSeries, query
from exporter.prometheus.exposition import family_names
from tests.conftest import API_KEY, Prometheus, clean_environment, eventually, free_port, program
from tests.http_client import Client
from tests.test_rules import RULES

BOARDS = {path.stem: json.loads(text) for path, text in files().items()}


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each query of a dashboard, with the name of its panel."""
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in board["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.stem)
def test_the_files_are_what_the_script_makes(path: Path) -> None:
    assert path.read_text() == files()[path], "run: make dashboards"


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_dashboard_is_sound(board: dict[str, Any]) -> None:
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = set(
            itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"]))
        )
        assert not taken & cells, f"{panel['title']} overlaps"
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["description"]
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["noValue"], "no data says what it means"
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] == "heatmap"
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert (
                "$__range" in target["expr"]
                or target["instant"]
                or not re.search(r"rate\([^\[]*\[\d", target["expr"])
            ), "rates over the time shown follow $__rate_interval"
    variables = [variable["name"] for variable in board["templating"]["list"]]
    assert variables[:2] == ["datasource", "instance"]


def test_a_query_of_a_series_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownSeries, match="bullmq_job_faild_total"):
        query("rate(bullmq_job_faild_total[5m])")


# What the exporter tells and no dashboard shows.
NOT_SHOWN = {
    "bullmq_queue_info": "for joins",
    "process_start_time_seconds": "for restarts, in Explore",
    "process_virtual_memory_bytes": "says nothing of a Python process",
    "process_max_fds": "a constant",
    "python_gc_collections_total": "for developers",
    "python_gc_objects_collected_total": "for developers",
    "python_gc_objects_uncollectable_total": "for developers",
    "python_info": "a constant",
    "bullmq_exporter_build_info": "for joins",
}


def test_every_family_is_shown_somewhere() -> None:
    shown = " ".join(expr for board in BOARDS.values() for _, expr in queries(board))
    missing = {name for name in family_names() if not re.search(rf"\b{name}(_bucket)?\b", shown)}
    assert missing <= NOT_SHOWN.keys()


# Panels that are empty while all is well, and why.
MAY_BE_EMPTY = {
    "Alerts": "annotations: nothing has to fire in a minute",
    "Events missed by queue, per minute": "none is missed",
    "Longest wait": "no job has to wait at the moment",
    "Oldest jobs": "no job has to wait, be active or overdue at the moment",
    "Queues, the worst first": "some columns: no job has to wait or be active at the moment",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus with the rules that scrapes the demo."""
    directory = tmp_path_factory.mktemp("demo")
    metrics, api, port = free_port(), free_port(), free_port()
    config = directory / "prometheus.yml"
    config.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "evaluation_interval": "2s"},
                "rule_files": [str(RULES / "*.yml")],
                "scrape_configs": [
                    {
                        "job_name": "bullmq",
                        "static_configs": [{"targets": [f"127.0.0.1:{metrics}"]}],
                    }
                ],
            }
        )
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
        ],
    )
    log = (directory / "log").open("w")
    started = [
        subprocess.Popen(command, stdout=log, stderr=log, env=clean_environment())
        for command in commands
    ]
    try:
        eventually(lambda: Client(f"http://127.0.0.1:{metrics}").get("/-/ready").status == 200)
        # Refused, but counted; twice, for a rate.
        for _ in range(2):
            Client(f"http://127.0.0.1:{api}", {"X-API-KEY": API_KEY}).get("/v1/jobs/queues")
            time.sleep(3)
        yield Prometheus(port)
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()
        log.close()


def filled_in(expression: str) -> str:
    """As Grafana sends it, for the queue that the demo breaks."""
    for name, value in (
        ("$__rate_interval", "20s"),
        ("$__range", "1m"),
        ("$instance", ".*"),
        ("$queue", "ingestion"),
    ):
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


@pytest.mark.timeout(300)
def test_every_query_answers_with_the_demos_data(demo: Prometheus) -> None:
    """Once within its first minutes: the demo's outage begins after 20 seconds."""
    pending = {
        (board["uid"], title, expression)
        for board in BOARDS.values()
        for title, expression in queries(board)
    }
    for board in BOARDS.values():
        for variable in board["templating"]["list"]:
            if variable["type"] == "query":
                [(selector, label)] = re.findall(r"label_values\((.*), (\w+)\)", variable["query"])
                expression = f"group by ({label}) ({selector})"
                pending.add((board["uid"], variable["name"], expression))

    def unanswered() -> set[tuple[str, str, str]]:
        for each in list(pending):
            if demo.query(filled_in(each[2])):  # an error would be raised
                pending.discard(each)
        return {each for each in pending if each[1] not in MAY_BE_EMPTY}

    eventually(lambda: not unanswered(), within=150, pause=2)

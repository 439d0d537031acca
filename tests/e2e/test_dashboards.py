"""The Grafana dashboards: made by their script, sound, and answering with real data."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.__main__ import files
from dashboards.parts import UnknownSeries, query
from exporter.metrics.exposition import family_names
from tests.support.dashboards import BOARDS, filled_in, queries
from tests.support.paths import ROOT, TESTS
from tests.support.programs import program
from tests.support.prometheus import Prometheus
from tests.support.rules import ALERTS
from tests.support.scraped_demo import scraped_demo
from tests.support.waiting import eventually

PROVISIONING = ROOT / "config/grafana/provisioning"


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


def test_alerts_lead_to_dashboards_that_are_there_and_exemplars_to_their_jobs() -> None:
    links = [rule["annotations"].get("dashboard_url", "") for rule in ALERTS]
    assert set(re.findall(r"/d/([\w-]+)", " ".join(links))) == BOARDS.keys()
    assert BOARDS.keys() == {"bullmq-overview", "bullmq-queue", "bullmq-exporter"}
    assert all(board["uid"] == name for name, board in BOARDS.items())
    sources = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text())
    [destination] = sources["datasources"][0]["jsonData"]["exemplarTraceIdDestinations"]
    assert destination["name"] == "job_key", "the label of event_family.py"
    providers = yaml.safe_load((PROVISIONING / "dashboards/bullmq.yml").read_text())["providers"]
    assert [each["type"] for each in providers] == ["file"]


GRAFANA = TESTS / "grafana"


def typescript(directory: Path, boards: dict[str, Any]) -> str:
    """What the compiler says of dashboards against Grafana's published types."""
    if not (GRAFANA / "node_modules").is_dir():
        pytest.fail("Grafana's types are missing: make test installs them")
    for name, board in boards.items():
        kind = f"import type {{ Dashboard }} from {json.dumps(str(GRAFANA / 'dashboard'))};"
        text = f"{kind}\nexport const board: Dashboard =\n{json.dumps(board, indent=2)};\n"
        (directory / f"{name}.ts").write_text(text)
    settings = {"extends": str(GRAFANA / "tsconfig.json"), "include": ["*.ts"]}
    (directory / "tsconfig.json").write_text(json.dumps(settings))
    compiler = GRAFANA / "node_modules" / "typescript" / "bin" / "tsc"
    command = [program("node", "nodejs"), compiler, "--pretty", "false", "--project", directory]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def test_the_dashboards_hold_against_grafanas_published_schema(tmp_path: Path) -> None:
    assert typescript(tmp_path, BOARDS) == ""


def test_what_grafana_does_not_know_is_found(tmp_path: Path) -> None:
    wrong = json.loads(json.dumps(BOARDS["bullmq-overview"]))
    tile, graph = wrong["panels"][0], wrong["panels"][-1]
    tile["options"]["colourMode"] = "background"
    graph["fieldConfig"]["defaults"]["custom"]["showPoints"] = "sometimes"
    wrong["panels"][1]["targets"][0]["legend"] = "x"
    said = typescript(tmp_path, {"wrong": wrong})
    assert "colourMode" in said
    assert "sometimes" in said
    assert '"legend"' in said


def test_a_queue_is_found_by_its_name_and_by_nothing_else() -> None:
    """Grafana escapes a single value for a string, not for a regular expression."""
    for board in BOARDS.values():
        for title, expression in queries(board):
            assert '=~"$queue"' not in expression, title


def test_a_query_of_a_series_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnknownSeries, match="bullmq_job_faild_total"):
        query("rate(bullmq_job_faild_total[5m])")


# What the exporter reports and no dashboard shows.
NOT_SHOWN = {
    "bullmq_queue_info": "for joins",
    "bullmq_scheduler_info": "for joins",
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
    **dict.fromkeys(
        (
            "Active jobs and their limit",
            "Rate limit ends in",
            "Concurrency used",
            "Rate limit",
            "Within",
        ),
        "no queue of the demo has a limit",
    ),
    "Alerts": "annotations: nothing has to fire in a minute",
    "Clock offsets": "all agree",
    "Events missed by queue, per minute": "none is missed",
    "Releases": "annotations: the demo is never released anew",
    "Time since counters were saved": "the demo has no state file",
    "Longest wait": "no job has to wait at the moment",
    "New reasons, 24 h": "none is for an hour after the start",
    "Reasons, most frequent first": "a column: the demo did not run an hour ago",
    "Oldest jobs": "no job has to wait, be active or overdue at the moment",
    "Time since the last run of each schedule": "a schedule of the demo runs once a minute at most",
    "Queues, worst first": "some columns: no job has to wait or be active at the moment",
}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    with scraped_demo(tmp_path_factory.mktemp("demo"), scrape_interval=1) as (prometheus, api):
        # Refused, but counted; twice, for a rate.
        for _ in range(2):
            api.without_credentials().get("/v1/jobs/queues")
            time.sleep(3)
        yield prometheus


@pytest.mark.takes(seconds=70)
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

    eventually(lambda: not unanswered(), within=240, pause=2)

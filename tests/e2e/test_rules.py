"""The alert rules: each fires when it must and stays silent when it must not, with a runbook."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from exporter.metrics.exposition import family_names
from tests.support.paths import ROOT, TESTS
from tests.support.rules import (
    ALERTS,
    CONFIG,
    NAMES,
    PROMETHEUS,
    RECORDED,
    RULES,
    groups_of,
    named_in,
    promtool,
    rules,
    rules_behind,
)
from tests.support.week import Week

HISTORIES = sorted((TESTS / "rules").glob("*.yml"))


@pytest.mark.parametrize("version", PROMETHEUS)
def test_prometheus_takes_the_configuration_and_the_rules(version: str) -> None:
    assert f"promtool, version {version}." in promtool("--version", version=version)
    said = promtool("check", "config", CONFIG / "prometheus.yml", version=version)
    assert f"SUCCESS: {len(ALERTS)} rules found" in said


@pytest.mark.parametrize("version", PROMETHEUS)
@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.stem)
def test_alerts_fire_in_the_histories_in_which_they_must_and_in_no_near_miss(
    history: Path, version: str, tmp_path: Path
) -> None:
    """Each with the rules behind its alerts: promtool reads each rule again at each evaluation, and
    all 150 would take several times as long.
    """
    content = yaml.safe_load(history.read_text())
    for number, test in enumerate(content["tests"]):
        alerts = {moment["alertname"] for moment in test.get("alert_rule_test", ())}
        read = (named_in(moment["expr"]) for moment in test.get("promql_expr_test", ()))
        groups = groups_of(rules_behind(alerts.union(*read)))
        evaluate(tmp_path / str(number), groups, {**content, "tests": [test]}, version)


@pytest.mark.parametrize("history", HISTORIES, ids=lambda path: path.stem)
def test_every_rule_can_be_evaluated_in_each_history(history: Path, tmp_path: Path) -> None:
    """Also those that it is not about: no series matches others ambiguously."""
    content = yaml.safe_load(history.read_text())
    for test in content["tests"]:
        moments = [*test.pop("alert_rule_test", ()), *test.pop("promql_expr_test", ())]
        test["promql_expr_test"] = [
            {"expr": "vector(1)", "eval_time": moment["eval_time"], "exp_samples": [ONE]}
            for moment in moments
        ]
    groups = groups_of(NAMES | RECORDED.keys())
    # Not at every minute, which takes four times as long.
    evaluate(tmp_path / "all", groups, {**content, "evaluation_interval": "4m"}, "2")


ONE = {"labels": "{}", "value": 1}


def evaluate(
    directory: Path, groups: Sequence[Mapping[str, Any]], histories: dict[str, Any], version: str
) -> None:
    directory.mkdir()
    (directory / "rules.yml").write_text(json.dumps({"groups": groups}))
    order = [group["name"] for group in groups]  # else it is another one each time
    made = {**histories, "rule_files": ["rules.yml"], "group_eval_order": order}
    file = directory / "history.yml"
    file.write_text(json.dumps(made))
    promtool("test", "rules", file, version=version)


def test_every_alert_has_a_history_in_which_it_fires_and_a_near_miss() -> None:
    fires, misses = set(), set()
    for history in HISTORIES:
        for test in yaml.safe_load(history.read_text())["tests"]:
            for moment in test["alert_rule_test"]:
                (fires if moment.get("exp_alerts") else misses).add(moment["alertname"])
                for alert in moment.get("exp_alerts", []):
                    assert alert["exp_annotations"], "rendered texts are held too"
    assert fires == misses == NAMES


@pytest.mark.parametrize("alert", ALERTS, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_to_do_next(alert: dict[str, Any]) -> None:
    name, texts = alert["alert"], alert["annotations"]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert {"summary", "description", "dashboard_url", "runbook_url"} <= texts.keys()
    assert texts["runbook_url"].endswith(f"/{name}.md")
    runbook = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
    assert runbook.startswith(f"# {name}\n")


def test_there_is_no_runbook_without_its_alert() -> None:
    runbooks = {path.stem for path in (ROOT / "docs" / "runbooks").glob("*.md")} - {"README"}
    assert runbooks == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_runbook_says_how_its_threshold_was_reasoned_and_what_is_usual(name: str) -> None:
    runbooks = ROOT / "docs" / "runbooks"
    text = (runbooks / f"{name}.md").read_text()
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Look", "Usual causes", "Do", "Threshold", "If it is noise"]
    threshold = text.partition("## Threshold\n")[2].partition("\n## ")[0]
    assert "healthy system" in " ".join(threshold.split())
    assert "ilence" in threshold
    assert f"| [{name}]({name}.md) | " in (runbooks / "README.md").read_text()


def test_every_limit_is_defined_and_used() -> None:
    expressions = " ".join(rule["expr"] for rule in rules())
    used = set(re.findall(r"bullmq:limit:\w+", expressions))
    assert used == {name for name in RECORDED if name.startswith("bullmq:limit:")}


def test_rules_name_no_series_that_is_not_there() -> None:
    families = family_names()
    exported = families | {f"{name}_{part}" for name in families for part in ("count", "bucket")}
    named: set[str] = set()
    for rule in rules():
        texts = " ".join([rule["expr"], *rule.get("annotations", {}).values()])
        named |= set(re.findall(r"\b(?:\w+:)?bullmq[\w:]*", re.sub(r'"[^"]*/d/.*?"', "", texts)))
    # Parts of addresses: /d/bullmq-queue, /d/bullmq-exporter, and text.
    named -= {"bullmq"}
    assert named <= exported | RECORDED.keys()


def test_the_prometheus_rule_of_kubernetes_is_made_from_the_same_rules(tmp_path: Path) -> None:
    script = ROOT / "config" / "kubernetes" / "prometheus_rule.py"
    made = runpy.run_path(str(script))["prometheus_rule"]()
    assert (script.parent / "prometheus-rule.yml").read_text() == made, "run: make rules"
    resource = yaml.safe_load(made)
    assert [rule for group in resource["spec"]["groups"] for rule in group["rules"]] == [
        rule
        for name in ("limits", "recording", "alerts")
        for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    spec = tmp_path / "rules.yml"
    spec.write_text(json.dumps(resource["spec"]))
    promtool("check", "rules", spec)


def test_a_queue_can_have_its_own_limit_as_limits_yml_says(tmp_path: Path) -> None:
    """Two queues stand still; that of one is not to be reported."""
    for file in RULES.glob("*.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    limits = (tmp_path / "limits.yml").read_text()
    own = 'expr: 0 * bullmq:queue{queue="batch"} or 1 * bullmq:queue\n'
    changed = re.sub(r"(always_worked\n +)expr: 1 \* bullmq:queue\n", rf"\1{own}", limits)
    assert changed != limits
    (tmp_path / "limits.yml").write_text(changed)
    still = 'bullmq_job_count{job="bullmq",instance="i",state="waiting",queue="%s"}'
    test = {
        "interval": "1m",
        "input_series": [{"series": still % name, "values": "5x30"} for name in ("batch", "mail")],
        "promql_expr_test": [
            {
                "expr": "group by (queue)"
                ' (ALERTS{alertname="BullMQQueueStandsStill",alertstate="firing"})',
                "eval_time": "20m",
                "exp_samples": [{"labels": '{queue="mail"}', "value": 1}],
            }
        ],
    }
    history = tmp_path / "history"
    history.write_text(json.dumps({"rule_files": [f"{tmp_path}/*.yml"], "tests": [test]}))
    promtool("test", "rules", history)


@pytest.mark.parametrize("made_of", ["bullmq:queue_within_day", "bullmq:queue"])
def test_queues_that_come_and_go_are_left_out_by_a_pattern(made_of: str, tmp_path: Path) -> None:
    """Made of the queues that are there as well, as the other limits are."""
    for file in RULES.glob("*.yml"):
        (tmp_path / file.name).write_text(file.read_text())
    limits = (tmp_path / "limits.yml").read_text()
    own = f'expr: 0 * {made_of}{{queue=~"tenant-.+"}} or 1 * {made_of}\n'
    changed = re.sub(r"(always_there\n +)expr: 1 \* bullmq:queue_within_day\n", rf"\1{own}", limits)
    assert changed != limits
    (tmp_path / "limits.yml").write_text(changed)
    count = 'bullmq_job_count{job="bullmq",instance="i",state="waiting",queue="%s"}'
    gone = [*(f"tenant-{number}" for number in range(20)), "mail"]
    firing = (
        'group by (alertname, queue) (ALERTS{alertname=~"BullMQQueues?Gone",alertstate="firing"})'
    )
    test = {
        "interval": "1m",
        "input_series": [
            {"series": 'bullmq_up{job="bullmq",instance="i"}', "values": "1x90"},
            {"series": count % "there", "values": "0x90"},
            *({"series": count % name, "values": "0x30 stale"} for name in gone),
        ],
        "promql_expr_test": [
            {
                "expr": firing,
                "eval_time": "80m",
                "exp_samples": [
                    {"labels": '{alertname="BullMQQueueGone",queue="mail"}', "value": 1}
                ],
            }
        ],
    }
    history = tmp_path / "history"
    history.write_text(json.dumps({"rule_files": [f"{tmp_path}/*.yml"], "tests": [test]}))
    promtool("test", "rules", history)


@pytest.mark.takes(seconds=75)
def test_a_healthy_week_raises_nothing(tmp_path: Path) -> None:
    assert fired(tmp_path, Week()) == set()


def test_an_hour_of_that_week_without_workers_is_reported(tmp_path: Path) -> None:
    """What the test above says is worth something: its week would show it."""
    week = Week(days=1)
    week.stop_workers("indexing", day=0, hour=12, minutes=60)
    assert fired(tmp_path, week) == {
        ("BullMQQueueStandsStill", "indexing"),
        ("BullMQNoWorker", "indexing"),
        ("BullMQWorkerHeartbeatGone", "indexing"),
        ("BullMQDelayedJobsOverdue", "indexing"),
    }


def fired(directory: Path, week: Week) -> set[tuple[str, str]]:
    """Which alerts fired at any minute of it, and for which queue."""
    history = directory / "week.yml"
    firing = 'last_over_time(ALERTS{alertstate="firing"}[8d])'
    test = {
        "interval": "1m",
        "input_series": week.series(),
        "promql_expr_test": [
            {
                "expr": f"group by (alertname, queue) ({firing})",
                "eval_time": f"{week.minutes}m",
                "exp_samples": [],
            }
        ],
    }
    history.write_text(
        json.dumps(
            # Every 4 minutes: every minute takes four times as long.
            {"rule_files": [f"{RULES}/*.yml"], "evaluation_interval": "4m", "tests": [test]}
        )
    )
    said = promtool("test", "rules", history, succeeds=False)
    assert "SUCCESS" in said or "got:" in said, said
    return set(re.findall(r'alertname="(\w+)"(?:, queue="(\w+)")?', said.partition("got:")[2]))

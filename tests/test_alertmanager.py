"""The Alertmanager configuration: it is valid, tells the right people, and reads well."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import newest, program
from tests.test_rules import ALERTS, NAMES

CONFIG = Path(__file__).parents[1] / "config" / "alertmanager"
ALERTMANAGER = yaml.safe_load((CONFIG / "alertmanager.yml").read_text())


def amtool(*arguments: str | Path, binary: str = "") -> str:
    binary = binary or program("amtool", "prometheus-alertmanager")
    command = [binary, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("newer", [False, True])
def test_alertmanager_takes_the_configuration_and_its_templates(newer: bool) -> None:
    binary = newest("amtool") if newer else ""
    said = amtool("check-config", CONFIG / "alertmanager.yml", binary=binary)
    assert "1 templates" in said
    assert "SUCCESS" in said


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_what_is_critical_wakes_people_and_the_rest_waits_for_the_morning(
    rule: dict[str, Any],
) -> None:
    severity = rule["labels"]["severity"]
    amtool(
        "config",
        "routes",
        "test",
        f"--config.file={CONFIG / 'alertmanager.yml'}",
        f"--verify.receivers={'night' if severity == 'critical' else 'morning'}",
        f"alertname={rule['alert']}",
        f"severity={severity}",
        "queue=ingestion",
    )


def test_inhibition_names_alerts_that_there_are() -> None:
    named = {
        name
        for rule in ALERTMANAGER["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        for name in matcher.split('"')[1].split("|")
        if name.startswith("BullMQ") and name != "BullMQ.+"
    }
    assert named <= NAMES


def alert(name: str, status: str = "firing", **texts: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": {"alertname": name, "severity": "critical", "queue": "q", "instance": "i:9538"},
        "annotations": {
            "summary": f"{name} of q",
            "description": "Why.",
            "dashboard_url": "http://grafana/d/bullmq-queue?var-instance=i&var-queue=q",
            "runbook_url": f"http://runbooks/{name}.md",
            **texts,
        },
        "startsAt": "2026-11-24T03:12:05Z",
        "endsAt": "2026-11-24T04:00:00Z" if status == "resolved" else "0001-01-01T00:00:00Z",
    }


def render(template: str, directory: Path, *alerts: dict[str, Any], kind: str = "text") -> str:
    data = directory / "data.json"
    status = "firing" if any(each["status"] == "firing" for each in alerts) else "resolved"
    data.write_text(
        json.dumps(
            {
                "status": status,
                "alerts": alerts,
                "commonLabels": {"severity": "critical"},
            }
        )
    )
    return amtool(
        "template",
        "render",
        f"--template.glob={CONFIG / 'templates' / '*.tmpl'}",
        f'--template.text={{{{ template "{template}" . }}}}',
        f"--template.type={kind}",
        f"--template.data={data}",
    )


def test_a_title_is_one_line_with_the_worst_of_it(tmp_path: Path) -> None:
    first, over = alert("A"), alert("B", "resolved")
    assert render("bullmq.title", tmp_path, first) == "FIRING A of q"
    assert render("bullmq.title", tmp_path, over, first) == "FIRING A of q"
    assert render("bullmq.title", tmp_path, first, alert("C")) == "FIRING A of q (and 1 more)"
    assert render("bullmq.title", tmp_path, over) == "Resolved B of q"
    first["labels"]["severity"] = "warning"
    assert render("bullmq.title", tmp_path, first) == "Warning A of q"


def test_the_text_of_an_alert_and_of_its_end_is_complete(tmp_path: Path) -> None:
    jobs = "http://api/?queue=q&status=failed"
    alerts = (
        alert("A", top_jobs="send (40), bounce (5)", jobs_url=jobs),
        alert("B", "resolved"),
    )
    assert (
        render("bullmq.email.text", tmp_path, *alerts)
        == """\
A of q

Why.

Most of all:  send (40), bounce (5)
Since:        2026-11-24 03:12 UTC
Alert:        A (critical)
Told by:      i:9538
Jobs:         http://api/?queue=q&status=failed
Dashboard:    http://grafana/d/bullmq-queue?var-instance=i&var-queue=q
Runbook:      http://runbooks/A.md

--------

Over: B of q

Since:        2026-11-24 03:12 UTC until 2026-11-24 04:00 UTC
Alert:        B (critical)
Told by:      i:9538
Dashboard:    http://grafana/d/bullmq-queue?var-instance=i&var-queue=q
Runbook:      http://runbooks/B.md

--------

"""
    )
    assert (
        render("bullmq.slack.text", tmp_path, *alerts)
        == """\
*A of q*
Why.
Most of all: send (40), bounce (5)
critical, since 2026-11-24 03:12 UTC, i:9538
<http://api/?queue=q&amp;status=failed|Jobs> · \
<http://grafana/d/bullmq-queue?var-instance=i&amp;var-queue=q|Dashboard> · \
<http://runbooks/A.md|Runbook>

Over: *B of q*
critical, since 2026-11-24 03:12 UTC until 04:00 UTC, i:9538
<http://grafana/d/bullmq-queue?var-instance=i&amp;var-queue=q|Dashboard> · \
<http://runbooks/B.md|Runbook>

"""
    )


def test_names_of_queues_and_jobs_are_only_text(tmp_path: Path) -> None:
    """They come from the application, and whoever adds jobs may choose them."""
    odd = "<!channel> <script>alert(1)</script>"
    told = alert("A", summary=odd, description=odd, top_jobs=odd, jobs_url="javascript:alert(1)")
    assert "<!channel>" not in render("bullmq.slack.text", tmp_path, told)
    html = render("bullmq.email.html", tmp_path, told, kind="html")
    assert "<script>" not in html
    assert 'href="javascript' not in html

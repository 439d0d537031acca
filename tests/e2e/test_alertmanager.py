"""The Alertmanager configuration: it is valid, notifies the right people, and reads well."""

from __future__ import annotations

import json
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.support.alertmanager_configuration import ALERTMANAGER, CONFIG, alert, odd_alert
from tests.support.programs import newest, program
from tests.support.rules import ALERTS, NAMES


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
    # That a queue has gone, or a reason is new, is no state to be reminded of.
    once = {"BullMQQueueGone", "BullMQQueuesGone", "BullMQNewFailureReason"}
    morning = "morning-once" if rule["alert"] in once else "morning"
    amtool(
        "config",
        "routes",
        "test",
        f"--config.file={CONFIG / 'alertmanager.yml'}",
        f"--verify.receivers={'night' if severity == 'critical' else morning}",
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


def matching(matchers: list[str]) -> set[tuple[str, str]]:
    """The alerts, by name and severity, that all these matchers match."""
    alerts = {(rule["alert"], rule["labels"]["severity"]) for rule in ALERTS}
    for matcher in matchers:
        parsed = re.fullmatch(r'(alertname|severity)(!?)(=?)(~?)"(.*)"', matcher)
        assert parsed, matcher
        label, unequal, _, _, value = parsed.groups()
        place = ("alertname", "severity").index(label)
        fitting = {each for each in alerts if re.fullmatch(value, each[place])}
        alerts = alerts - fitting if unequal else fitting
    return alerts


def test_no_alerts_hold_back_each_other() -> None:
    """Neither two nor a circle of them, of which none would be sent: where all labels are equal."""
    held: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for rule in ALERTMANAGER["inhibit_rules"]:
        sources, targets = matching(rule["source_matchers"]), matching(rule["target_matchers"])
        assert sources
        for target in targets:
            # What matches both sides is not held back by others that do.
            by = sources - targets if target in sources else sources
            held[target] = held.get(target, set()) | by
    TopologicalSorter(held).prepare()  # raises CycleError


def render(
    template: str,
    directory: Path,
    *alerts: dict[str, Any],
    kind: str = "text",
    newer: bool = False,
    address: str = "",
) -> str:
    """The template for these alerts of an Alertmanager that is reached at this address."""
    data = directory / "data.json"
    status = "firing" if any(each["status"] == "firing" for each in alerts) else "resolved"
    data.write_text(
        json.dumps(
            {
                "status": status,
                "alerts": alerts,
                "commonLabels": {"severity": "critical"},
                "externalURL": address,
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
        binary=newest("amtool") if newer else "",
    )


def test_a_title_is_one_line_with_the_worst_of_it(tmp_path: Path) -> None:
    first, over = alert("A"), alert("B", "resolved")
    assert render("bullmq.title", tmp_path, first) == "FIRING A of q"
    assert render("bullmq.title", tmp_path, over, first) == "FIRING A of q"
    assert render("bullmq.title", tmp_path, first, alert("C")) == "FIRING A of q (and 1 more)"
    assert render("bullmq.title", tmp_path, over) == "Resolved B of q"
    first["labels"]["severity"] = "warning"
    assert render("bullmq.title", tmp_path, first) == "Warning A of q"


@pytest.mark.parametrize("template", ["title", "slack.title"])
def test_a_title_goes_on_with_why_until_it_is_over(template: str, tmp_path: Path) -> None:
    why = "40 × read ECONNRESET; 5 × socket hang up"
    first, over = (alert("A", status, top_reasons=why) for status in ("firing", "resolved"))
    title = render(f"bullmq.{template}", tmp_path, first, alert("B"))
    assert title == f"FIRING A of q: {why} (and 1 more)"
    assert render(f"bullmq.{template}", tmp_path, over) == "Resolved A of q"
    assert render(f"bullmq.{template}", tmp_path, alert("A", top_reasons="")) == "FIRING A of q"


def test_the_text_of_an_alert_and_of_its_end_is_complete(tmp_path: Path) -> None:
    jobs = "http://api/?queue=q&status=failed"
    why = "40 × read ECONNRESET; 5 × socket hang up"
    alerts = (
        alert("A", top_reasons=why, top_jobs="send (40), bounce (5)", jobs_url=jobs),
        alert("B", "resolved", top_reasons=why),
    )
    silence = (
        "http://am:9093/#/silences/new?filter=%7Balertname%3D%22A%22%2Cinstance%3D%22i%3A9538%22"
        "%2Cqueue%3D%22q%22%2Cseverity%3D%22critical%22%7D"
    )
    mail = render("bullmq.email.text", tmp_path, *alerts, address="http://am:9093")
    assert (
        mail
        == f"""\
A of q: 40 × read ECONNRESET; 5 × socket hang up

Why.

Top jobs:     send (40), bounce (5)
Since:        2026-11-24 03:12 UTC
Alert:        A (critical)
Source:       i:9538
Jobs:         http://api/?queue=q&status=failed
Dashboard:    http://grafana/d/bullmq-queue?var-instance=i&var-queue=q
Runbook:      http://runbooks/A.md
Silence:      {silence}

--------

Resolved: B of q

Since:        2026-11-24 03:12 UTC until 2026-11-24 04:00 UTC
Alert:        B (critical)
Source:       i:9538
Dashboard:    http://grafana/d/bullmq-queue?var-instance=i&var-queue=q
Runbook:      http://runbooks/B.md

--------

"""
    )
    chat = render("bullmq.slack.text", tmp_path, *alerts, address="http://am:9093")
    assert (
        chat
        == f"""\
A of q: 40 × read ECONNRESET; 5 × socket hang up
Why.
Top jobs: send (40), bounce (5)
critical, since 2026-11-24 03:12 UTC, i:9538
<http://api/?queue=q&amp;status=failed|Jobs> · \
<http://grafana/d/bullmq-queue?var-instance=i&amp;var-queue=q|Dashboard> · \
<http://runbooks/A.md|Runbook> · \
<{silence}|Silence>

Resolved: B of q
critical, since 2026-11-24 03:12 UTC until 04:00 UTC, i:9538
<http://grafana/d/bullmq-queue?var-instance=i&amp;var-queue=q|Dashboard> · \
<http://runbooks/B.md|Runbook>

"""
    )


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("template", ["email.text", "email.html", "slack.text"])
def test_without_its_own_address_alertmanager_offers_no_silence(
    template: str, newer: bool, tmp_path: Path
) -> None:
    kind = template.rpartition(".")[2]
    plain, offering = (
        render(f"bullmq.{template}", tmp_path, alert("A"), kind=kind, newer=newer, address=address)
        for address in ("", "http://am:9093")
    )
    assert "ilence" not in plain
    link = r'( · <|\nSilence: +| &nbsp; <a href=")http://am:9093/#/silences/new\S+( style=.*</a>)?'
    assert re.sub(link, "", offering) == plain


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("template", ["email.text", "email.html", "slack.text"])
def test_a_silence_is_of_this_alert_alone_whatever_its_queue_is_called(
    template: str, newer: bool, tmp_path: Path
) -> None:
    """Alertmanager's page takes {name="value",…} of which each value is a string of JSON."""
    odd = alert("A")
    odd["labels"] |= {"queue": 'a b+c "d" \\ <e>|f&g=1,é\n\u202e#', "target": "eu", "prefix": "{x}"}
    kind = template.rpartition(".")[2]
    text = render(
        f"bullmq.{template}", tmp_path, odd, kind=kind, newer=newer, address="http://am/p"
    )
    [link] = re.findall(r"http://am/p/#/silences/new\?filter=([\w%.~-]+)", text)
    labels = re.findall(r'[{,](\w+)=("(?:[^"\\]|\\.)*")', unquote(link))
    assert {name: json.loads(value) for name, value in labels} == odd["labels"]


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("template", ["title", "slack.title", "slack.text", "email.text"])
def test_each_text_of_a_name_stays_on_its_line_and_reads_from_left_to_right(
    template: str, newer: bool, tmp_path: Path
) -> None:
    plain, odd = (
        render(f"bullmq.{template}", tmp_path, each, newer=newer, address="http://am:9093")
        for each in (
            alert("A", top_reasons="a", top_jobs="b", jobs_url="http://api/"),
            odd_alert(),
        )
    )
    assert len(odd.split("\n")) == len(plain.split("\n"))
    assert all(character.isprintable() for character in odd.replace("\n", ""))
    assert "{{ .Alerts }}" in odd


@pytest.mark.parametrize("template", ["slack.title", "slack.text"])
def test_a_name_is_no_mention_and_no_link_in_slack(template: str, tmp_path: Path) -> None:
    chat = render(f"bullmq.{template}", tmp_path, odd_alert(), address="http://am:9093")
    assert "&lt;!channel&gt; *bold* _it_ ~st~ `code` &amp;" in chat
    links = re.compile(r"<http://[^<>|\s]+\|(Jobs|Dashboard|Runbook|Silence)>")
    assert set("<>").isdisjoint(links.sub("", chat))
    assert len(links.findall(chat)) == (4 if template == "slack.text" else 0)


def test_the_configuration_escapes_each_field_of_slack_and_formats_none() -> None:
    slack = [
        config
        for receiver in ALERTMANAGER["receivers"]
        for config in receiver.get("slack_configs", [])
    ]
    assert slack
    for config in slack:
        assert config["title"] == config["fallback"] == '{{ template "bullmq.slack.title" . }}'
        assert config["text"] == '{{ template "bullmq.slack.text" . }}'
        assert config["mrkdwn_in"] == ["pretext"]
        assert "pretext" not in config


def test_a_name_is_only_text_in_html(tmp_path: Path) -> None:
    unsafe = odd_alert()
    unsafe["annotations"]["dashboard_url"] = "javascript:alert(1)"
    html = render("bullmq.email.html", tmp_path, unsafe, kind="html", address="http://am:9093")
    assert "<script>" not in html
    assert 'href="javascript' not in html
    assert "&lt;!channel&gt; *bold*" in html
    assert all(character.isprintable() for character in html.replace("\n", ""))


@pytest.mark.parametrize("template", ["title", "slack.title"])
def test_a_title_has_room_for_a_mail_server(template: str, tmp_path: Path) -> None:
    for length, shown in ((230, 230), (100_000, 249)):
        title = render(f"bullmq.{template}", tmp_path, alert("A", summary="é" * length))
        assert title.count("é") == shown
        assert title.endswith("…") == (length > shown)


@pytest.mark.parametrize(
    ("template", "shown"),
    [("title", 149), ("slack.title", 149), ("slack.text", 699), ("email.text", 699)],
)
def test_reasons_are_cut_before_they_hide_the_rest(
    template: str, shown: int, tmp_path: Path
) -> None:
    long = alert("A", top_reasons="é" * 100_000, top_jobs="send (40)")
    text = render(f"bullmq.{template}", tmp_path, long)
    assert text.count("é") == shown
    assert "é…" in text
    assert ("send (40)" in text) == (not template.endswith("title"))


def test_a_mail_shows_the_reasons_below_the_summary(tmp_path: Path) -> None:
    why = "40 × <b>read</b> ECONNRESET"
    html = render("bullmq.email.html", tmp_path, alert("A", top_reasons=why), kind="html")
    summary, reasons, description = (
        html.index(text)
        for text in ("A of q<", "40 × &lt;b&gt;read&lt;/b&gt; ECONNRESET<", "Why.<")
    )
    assert summary < reasons < description


def test_a_link_from_a_title_is_an_address_and_nothing_else(tmp_path: Path) -> None:
    link = "http://api/?queue=a&status=failed"
    assert render("bullmq.link", tmp_path, alert("A", jobs_url=link)) == link
    odd = alert("A", jobs_url=f"{link}|x> <!channel>\n")
    assert render("bullmq.link", tmp_path, odd) == f"{link}x!channel"

"""What the documents name is there, and what they say of metrics holds for a real Prometheus."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from exporter.cli import _parser
from exporter.metrics.exposition import family_names
from exporter.settings import FILE_ONLY, LEAVES, Settings, load
from tests.support.alertmanager_configuration import ALERTMANAGER
from tests.support.bullmq import StartWork, Work
from tests.support.dashboards import BOARDS, filled_in, queries
from tests.support.exporters import Exporter, StartExporter, clean_environment, spawn_exporter
from tests.support.paths import ROOT
from tests.support.programs import BULLMQ, program, spawning
from tests.support.rules import NAMES, PROMETHEUS, RECORDED, RULES, promtool, rules
from tests.support.servers import Server, running
from tests.support.waiting import eventually

DOCUMENTS = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
}
MOVING, SCALING = DOCUMENTS["docs/moving-over.md"], DOCUMENTS["docs/scaling.md"]
BULLMQS = ("bullmq5", "bullmq6")  # as tests/bullmq/package.json names them

each_document = pytest.mark.parametrize("name", DOCUMENTS)


def blocks(text: str, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL)
    return [dedent(body) for _, body in found]


def section(text: str, heading: str) -> str:
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def rows(text: str, head: str) -> list[list[str]]:
    """The rows of the tables whose first column has this head."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        first, _, *rest = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()
        ]
        if first[0] == head:
            assert {len(row) for row in rest} == {len(first)}, first
            found += rest
    return found


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def ours(name: str) -> str:
    """The document without what is another exporter's: the first column of what is moved over."""
    text = DOCUMENTS[name]
    if text is not MOVING:
        return text
    without_records = re.sub(r"record: \w+", "", text)
    return re.sub(r"^\|[^|]*\|", "|", without_records, flags=re.MULTILINE)


# What is named is there


def slugs(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_every_link_leads_somewhere(name: str) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name]):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), link
        assert not anchor or anchor in slugs(file.read_text("utf-8")), link


@each_document
def test_every_file_that_is_named_exists(name: str) -> None:
    folders = "|".join(path.name for path in ROOT.iterdir() if path.is_dir())
    made = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()}
    for path in re.findall(rf"(?<![\w/.-])(?:{folders})/[\w./*-]*\w", DOCUMENTS[name]):
        assert path in made or [*ROOT.glob(path)], path


# What CONTRIBUTING.md adds as its example: it must never be there.
EXAMPLE = "bullmq_queue_events_limit"
GUIDES = ("CONTRIBUTING.md", "docs/architecture.md")


@pytest.mark.parametrize("name", GUIDES)
def test_every_path_in_a_guide_for_contributors_exists(name: str) -> None:
    prose = re.sub(r"```.*?```", "", DOCUMENTS[name], flags=re.DOTALL)
    named = [each for each in code(prose) if re.fullmatch(r"\.?[\w.-]+(/[\w.*-]*)*", each)]
    paths = [each for each in named if "/" in each or Path(each).suffix in (".md", ".toml", ".cfg")]
    assert len(paths) > 10
    made = {line.rstrip("/") for line in (ROOT / ".gitignore").read_text("utf-8").splitlines()}
    missing = [path for path in paths if not [*ROOT.glob(path.rstrip("/"))]]
    assert [path for path in missing if path.rstrip("/") not in made] == []


def definitions(path: Path) -> set[str]:
    """Functions and classes of a module, and methods as `Class.method`."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            inner = [each.name for each in node.body if hasattr(each, "name")]
            found |= {f"{node.name}.{each}" for each in inner}
    return found


@pytest.mark.parametrize(
    "walk",
    [
        "A count from Redis to a scrape",
        "An event from the stream to a counter",
        "A request to its answer",
    ],
)
def test_every_step_of_a_walk_through_the_code_is_in_the_file_that_it_names(walk: str) -> None:
    steps = re.findall(r"^\d+\. .*$", section(DOCUMENTS["docs/architecture.md"], walk), re.M)
    assert 8 <= len(steps) <= 12
    for step in steps:
        places = re.findall(r"((?:`[\w.]+`(?:, )?)+) \(`([\w/]+\.py)`\)", step)
        assert places, step
        for names, path in places:
            assert {*code(names)} <= definitions(ROOT / path), step


@each_document
def test_every_command_has_flags_and_values_that_exist(name: str) -> None:
    text = "\n".join(blocks(DOCUMENTS[name], "sh")).replace("\\\n", " ")
    for arguments in re.findall(r"(?:^|[;&|] *)bullmq-exporter\b([^;&|#\n]*)", text, re.MULTILINE):
        known, unknown = _parser().parse_known_args(shlex.split(arguments))
        assert unknown == []
        load({path: given for path in LEAVES if (given := vars(known).get(path))}, {})


@each_document
def test_every_variable_that_is_named_exists(name: str) -> None:
    existing = {leaf.variable for path, leaf in LEAVES.items() if path not in FILE_ONLY}
    existing |= {f"{leaf.variable}_FILE" for leaf in LEAVES.values() if leaf.secret}
    for compose in ROOT.glob("config/compose.yml"):  # which has some of its own
        existing |= set(re.findall(r"\$\{(\w+)", compose.read_text("utf-8")))
    assert set(re.findall(r"\b(?:EXPORTER|REDIS|JWT)_[A-Z_]+\b", ours(name))) <= existing


def test_a_default_that_is_named_is_the_default() -> None:
    paths = {leaf.variable: path for path, leaf in LEAVES.items()}
    named = re.findall(r"`(EXPORTER_[A-Z_]+)`(?:, | \()([\d,]*\d)\b", SCALING)
    assert named
    for variable, value in named:
        default: Any = Settings()
        for attribute in paths[variable].split("."):
            default = getattr(default, attribute)
        assert int(value.replace(",", "")) == default, variable


@each_document
def test_every_metric_and_every_alert_that_is_named_exists(name: str) -> None:
    families = family_names()
    parts = {f"{family}_{part}" for family in families for part in ("bucket", "count", "sum")}
    assert EXAMPLE not in families
    existing = families | parts | RECORDED.keys() | {EXAMPLE}
    for metric, rest in re.findall(
        r"(?<![\w/:])((?:\w+:)?bullmq[_:][\w:]*)(\.\+|\*|\()?", ours(name)
    ):
        assert metric in existing or (rest and any(known.startswith(metric) for known in existing))
    assert set(re.findall(r"\bBullMQ[A-Z]\w+", DOCUMENTS[name])) <= NAMES


@pytest.mark.parametrize("version", PROMETHEUS)
def test_every_configuration_is_taken_by_what_it_is_for(version: str, tmp_path: Path) -> None:
    file = tmp_path / "example.yml"
    for text in chain.from_iterable(blocks(each, "yaml") for each in (MOVING, SCALING)):
        example = yaml.safe_load(text)
        if "metric_relabel_configs" in example:
            example = {"scrape_configs": [{"job_name": "any", **example}]}
        file.write_text(json.dumps(example))
        if "groups" in example:
            promtool("check", "rules", file, version=version)
        elif example.keys() & {"global", "scrape_configs"}:
            promtool("check", "config", file, version=version)
        elif "services" in example:
            judge = [sys.executable, "-m", "check_jsonschema"]
            schema = ["--builtin-schema", "vendor.compose-spec"]
            subprocess.run([*judge, *schema, file], check=True)
        else:
            load({}, {}, file)


# What Prometheus makes of it

Series = list[dict[str, str]]


def samples(page: str) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(page) for sample in family.samples]


def series(page: str, *instances: str) -> Series:
    """Ten minutes of a page, of several exporters; counters grow by what they are each minute."""
    made = []
    for family in text_string_to_metric_families(page):
        growing = "0+" if family.type in ("counter", "histogram") else ""
        for sample, instance in product(family.samples, instances):
            labels = sample.labels | {"job": "bullmq", "instance": instance}
            given = ",".join(f"{label}={json.dumps(value)}" for label, value in labels.items())
            values = f"{growing}{sample.value:.9f}x10"
            made.append({"series": f"{sample.name}{{{given}}}", "values": values})
    return made


def answers(
    expressions: Sequence[str], given: Series, file: Path, *rule_files: Path, at: str = "10m"
) -> dict[str, list[tuple[dict[str, str], float]]]:
    """What Prometheus answers: for each expression labels and values."""
    tests = [{"expr": each, "eval_time": at, "exp_samples": []} for each in expressions]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": tests}
    file.write_text(json.dumps({"rule_files": [*map(str, rule_files)], "tests": [test]}))
    said = promtool("test", "rules", file, succeeds=False)
    # Nothing is expected, so whatever there is is complained about.
    found = dict.fromkeys(expressions, "") | {
        json.loads(expression): got
        for expression, got in re.findall(r'expr: (".*"), time: .*\n.*\n +got:(.*)', said)
    }
    assert "SUCCESS" in said or any(found.values()), said
    return {
        expression: [
            (dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
            for labels, value in re.findall(r"\{([^}]*)\} (\S+?)(?:,|\"|$)", got)
        ]
        for expression, got in found.items()
    }


@dataclass(frozen=True)
class Exported:
    """What the exporter and BullMQ's own exportPrometheusMetrics() report about the same queues."""

    page: str
    theirs: dict[str, str]  # by queue


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """For each BullMQ a queue, named as its package, with paused jobs; and one whose worker has no
    `metrics`."""
    directory = tmp_path_factory.mktemp("exported")
    works: list[Work] = []
    with running("valkey", directory) as server:
        exporter = spawn_exporter(
            server.url,
            directory / "log",
            EXPORTER_POLL_INTERVAL="0.2",
            EXPORTER_DISCOVERY_INTERVAL="0.5",
        )
        try:
            exporter.wait_ready()
            theirs = {}
            for name in BULLMQS:
                works.append(work := Work(name, server.port))
                for queue, options in (
                    (name, {"metrics": {"maxDataPoints": 10}}),
                    (f"{name}-plain", {}),
                ):
                    work.work(queue, options)
                    work.add(queue, "mail", 5)
                    work.add(queue, "fails", 2)
                work.settle()
                work.call(name, "pause")
                work.add(name, "mail", 4)
                for queue in (name, f"{name}-plain"):
                    theirs[queue] = work.call(queue, "exportPrometheusMetrics")
            eventually(lambda: _is_exported(exporter, theirs))
            yield Exported(exporter.metrics.get("/metrics").text, theirs)
        finally:
            exporter.process.kill()
            exporter.process.wait()
            for work in works:
                work.close()


def _is_exported(exporter: Exporter, queues: dict[str, str]) -> bool:
    value = exporter.metrics.value
    return all(
        value("bullmq_job_completed_total", queue=queue, name="mail") == 5
        and value("bullmq_job_failed_total", queue=queue, name="fails") == 2
        and value("bullmq_job_count", queue=queue, state="paused") == (0 if "-" in queue else 4)
        for queue in queues
    )


def test_what_bullmqs_own_export_exposes_is_what_the_table_says_for_each_version(
    exported: Exported,
) -> None:
    table = rows(section(MOVING, "exportPrometheusMetrics"), "theirs (labels)")
    versions = {
        json.loads((BULLMQ / "node_modules" / name / "package.json").read_text())["version"]: name
        for name in BULLMQS
    }
    assert {version for row in table for version in row[1].split(", ")} == versions.keys()
    for version, queue in versions.items():
        written = {
            (code(theirs)[0], *re.findall(r"\((.*)\)", theirs))
            for theirs, since, _ in table
            if version in since.split(", ")
        }
        assert written == {
            (sample.name, ", ".join(sample.labels)) for sample in samples(exported.theirs[queue])
        }


def counts(page: str, queue: str) -> dict[str, float]:
    return {
        sample.labels["state"]: sample.value
        for sample in samples(page)
        if sample.name == "bullmq_job_count" and sample.labels["queue"] == queue
    }


def test_the_counts_are_those_of_bullmqs_own_export_but_for_paused_jobs_of_6(
    exported: Exported,
) -> None:
    for queue in ("bullmq5", "bullmq5-plain"):
        assert counts(exported.page, queue) == counts(exported.theirs[queue], queue)
    for queue, paused in (("bullmq6", 4), ("bullmq6-plain", 0)):
        here, theirs = counts(exported.page, queue), counts(exported.theirs[queue], queue)
        assert here.keys() - theirs.keys() == {"paused"}
        assert (here.pop("paused"), here.pop("waiting")) == (paused, 0)
        assert theirs.pop("waiting") == paused
        assert here == theirs


def test_the_counters_of_bullmqs_own_export_need_the_workers_option(exported: Exported) -> None:
    for metric, number in (("bullmq_job_completed_total", 5), ("bullmq_job_failed_total", 2)):
        for queue, theirs in (("bullmq6", number), ("bullmq6-plain", 0)):
            [sample] = [each for each in samples(exported.theirs[queue]) if each.name == metric]
            assert sample.value == theirs
            here = [
                each.value
                for each in samples(exported.page)
                if each.name == metric and each.labels["queue"] == queue
            ]
            assert sum(here) == number


OLD_NAMES = [
    rule
    for text in blocks(section(MOVING, "Old names for old dashboards"), "yaml")
    for group in yaml.safe_load(text)["groups"]
    for rule in group["rules"]
]


def test_old_names_come_back_with_the_labels_that_they_had(
    exported: Exported, tmp_path: Path
) -> None:
    labels = {
        metric: re.findall(r"\((.*)\)", row[0])[0].split(", ")
        for heading in ("bullmq-prometheus", "bull_exporter")
        for row in rows(section(MOVING, heading), "theirs (labels)")
        for metric in code(row[0])
    }
    assert {rule["record"] for rule in OLD_NAMES} == labels.keys()
    old = tmp_path / "old.yml"
    old.write_text(json.dumps({"groups": [{"name": "old", "rules": OLD_NAMES}]}))
    asked = {
        metric: f'group without (job, instance) ({metric}{{queue="bullmq5"}})' for metric in labels
    }
    got = answers([*asked.values()], series(exported.page, "a"), tmp_path / "test", old)
    for metric, expression in asked.items():
        [(found, _)] = got[expression]
        assert found.keys() == set(labels[metric]), metric


def test_what_stands_for_a_metric_of_others_is_reported(exported: Exported, tmp_path: Path) -> None:
    expressions = {
        expression
        for row in rows(MOVING, "theirs (labels)")
        for expression in code(row[-1])
        if expression.startswith(("bullmq_", "sum", "1000"))
    }
    got = answers([*expressions], series(exported.page, "a"), tmp_path / "test")
    assert [expression for expression, found in got.items() if not found] == []


FIRING = 'count(ALERTS{alertname="%s",alertstate="firing"})'


def waiting(metric: str, *instances: str, values: str = "5x30") -> Series:
    labels = 'job="any",queue="mail",state="waiting"'
    return [
        {"series": f'{metric}{{{labels},instance="{each}"}}', "values": values}
        for each in instances
    ]


def alerts(given: Series, file: Path, name: str = "BullMQQueueStandsStill") -> float:
    """How many alerts of this name fire."""
    firing = FIRING % name
    got = answers([firing], given, file, *RULES.glob("*.yml"), at="20m")
    return sum(value for _, value in got[firing])


def test_the_rules_take_bullmqs_own_series_for_an_exporters_unless_renamed(tmp_path: Path) -> None:
    [relabeling] = [
        yaml.safe_load(text)["metric_relabel_configs"][0]
        for text in blocks(section(MOVING, "exportPrometheusMetrics"), "yaml")
    ]
    assert re.fullmatch(relabeling["regex"], "bullmq_job_count")
    renamed = relabeling["replacement"].replace("$0", "bullmq_job_count")
    assert alerts(waiting("bullmq_job_count", "application"), tmp_path / "test") == 1
    assert alerts(waiting(renamed, "application"), tmp_path / "test") == 0


# Two exporters at the same queues


def test_each_of_two_exporters_counts_every_job(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporters = [start_exporter(server.url) for _ in range(2)]
    work = start_work("bullmq5", server.port)
    work.work("ingestion")
    work.add("ingestion", "mail", 7)
    work.settle()

    def counted(exporter: Exporter) -> list[float | None]:
        value = exporter.metrics.value
        return [
            value("bullmq_job_completed_total", queue="ingestion", name="mail"),
            value("bullmq_job_count", queue="ingestion", state="completed"),
        ]

    for exporter in exporters:
        eventually(lambda of=exporter: counted(of) == [7, 7])


def test_sums_over_two_exporters_are_twice_what_one_exposes_where_the_table_says_so(
    exported: Exported, tmp_path: Path
) -> None:
    table = {code(asked)[0]: says for asked, says in rows(SCALING, "asked for")}
    wholes = {f"sum({expression})": says for expression, says in table.items()}
    one, two = (
        answers([*wholes], series(exported.page, *names), tmp_path / "test", *RULES.glob("*.yml"))
        for names in (("a",), ("a", "b"))
    )
    for expression, says in wholes.items():
        [(_, with_one)], [(_, with_two)] = one[expression], two[expression]
        assert with_one > 0
        assert with_two / with_one == pytest.approx({"once": 1, "twice": 2}[says]), expression


def test_dashboards_sum_over_the_exporters_that_are_chosen(
    exported: Exported, tmp_path: Path
) -> None:
    [ready] = [
        expression
        for title, expression in queries(BOARDS["bullmq-overview"])
        if title == "Ready jobs"
    ]
    both = f"sum({filled_in(ready)})"
    chosen = f"sum({filled_in(ready.replace('$instance', 'a'))})"
    given = waiting("bullmq_job_count", "a", "b")
    got = answers([both, chosen], given, tmp_path / "test", at="5m")
    assert [value for _, value in got[both] + got[chosen]] == [10, 5]


def test_an_alert_on_a_queue_fires_once_whatever_number_of_exporters_reports_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "test"
    assert alerts(waiting("bullmq_job_count", "a"), file) == 1
    assert alerts(waiting("bullmq_job_count", "a", "b"), file) == 1
    ended = waiting("bullmq_job_count", "a", values="5x14 stale")
    assert alerts(ended + waiting("bullmq_job_count", "b", values="_x14 5x20"), file) == 1


def test_alerts_on_exporters_fire_for_each_and_are_grouped(tmp_path: Path) -> None:
    away = [
        {"series": f'bullmq_up{{job="any",instance="{each}"}}', "values": "0x30"} for each in "ab"
    ]
    assert alerts(away, tmp_path / "test", "BullMQRedisUnreachable") == 2
    grouped = ALERTMANAGER["route"]["group_by"]
    assert f"`group_by: [{', '.join(grouped)}]`" in " ".join(SCALING.split())
    assert "instance" not in grouped


# How many series


def test_a_queue_has_as_many_series_as_the_table_says(
    server: Server, start_exporter: StartExporter, start_work: StartWork
) -> None:
    exporter = start_exporter(server.url)
    work = start_work("bullmq5", server.port)
    work.call("idle", "getJobCounts")
    work.work("ingestion", {"concurrency": 1})
    work.add("ingestion", "mail", 1, {"removeOnComplete": 1000})
    work.add("ingestion", "fails", 1, {"removeOnFail": 5000})
    work.settle()
    work.add("ingestion", "sleeps-60000", 1)
    work.add("ingestion", "mail", 2)
    work.add("ingestion", "mail", 1, {"delay": 3_600_000})
    work.call("ingestion", "upsertJobScheduler", "nightly", {"every": 86_400_000})
    with server.client() as client:
        client.set("oa:worker:ingestion:alive", "1795482933152", ex=600)

    def counted(queue: str, *labels: str) -> int:
        """The series of a queue that have these of the labels of which there may be many."""
        many = {"name", "scheduler", "reason"}
        return len(
            [
                each
                for each in samples(exporter.metrics.get("/metrics").text)
                if each.labels.get("queue") == queue and {*labels} == each.labels.keys() & many
            ]
        )

    def are_exported() -> bool:
        idle, most, scheduler, reason, name = rows(SCALING, "in Redis there is")
        assert counted("idle") == int(idle[1])
        assert counted("ingestion") == int(most[1])
        assert counted("ingestion", "scheduler") == int(scheduler[1])
        assert counted("ingestion", "reason") == int(reason[1])
        # `mail`, `fails`, `sleeps-60000` and `nightly`.
        assert counted("ingestion", "name") == 4 * int(name[1])
        return True

    eventually(are_exported)
    address = exporter.metrics.url.removeprefix("http://")
    [commands] = blocks(section(SCALING, "Many queues in one Redis"), "sh")
    said = subprocess.run(
        ["sh", "-c", commands.replace("localhost:9538", address)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    of_ingestion = sum(
        counted("ingestion", *each) for each in ((), ("scheduler",), ("reason",), ("name",))
    )
    assert int(said[0]) == of_ingestion
    assert int(said[1]) == len(samples(exporter.metrics.get("/metrics").text))
    assert said[2:4] == [str(of_ingestion), 'queue="ingestion"']


def test_what_the_example_drops_is_needed_by_no_rule() -> None:
    [regex] = [
        rule["regex"]
        for text in blocks(SCALING, "yaml")
        for job in yaml.safe_load(text).get("scrape_configs", [])
        for rule in job.get("metric_relabel_configs", [])
    ]
    named = set(re.findall(r"\b\w+", " ".join(rule["expr"] for rule in rules())))
    buckets = {f"{family}_bucket" for family in family_names()}
    assert {each for each in buckets if re.fullmatch(regex, each)} == {
        f"bullmq_job_{what}_duration_seconds_bucket" for what in ("wait", "process")
    }
    assert not {each for each in named if re.fullmatch(regex, each)}


def test_the_application_of_ten_lines_is_seen_and_its_failures_are_one_group(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    [application] = blocks(DOCUMENTS["docs/getting-started.md"], "js")
    assert len(application.splitlines()) <= 10
    (tmp_path / "app.mjs").write_text(application)
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "bullmq").symlink_to(BULLMQ / "node_modules" / "bullmq6")
    exporter = start_exporter(server.url)
    environment = clean_environment(REDIS_PORT=str(server.port))
    with spawning(env=environment) as spawn:
        spawn(program("node", "nodejs"), tmp_path / "app.mjs")
        for counter in ("completed", "failed"):
            metric = f"bullmq_job_{counter}_total"
            # One job in five fails, two are added a second.
            eventually(lambda metric=metric: exporter.metrics.samples(metric, queue="mail"), 60)
        failures = eventually(lambda: _failures(exporter), 60)
    assert [group["reason"] for group in failures] == ["mailbox of <email> is full"]


def _failures(exporter: Exporter) -> list[dict[str, Any]]:
    return list(exporter.api.get("/v1/jobs/queues/mail/failures").json.get("groups", []))

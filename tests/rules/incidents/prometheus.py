"""Which alerts fire in histories, by promtool."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rules.incidents.simulation import History
from tests.support.rules import RULES, promtool

Alert = tuple[tuple[str, str], ...]  # its labels, sorted, without `job`
# What fires from a minute on.
Timeline = list[tuple[int, frozenset[Alert]]]


@dataclass(frozen=True)
class Scraped:
    """A history of which a share of the scrapes is lost at random."""

    name: str
    history: History
    lost: float

    @property
    def minutes(self) -> int:
        return (len(self.history.steps) - 1) * self.history.step_seconds // 60

    def series(self) -> Iterator[dict[str, str]]:
        named = set(re.findall(r"\b\w+", "".join(file.read_text() for file in RULES.glob("*.yml"))))
        chance = random.Random(f"{self.name} {self.lost}")
        # By instance, queue and name.
        rows: dict[tuple[str, str, str], dict[int, float]] = defaultdict(dict)
        steps = zip(self.history.instances, self.history.steps, strict=True)
        for number, (instance, samples) in enumerate(steps):
            if samples is None or chance.random() < self.lost:
                rows[instance, "", "up"][number] = 0
                continue
            for (queue, name), value in samples.items():
                rows[instance, queue, name][number] = value
        for (instance, queue, name), row in rows.items():
            metric, *further = name.split("|")
            if metric not in named:
                continue
            labels = {"job": self.name, "instance": instance, "queue": queue}
            labels |= dict(each.split("=", 1) for each in further)
            given = ",".join(f'{label}="{value}"' for label, value in labels.items() if value)
            values = encode(row, len(self.history.steps))
            yield {"series": f"{metric}{{{given}}}", "values": values}


def encode(row: dict[int, float], length: int) -> str:
    """The values of a series in promtool's notation."""
    parts: list[str] = []
    number = 0
    while number < length:
        value, first = row.get(number), number
        while number < length and row.get(number) == value:
            number += 1
        if value is not None:
            parts.append(f"{value:.12g}" + (f"x{number - first - 1}" if number - first > 1 else ""))
            continue
        if first:
            parts.append("stale")
            first += 1
        if number > first:
            parts.append(f"_x{number - first}")
    return " ".join(parts)


def firing(
    histories: Sequence[Scraped], version: str = "3", evaluation_minutes: int = 1
) -> dict[str, Timeline]:
    """The timelines of the histories, by name. Their steps must be equally long."""
    tests, days = [], max(each.minutes for each in histories) > 2880
    for together in batches(histories):
        test = {
            "interval": f"{together[0].history.step_seconds}s",
            "input_series": [series for each in together for series in each.series()],
            "promql_expr_test": [
                {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m", "exp_samples": []}
                for at in range(0, max(each.minutes for each in together) + 1, evaluation_minutes)
            ],
        }
        tests.append(test)
    with tempfile.TemporaryDirectory() as directory:
        groups = []
        for name in ("limits", "recording", "alerts"):
            rules = shorter((RULES / f"{name}.yml").read_text(), days)
            groups += [group["name"] for group in rules["groups"]]
            (Path(directory) / f"{name}.yml").write_text(json.dumps(rules))
        file = Path(directory) / "histories"
        file.write_text(
            json.dumps(
                {
                    "rule_files": [f"{directory}/*.yml"],
                    "evaluation_interval": f"{evaluation_minutes}m",
                    "group_eval_order": groups,  # else it is another one each time
                    "tests": tests,
                }
            )
        )
        said = promtool("test", "rules", file, version=version, succeeds=False)
    assert " err: " not in said and ("SUCCESS" in said or "got:" in said), said[:5000]
    found: dict[tuple[str, int], set[Alert]] = {}
    for at, got in re.findall(r"time: (\w+),\n.*\n +got: (.*)", said):
        for labels in re.findall(r'\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\}', got):
            pairs = dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', labels))
            job = pairs.pop("job", "")
            del pairs["__name__"], pairs["alertstate"]
            found.setdefault((job, _minutes(at)), set()).add(tuple(sorted(pairs.items())))
    return {
        each.name: [
            (at, frozenset(found.get((each.name, at), ())))
            for at in range(0, each.minutes + 1, evaluation_minutes)
        ]
        for each in histories
    }


def batches(histories: Sequence[Scraped]) -> Iterator[list[Scraped]]:
    """Those that one test evaluates together: of about the same length, and not too many.

    An evaluation takes 10 ms, however few histories there are. But a query may load 10,000 samples
    at most, and a subquery of a day in steps of 5 minutes, or of an hour in steps of a minute,
    loads those of all queues.
    """
    batch: list[Scraped] = []
    for each in sorted(histories, key=lambda each: each.minutes):
        queues = sum(len(scraped.history.queues) for scraped in (*batch, each))
        if batch and queues * min(288, max(61, each.minutes / 5)) > 8000:
            yield batch
            batch = []
        batch.append(each)
    if batch:
        yield batch


def shorter(rules: str, days: bool) -> dict[str, Any]:
    """The rules as they are evaluated here.

    Without annotations, which take a tenth of the time. In histories of days a week is looked
    through in steps of half an hour: in steps of 5 minutes too many samples would be loaded.
    """
    content: dict[str, Any] = yaml.safe_load(rules)
    for group in content["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
            if days:
                rule["expr"] = rule["expr"].replace("[7d:5m]", "[7d:30m]")
    return content


def _minutes(duration: str) -> int:
    """Of what promtool prints: 1d2h3m."""
    units = {"d": 1440, "h": 60, "m": 1, "s": 0}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([dhms])", duration))

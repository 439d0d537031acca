"""Which alerts fire in histories, by promtool."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rules.incidents.simulation import History, Key
from tests.test_rules import RULES, promtool

Alert = tuple[tuple[str, str], ...]  # its labels, sorted, without `job`
# What fires from a minute on.
Timeline = list[tuple[int, frozenset[Alert]]]


@dataclass(frozen=True)
class Scraped:
    """A history of which a share of the scrapes is lost at random."""

    name: str
    history: History
    lost: float

    def series(self) -> Iterator[dict[str, str]]:
        named = set(re.findall(r"\b\w+", "".join(file.read_text() for file in RULES.glob("*.yml"))))
        chance = random.Random(f"{self.name} {self.lost}")
        rows: dict[Key, dict[int, float]] = {}
        for number, samples in enumerate(self.history.steps):
            if samples is None or chance.random() < self.lost:
                own = (("instance", self.history.instances[number]),)
                rows.setdefault(("up", own), {})[number] = 0
                continue
            for key, value in samples.items():
                if key[0] in named:
                    rows.setdefault(key, {})[number] = value
        for (metric, labels), row in rows.items():
            given = ",".join(f"{label}={json.dumps(value)}" for label, value in labels)
            yield {
                "series": f'{metric}{{job="{self.name}",{given}}}',
                "values": encode(row, len(self.history.steps)),
            }


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
    [step] = {each.history.step_seconds for each in histories}
    minutes = max(len(each.history.steps) for each in histories) * step // 60
    moments = range(0, minutes + 1, evaluation_minutes)
    test = {
        "interval": f"{step}s",
        "input_series": [series for each in histories for series in each.series()],
        "promql_expr_test": [
            {"expr": 'ALERTS{alertstate="firing"}', "eval_time": f"{at}m", "exp_samples": []}
            for at in moments
        ],
    }
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "histories.yml"
        file.write_text(
            json.dumps(
                {
                    "rule_files": [f"{RULES}/*.yml"],
                    "evaluation_interval": f"{evaluation_minutes}m",
                    "tests": [test],
                }
            )
        )
        said = promtool("test", "rules", file, version=version, succeeds=False)
    assert "SUCCESS" in said or "got:" in said, said[:5000]
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
            for at in moments
            if at * 60 < len(each.history.steps) * step
        ]
        for each in histories
    }


def _minutes(duration: str) -> int:
    """Of what promtool prints: 1d2h3m."""
    units = {"d": 1440, "h": 60, "m": 1, "s": 0}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([dhms])", duration))

"""The shipped rules, and promtool of both major versions."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.programs import newest, program

CONFIG = ROOT / "config" / "prometheus"


RULES = CONFIG / "rules"


# In the order in which they are evaluated.
GROUPS = [
    group
    for name in ("limits", "recording", "alerts")
    for group in yaml.safe_load((RULES / f"{name}.yml").read_text())["groups"]
]


def rules() -> list[dict[str, Any]]:
    return [rule for group in GROUPS for rule in group["rules"]]


def name_of(rule: Mapping[str, Any]) -> str:
    name: str = rule.get("alert") or rule["record"]
    return name


ALERTS = [rule for rule in rules() if "alert" in rule]


NAMES = {rule["alert"] for rule in ALERTS}


RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


BY_NAME = {
    name: [rule for rule in rules() if name_of(rule) == name] for name in map(name_of, rules())
}


# Both, as they differ: the windows of 3 leave out a sample at their very beginning.
PROMETHEUS = {"2": lambda: program("promtool", "prometheus"), "3": lambda: newest("promtool")}


def promtool(*arguments: str | Path, version: str = "3", succeeds: bool = True) -> str:
    """What it says."""
    command = [PROMETHEUS[version](), *map(str, arguments)]
    # It makes and drops much: collected as seldom, it takes 30% less CPU and 40 MB more.
    environment = {"GOGC": "400", **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    said = done.stdout + done.stderr
    assert not succeeds or done.returncode == 0, said
    return said


def rules_behind(names: Iterable[str]) -> set[str]:
    """The names of the alerts and recorded rules that these are made of, and their own."""
    behind: set[str] = set()
    unseen = {*names}
    while unseen:
        name = unseen.pop()
        behind.add(name)
        for rule in BY_NAME[name]:
            texts = [rule["expr"], *rule.get("annotations", {}).values()]
            unseen |= named_in(" ".join(texts)) - behind
    return behind


def named_in(text: str) -> set[str]:
    """The alerts and recorded rules that an expression or a text reads."""
    named = {*re.findall(r"[a-zA-Z_:][\w:]*", text)} & (NAMES | RECORDED.keys())
    for pattern in re.findall(r'alertname=~"([^"]*)"', text):
        fitting = {name for name in NAMES if re.fullmatch(pattern, name)}
        # What is recorded of all alerts keeps their names, and whoever reads it names one.
        named |= fitting if fitting != NAMES else set()
    if re.search(r"\b(ALERTS\w*|bullmq:firing_unseen)\b(?!\{alertname=)", text):
        named |= NAMES
    return named


def groups_of(names: Iterable[str]) -> list[Mapping[str, Any]]:
    """The groups with only these rules, in the order in which they are evaluated."""
    wanted = {*names}
    return [
        {**group, "rules": chosen}
        for group in GROUPS
        if (chosen := [rule for rule in group["rules"] if name_of(rule) in wanted])
    ]

"""The shipped rules, and promtool of both major versions."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT
from tests.support.programs import newest, program

CONFIG = ROOT / "config" / "prometheus"


RULES = CONFIG / "rules"


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted(RULES.glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules() if "alert" in rule]


NAMES = {rule["alert"] for rule in ALERTS}


RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


# Both, as they differ: the windows of 3 leave out a sample at their very beginning.
PROMETHEUS = {"2": lambda: program("promtool", "prometheus"), "3": lambda: newest("promtool")}


def promtool(*arguments: str | Path, version: str = "3", succeeds: bool = True) -> str:
    """What it says."""
    command = [PROMETHEUS[version](), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert not succeeds or done.returncode == 0, said
    return said

"""Writes prometheus-rule.yml: the rules of config/prometheus as the Prometheus Operator takes them.

`make rules` runs this after a change.
"""

from __future__ import annotations

from pathlib import Path

import yaml

RULES = Path(__file__).parents[1] / "prometheus" / "rules"
TARGET = Path(__file__).parent / "prometheus-rule.yml"
# Limits first: what a reader may want to change.
SOURCES = ("limits.yml", "recording.yml", "alerts.yml")


def prometheus_rule() -> str:
    """The PrometheusRule, as YAML."""
    groups = [
        group
        for source in SOURCES
        for group in yaml.safe_load((RULES / source).read_text())["groups"]
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "bullmq-exporter",
            "labels": {"app.kubernetes.io/name": "bullmq-exporter"},
        },
        "spec": {"groups": groups},
    }
    head = (
        "# Made from config/prometheus/rules by `make rules`: change those, with their comments.\n"
        "# Your Prometheus picks it up if its ruleSelector matches the labels below. The operator\n"
        "# has to know keep_firing_for (mid-2023).\n"
    )
    return head + yaml.dump(resource, Dumper=_Dumper, sort_keys=False, width=100)


class _Dumper(yaml.SafeDumper):
    """Expressions as blocks, and every text written out rather than as an alias."""

    def ignore_aliases(self, _: object) -> bool:
        return True


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _block)


if __name__ == "__main__":
    TARGET.write_text(prometheus_rule())

"""The layout of the package: what may know what."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Sequence
from pathlib import Path

import pytest

import exporter
from exporter.metrics.exposition import COUNTED, GAUGES, family_names
from exporter.settings import LEAVES

ROOT = Path(exporter.__file__).parent
# What each part may import of the others, the stores one by one.
ALLOWED = {
    "daemon_thread": set[str](),
    "deadline": set[str](),
    "settings": {"daemon_thread"},
    "log_writer": {"deadline"},
    "logs": {"settings", "log_writer", "deadline"},
    "queues": set[str](),
    "concurrency": {"queues"},
    "state": {"queues", "daemon_thread", "deadline"},
    "stores.base": {"queues"},
    "stores.request_reads": {"queues", "concurrency", "settings"},
    "stores.retention": {"queues", "concurrency", "settings"},
    "stores.events": {"queues", "concurrency", "state", "settings", "deadline"},
    "stores.redis": {"queues", "settings", "daemon_thread"},
    "stores.bullmq": {
        *("stores.base", "stores.request_reads", "stores.retention", "stores.events"),
        *("stores.redis", "queues", "concurrency", "settings", "deadline"),
    },
    "stores.redis_store": {
        *("stores.base", "stores.request_reads", "stores.redis", "stores.bullmq", "stores.bull"),
        *("stores.events", "queues", "concurrency", "settings", "deadline"),
    },
    "stores.bull": {
        *("stores.bullmq", "stores.events", "stores.redis"),
        *("queues", "concurrency", "settings"),
    },
    "stores.postgres": {
        *("stores.base", "stores.request_reads", "stores.retention", "stores.events"),
        *("queues", "concurrency", "settings", "deadline", "daemon_thread"),
    },
    "stores": {
        *("stores.base", "stores.redis_store", "stores.postgres"),
        *("queues", "concurrency", "settings", "deadline"),
    },
    # The loops know the interface of a store, and no store.
    "collect": {"stores", "stores.base", "queues", "concurrency", "settings", "deadline"},
    "metrics": {"queues", "concurrency", "settings"},
    "web": {
        *("collect", "metrics", "queues", "stores.base", "concurrency", "settings", "deadline"),
    },
    "runtime": set[str](),
    "harmful_settings": {"settings", "web"},
    "check": {
        *("settings", "logs", "stores", "collect", "queues", "concurrency", "harmful_settings"),
    },
    "app": {
        *("settings", "collect", "queues", "metrics", "web", "concurrency"),
        *("daemon_thread", "deadline", "harmful_settings", "runtime"),
    },
    "demo": {"settings", "logs", "app"},
    "cli": {"settings", "logs", "queues", "app", "check", "demo", "deadline", "runtime"},
    "__main__": {"cli"},
    "healthcheck": set[str](),
    "__init__": set[str](),
}
SOURCES = sorted(ROOT.rglob("*.py"))


def part_of(module: Sequence[str]) -> str:
    """The part that a module belongs to, by its name without `exporter`."""
    return ".".join(module[:2]) if module[0] == "stores" else module[0]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(source: Path) -> None:
    names = source.relative_to(ROOT).with_suffix("").parts
    part = part_of([name for name in names if name != "__init__"] or names)
    imported = {
        part_of(node.module.split(".")[1:])
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("exporter.")
    }
    assert imported <= ALLOWED[part] | {part}


def test_the_validation_of_settings_reads_nothing() -> None:
    for name in ("names", "values", "model"):
        tree = ast.parse((ROOT / "settings" / f"{name}.py").read_text())
        modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        own = {str(module) for module in modules if str(module).startswith("exporter.")}
        assert own <= {"exporter.settings.names", "exporter.settings.values"}
        assert not modules & {"io", "os", "socket", "ssl", "subprocess"}


def test_only_the_stores_know_a_keys_name() -> None:
    key = re.compile(r":(meta|wait|active|delayed|repeat|events|failed|completed)\b|oa:worker")
    for source in SOURCES:
        if source.relative_to(ROOT).parts[0] not in ("stores", "demo"):
            assert not key.search(source.read_text()), source


def test_every_metric_is_named_once() -> None:
    names = [family.name for family in (*GAUGES, *COUNTED)]
    assert len(names) == len(set(names))


def test_the_references_are_made_from_the_code_and_hold_all_of_it() -> None:
    reference = runpy.run_path(str(ROOT.parent / "docs" / "reference.py"))
    for name, page in reference["PAGES"].items():
        assert (ROOT.parent / "docs" / name).read_text() == page(), "run: make docs"
    assert reference["SOURCES"].keys() == {family.name for family in (*GAUGES, *COUNTED)}
    metrics, settings, api = (page() for page in reference["PAGES"].values())
    assert set(re.findall(r"^\| `(\w+)`", metrics, re.MULTILINE)) == family_names()
    assert set(re.findall(r"^### (.+)$", settings, re.MULTILINE)) == LEAVES.keys()
    # Every name of a schema that is linked has its heading.
    assert set(re.findall(r"\(#(\w+)\)", api)) <= set(
        re.findall(r"^### (\w+)$", api.lower(), re.MULTILINE)
    )

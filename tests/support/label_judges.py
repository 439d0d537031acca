"""Prometheus servers that judge pages."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.programs import newest, program

PROMETHEUS: dict[str, Callable[[], str]] = {
    "2": lambda: program("prometheus", "prometheus"),
    "3": lambda: newest("prometheus"),
}

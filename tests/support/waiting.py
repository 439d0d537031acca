"""Waiting for what must become true."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest


def eventually(check: Callable[[], Any], within: float = 180.0, pause: float = 0.05) -> Any:
    """What `check` gives once it is true; its last AssertionError or value where it never is.

    `within` only ends the wait for what never comes: it says nothing of how fast a machine is.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            if result := check():
                return result
            problem: Any = f"still {result!r}"
        except (AssertionError, OSError) as error:
            problem = error
        if time.monotonic() > deadline:
            pytest.fail(f"not so within {within} s: {problem}")
        time.sleep(pause)

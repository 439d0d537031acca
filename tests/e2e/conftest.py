"""What only these tests need, so that others do not import it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.support.programs import program


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Of a module: Playwright's event loop and that of asynchronous tests do not mix."""
    with sync_playwright() as playwright:
        expect.set_options(timeout=180_000)  # machines are shared, and some are slow
        # Whoever runs the tests may be root, in a container.
        chromium = program("chromium", "chromium")
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()

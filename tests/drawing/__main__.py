"""Screenshots of dashboards and page for docs/screenshots, with what the demo did in some minutes.

Grafana itself is not needed: its published components draw the panels (draw.jsx).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from playwright.sync_api import Page, sync_playwright

from dashboards.__main__ import files
from tests.support.http_client import Client
from tests.support.programs import program
from tests.support.scraped_demo import scraped_demo

HERE = Path(__file__).parent
SCREENSHOTS = HERE.parents[1] / "docs" / "screenshots"
VALUES = {
    **dict.fromkeys(("instance", "target", "prefix"), ".*"),
    "queue": "ingestion",
    "release": "app_build_info",
}
APPEARANCES: dict[str, Any] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}
# The demo's first outage comes after 20 seconds; the alert that it raises lasts for 5 minutes.
MINUTES = 5.5


def draw(page: Page, board: str, prometheus: str, began: float, to: Path) -> None:
    page.goto(f"file://{HERE}/index.html")
    scene = {"board": json.loads(board), "prometheus": prometheus, "values": VALUES}
    page.evaluate("scene => draw(scene)", {**scene, "from": began, "to": time.time()})
    page.wait_for_timeout(3000)  # charts measure themselves, and draw anew
    page.screenshot(path=to, full_page=True)


def visit(page: Page, api: Client, name: str, to: Path) -> None:
    """The page: all queues, why the jobs of one fail, one of them."""
    page.goto(api.url)
    page.fill("#credential", api.headers["X-API-KEY"])
    page.press("#credential", "Enter")
    page.wait_for_selector("#queues")
    page.screenshot(path=to / f"page-queues-{name}.png")
    page.click("#queues >> text=ingestion")
    page.wait_for_selector("#groups")
    page.screenshot(path=to / f"page-failed-{name}.png")
    page.locator("#jobs tbody td.id a").first.click()
    page.wait_for_selector("#traces")
    page.screenshot(path=to / f"page-job-{name}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="how long the demo runs")
    parser.add_argument("--to", type=Path, default=SCREENSHOTS, help="where the images go")
    options = parser.parse_args()
    with (
        TemporaryDirectory() as directory,
        scraped_demo(Path(directory), scrape_interval=5) as (prometheus, api),
        sync_playwright() as playwright,
    ):
        began = time.time()
        while time.time() < began + 60 * options.minutes:
            api.get("/v1/jobs/queues")
            time.sleep(10)
        browser = playwright.chromium.launch(
            executable_path=program("chromium", "chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": 1432, "height": 900})
        options.to.mkdir(parents=True, exist_ok=True)
        for file, text in files().items():
            draw(page, text, prometheus.url, began, options.to / f"{file.stem}.png")
        for name, appearance in APPEARANCES.items():
            visit(browser.new_page(**appearance), api, name, options.to)
        browser.close()


if __name__ == "__main__":
    main()

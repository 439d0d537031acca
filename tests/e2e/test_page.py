"""The page in a real browser: from an address to a stack trace, whatever is in the way."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Request, expect

from exporter.queues.failure_reasons import fold
from tests.support.bullmq import StartWork, Work
from tests.support.counters import wait_following
from tests.support.exporters import API_KEY, JWT_SECRET, Exporter, StartExporter
from tests.support.paths import ROOT, TESTS
from tests.support.servers import Server
from tests.support.waiting import eventually

AXE = TESTS / "axe" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 360, "height": 740}
SCRIPT = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"
ODD = f"\u202egnp.exe\x00\x1b[31m \"quoted\" 'too' 😀 {SCRIPT}"


class Visitor:
    """Somebody with a browser, who signs in."""

    def __init__(self, context: BrowserContext, exporter: Exporter) -> None:
        context.set_default_timeout(60_000)  # machines are shared, and some are slow
        self.page = context.new_page()
        self.base = exporter.api.url
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("dialog", lambda dialog: self.faults.append(dialog.message))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.waiting: set[Request] = set()
        self.page.on("request", self._begin)
        for end in ("requestfinished", "requestfailed"):
            self.page.on(end, self._end)

    # Playwright sets an attribute on what it calls: a method of a set allows none.
    def _begin(self, request: Request) -> None:
        self.waiting.add(request)

    def _end(self, request: Request) -> None:
        self.waiting.discard(request)

    def open(self, sign_in: str | None = API_KEY, **view: str | int) -> Page:
        self.page.goto(f"{self.base}/{'?' + urlencode(view) if view else ''}")
        if sign_in and self.page.locator("#credential").count():
            self.sign_in(sign_in)
        return self.page

    def sign_in(self, credential: str) -> None:
        self.page.fill("#credential", credential)
        self.page.press("#credential", "Enter")

    @property
    def ids(self) -> list[str]:
        return self.page.locator("#jobs tbody td.id").all_inner_texts()


Visit = Callable[..., Visitor]


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens a browser of its own for each visitor; whatever went wrong in it fails the test."""
    contexts: list[BrowserContext] = []
    visitors: list[Visitor] = []

    def start(exporter: Exporter, **options: Any) -> Visitor:
        contexts.append(browser.new_context(**options))
        visitors.append(Visitor(contexts[-1], exporter))
        return visitors[-1]

    yield start
    for context in contexts:
        context.close()
    for visitor in visitors:
        assert visitor.faults == []
        # Nothing is asked of anybody else.
        assert [url for url in visitor.asked if not url.startswith((visitor.base, "data:"))] == []


@pytest.fixture
def work(server: Server, start_work: StartWork) -> Work:
    return start_work("bullmq5", server.port)


def fail(work: Work, number: int, reason: str = "connect ECONNREFUSED 10.0.0.7:993") -> None:
    """Makes jobs fail for good, one after another."""
    jobs = [
        {
            "name": "throws",
            "data": {"reason": f"{reason} for user{at}@corp.example", "at": at},
            "opts": {"jobId": f"job-{at:03}"},
        }
        for at in range(number)
    ]
    work.addJobs("ingestion", jobs)
    work.work("ingestion")
    work.settle()


@pytest.fixture
def failing(server: Server, work: Work, start_exporter: StartExporter) -> Exporter:
    """60 jobs of `ingestion` failed."""
    fail(work, 60)
    exporter = start_exporter(server.url)
    eventually(lambda: exporter.api.get("/v1/jobs/queues").json["queues"])
    return exporter


def test_an_alerts_link_leads_to_a_stack_trace(failing: Exporter, visit: Visit) -> None:
    visitor = visit(failing)
    page = visitor.open(queue="ingestion", status="failed")
    expect(page.locator("#view-heading")).to_have_text("ingestion")
    expect(page).to_have_title(re.compile("^ingestion: failed jobs"))
    expect(page.locator("#status-failed")).to_have_text("failed 60")
    groups = page.locator("#groups li")
    expect(groups).to_have_count(1)
    expect(groups).to_contain_text("connect ECONNREFUSED <host>:993 for <email>")
    expect(groups).to_contain_text("60")
    expect(page.locator("#jobs tbody tr")).to_have_count(25)
    assert visitor.ids[:2] == ["job-059", "job-058"]  # the newest first
    page.click("#jobs >> text=job-058")
    expect(page.locator("#view-heading")).to_contain_text("job-058")
    expect(page.locator("#reason")).to_contain_text("ECONNREFUSED 10.0.0.7:993 for user58@corp")
    expect(page.locator("#traces")).to_contain_text("work.mjs")
    expect(page.locator("#data pre")).to_contain_text('"at": 58')
    page.click("#back")
    expect(page.locator("#jobs tbody tr")).to_have_count(25)


def test_the_address_holds_the_view_and_the_back_button_leads_back(
    failing: Exporter, visit: Visit
) -> None:
    visitor = visit(failing)
    page = visitor.open()
    expect(page.locator("#queues tbody tr")).to_have_count(1)
    page.click("#queues >> text=ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    page.click("#page-next")
    expect(page.locator("#range")).to_have_text("26 to 50 of 60")
    page.click("#page-last")
    expect(page.locator("#range")).to_have_text("51 to 60 of 60")
    last = visitor.ids
    assert last == [f"job-{at:03}" for at in range(9, -1, -1)]
    address = page.url
    page.click("#jobs >> text=job-005")
    expect(page.locator("#view-heading")).to_contain_text("job-005")
    page.go_back()
    expect(page.locator("#range")).to_have_text("51 to 60 of 60")
    page.go_back()
    expect(page.locator("#range")).to_have_text("26 to 50 of 60")
    page.go_back()
    page.go_back()
    expect(page.locator("#queues tbody tr")).to_have_count(1)
    page.go_forward()
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    # Pasted into a chat, it opens the same for somebody else.
    other = visit(failing)
    other.page.goto(address)
    other.sign_in(API_KEY)
    expect(other.page.locator("#range")).to_have_text("51 to 60 of 60")
    assert other.ids == last
    oldest = visit(failing).open(queue="ingestion", status="failed", order="asc")
    expect(oldest.locator("#jobs tbody td.id").first).to_have_text("job-000")


def test_jobs_are_filtered_by_group_name_and_text(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    fail(work, 30)
    work.add("ingestion", "fails", 3)
    work.settle()
    visitor = visit(start_exporter(server.url))
    page = visitor.open(queue="ingestion")
    expect(page.locator("#groups li")).to_have_count(2)
    expect(page.locator("#groups li").first).to_contain_text("30")  # the largest first
    page.click("#groups >> text=no answer for")
    expect(page.locator("#range")).to_have_text("1 to 3 of 3")
    assert "group=" in page.url
    page.reload()
    expect(page.locator("#range")).to_have_text("1 to 3 of 3")
    page.click("#clear-group")
    expect(page.locator("#range")).to_have_text("1 to 25 of 33")
    page.fill("#filter-name", "fails")
    page.press("#filter-name", "Enter")
    expect(page.locator("#range")).to_have_text("1 to 3 of 3")
    page.fill("#filter-name", "")
    page.fill("#filter-text", "USER17@corp")
    page.press("#filter-text", "Enter")
    expect(page.locator("#range")).to_have_text("1 to 1 of 1")
    assert visitor.ids == ["job-017"]
    page.fill("#filter-text", "nowhere")  # without Enter too
    expect(page.locator("#jobs-section")).to_contain_text("No matching failed jobs")


def test_refreshing_shows_what_is_new_and_does_not_lose_the_place(
    failing: Exporter, work: Work, visit: Visit
) -> None:
    visitor = visit(failing)
    page = visitor.open(queue="ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    page.focus("#filter-text")
    page.evaluate("window.scrollTo(0, 500)")
    looked_at = page.locator("#jobs tbody tr", has_text="job-043")
    top = looked_at.bounding_box()["y"]
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#jobs td.reason'))")
    chosen = page.evaluate("String(getSelection())")
    work.addJobs(
        "ingestion", [{"name": "throws", "data": {"reason": "x"}, "opts": {"jobId": "new"}}]
    )
    work.settle()
    expect(page.locator("#range")).to_have_text("1 to 25 of 61")
    assert visitor.ids[0] == "new"
    # A row came in above: what one looks at stays where it is.
    assert looked_at.bounding_box()["y"] == pytest.approx(top, abs=1)
    assert page.evaluate("document.activeElement.id") == "filter-text"
    assert page.evaluate("String(getSelection())") == chosen
    expect(page.locator("#groups li")).to_have_count(2)

    page.click("#pause")
    expect(page.locator("#pause")).to_have_text("Resume")
    # What it asked for before that comes still.
    eventually(lambda: page.wait_for_timeout(100) or not visitor.waiting)
    before = len(visitor.asked)
    page.wait_for_timeout(11_500)
    assert len(visitor.asked) == before
    page.click("#pause")
    eventually(lambda: page.wait_for_timeout(100) or len(visitor.asked) > before)


# As in browsers that cannot move an element without taking its focus.
OLDER = "delete Element.prototype.moveBefore; delete Document.prototype.moveBefore"


@pytest.mark.parametrize("browser_age", ["", OLDER], ids=["present", "older"])
def test_a_row_that_moves_keeps_the_focus_and_the_selection(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit, browser_age: str
) -> None:
    for queue in ("a", "b", "c"):
        work.call(queue, "add", "x", {})
    visitor = visit(start_exporter(server.url))
    visitor.page.add_init_script(browser_age)
    page = visitor.open()
    names = page.locator("#queues tbody a.queue")
    expect(names).to_have_text(["a", "b", "c"])
    names.last.focus()
    page.evaluate("getSelection().selectAllChildren(document.activeElement)")
    page.evaluate("document.activeElement.closest('tr').mark = 'the same'")
    with server.client() as client:
        client.zadd("bull:c:failed", {"1": 1_700_000_000_000})
    expect(names).to_have_text(["c", "a", "b"])
    assert page.evaluate("document.activeElement.textContent") == "c"
    assert page.evaluate("String(getSelection())") == "c"
    assert page.evaluate("document.activeElement.closest('tr').mark") == "the same"


def test_a_stack_trace_that_is_read_stays_open_when_a_newer_one_opens(
    server: Server, failing: Exporter, visit: Visit
) -> None:
    page = visit(failing).open(queue="ingestion", job="job-003")
    traces = page.locator("#traces details")
    expect(traces).to_have_count(1)
    with server.client() as client:
        client.hset("bull:ingestion:job-003", "stacktrace", '["Error: first", "Error: second"]')
    expect(traces).to_have_count(2)
    for at, message in enumerate(("Error: second", "Error: first")):
        expect(traces.nth(at).locator("summary")).to_contain_text(message)
        expect(traces.nth(at)).to_have_attribute("open", "")


def test_what_is_typed_stays_while_the_list_around_it_changes(
    server: Server, failing: Exporter, visit: Visit
) -> None:
    page = visit(failing).open(queue="ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    page.evaluate("document.querySelector('#filter-text').focus()")
    # Without the event that would apply it after a pause.
    page.evaluate("document.activeElement.value = 'half a wor'")
    with server.client() as client:
        client.zrem("bull:ingestion:failed", "job-000")
    expect(page.locator("#range")).to_have_text("1 to 25 of 59")
    expect(page.locator("#filter-text")).to_have_value("half a wor")


def test_details_stay_open_and_a_job_that_goes_is_still_shown(
    server: Server, failing: Exporter, visit: Visit
) -> None:
    page = visit(failing).open(queue="ingestion", job="job-003")
    expect(page.locator("#traces details")).to_have_attribute("open", "")
    page.click("#traces summary")
    with server.client() as client:
        client.hset("bull:ingestion:job-003", "progress", "77")
    expect(page.locator("#facts")).to_contain_text("77 %")
    expect(page.locator("#traces details")).not_to_have_attribute("open", "")
    with server.client() as client:
        client.delete("bull:ingestion:job-003")
    expect(page.locator("#main")).to_contain_text("There is no such job")
    expect(page.locator("#reason")).to_contain_text("user3@corp.example")


def test_who_has_the_key_can_sign_in_where_others_guess(
    server: Server, start_exporter: StartExporter, visit: Visit
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_LOCKOUT="1", EXPORTER_API_RATE_LIMIT="10")
    for path in ("/v1/jobs/queues", "/v1/jobs/queues"):
        exporter.api.request("GET", path, {"X-API-KEY": "wrong-key-wrong-key"})
    visitor = visit(exporter)
    page = visitor.open(sign_in=None)
    visitor.sign_in("wrong-key-wrong-key")
    expect(page.locator("#refused")).to_contain_text("The credential was not accepted")
    visitor.sign_in(API_KEY)
    expect(page.locator("#view-heading")).to_be_visible()
    expect(page.locator("#sign-out")).to_be_visible()
    expect(page.locator("#banner")).to_be_empty()


def test_only_a_credential_that_may_manage_all_gets_in_and_it_stays_in_the_tab(
    server: Server, start_exporter: StartExporter, tmp_path: Path, visit: Visit
) -> None:
    config = tmp_path / "exporter.yml"
    config.write_text(
        "api: {keys: [{name: reader, key: a-key-that-may-only-read, permissions: ['read:jobs']}]}"
    )
    visitor = visit(start_exporter(server.url, "--config", str(config)))
    page = visitor.open(sign_in=None, queue="ingestion", job="1")
    expect(page.locator("#view-heading")).to_have_text("Sign in")
    assert not [url for url in visitor.asked if "/v1/" in url]
    visitor.sign_in("wrong-key-wrong-key")
    expect(page.locator("#refused")).to_contain_text("was not accepted")
    visitor.sign_in("a-key-that-may-only-read")
    expect(page.locator("#refused")).to_contain_text("valid, but may not")
    expect(page.locator("#refused")).to_contain_text("manage:all")
    visitor.sign_in("schlüssel mit leerzeichen")
    expect(page.locator("#refused")).to_contain_text("Was it copied whole?")
    claims = {"sub": "u", "roles": ["Super Admin"], "exp": int(time.time()) + 60}
    visitor.sign_in(jwt.encode(claims, JWT_SECRET, "HS256"))
    expect(page.locator("#main")).to_contain_text("There is no such job")  # the view of the address
    assert "job=1" in page.url
    kept = page.evaluate("[Object.values(sessionStorage), {...localStorage}, document.cookie]")
    assert any(value.startswith("eyJ") for value in kept[0])
    assert kept[1:] == [{}, ""]
    other_tab = page.context.new_page()
    other_tab.goto(visitor.base)
    expect(other_tab.locator("#credential")).to_be_visible()
    page.click("#sign-out")
    expect(page.locator("#credential")).to_be_visible()
    assert page.evaluate("Object.values(sessionStorage).join()").find("eyJ") == -1
    assert all(API_KEY not in url and "eyJ" not in url for url in visitor.asked)


def test_redis_goes_away_and_comes_back(
    own_server: Server, start_work: StartWork, start_exporter: StartExporter, visit: Visit
) -> None:
    work = start_work("bullmq5", own_server.port)
    fail(work, 3)
    visitor = visit(start_exporter(own_server.url, EXPORTER_REDIS_TIMEOUT="0.5"))
    page = visitor.open(queue="ingestion")
    expect(page.locator("#jobs tbody tr")).to_have_count(3)
    own_server.stop()
    expect(page.locator("#banner")).to_contain_text("Redis cannot be reached")
    expect(page.locator("#banner")).to_contain_text("this is what was read at")
    expect(page.locator("#jobs-section")).to_have_class(re.compile(r"\bold\b"))
    expect(page.locator("#jobs tbody tr")).to_have_count(3)
    own_server.start()
    expect(page.locator("#banner")).not_to_contain_text("Redis")
    expect(page.locator("#jobs-section")).not_to_have_class(re.compile(r"\bold\b"))


def test_whoever_asks_too_often_is_made_to_wait(
    server: Server, failing: Exporter, start_exporter: StartExporter, visit: Visit
) -> None:
    visitor = visit(start_exporter(server.url, EXPORTER_API_RATE_LIMIT="30"))
    page = visitor.open(queue="ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    for _ in range(40):
        page.request.get(f"{visitor.base}/openapi.json", headers={"X-API-KEY": API_KEY})
    page.click("#page-next")
    expect(page.locator("#banner")).to_contain_text("Too many requests")
    expect(page.locator("#countdown")).to_contain_text(re.compile(r"next attempt in \d+ s"))


def hostile(server: Server) -> None:
    """A job that holds whatever somebody may have thought of."""
    with server.client() as client:
        client.hset("bull:odd:meta", "version", "bullmq:5.56.3")
        client.zadd("bull:odd:failed", {ODD: 1_700_000_000_000})
        client.hset(
            f"bull:odd:{ODD}",
            mapping={
                "name": ODD,
                "data": '{"html": "</pre>'
                + SCRIPT.replace('"', '\\"')
                + '", "long": "'
                + "x" * 1_000_000
                + '"}',
                "timestamp": 1_700_000_000_000,
                "finishedOn": 99_999_999_999_999,
                "failedReason": ODD * 20,
                "stacktrace": '["Error: '
                + "é😀" * 100
                + '\\n    at <script>alert(1)</script> (x.js:1:1)"]',
                "returnvalue": "[" * 200 + "]" * 200,
                "opts": '{"__proto__": {"polluted": 1}, "attempts": "<b>many</b>"}',
            },
        )
        client.rpush(f"bull:odd:{ODD}:logs", SCRIPT, "\x1b[31mred", "y" * 20_000)


def test_whatever_a_job_holds_stays_text(
    server: Server, start_exporter: StartExporter, visit: Visit
) -> None:
    hostile(server)
    visitor = visit(start_exporter(server.url), viewport=PHONE)
    page = visitor.open(queue="odd")
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    listed = visitor.ids[0]
    assert "<script>" in listed
    assert "\\u202e" in listed  # what would turn the text around is written out
    assert "␀" in listed
    assert_fits_the_screen(page)
    expect(page.locator("#groups li")).to_have_count(1)  # they push the jobs down as they come
    page.locator("#jobs tbody td.id a").click()
    expect(page.locator("#reason")).to_contain_text("<script>")
    expect(page.locator("#data")).to_contain_text("Show all")
    assert page.locator("#data pre").inner_text().startswith("{\n")
    assert len(page.locator("#data pre").inner_text()) <= 100_000
    page.click("#data >> text=Show all")
    eventually(lambda: len(page.locator("#data pre").inner_text()) > 1_000_000)
    expect(page.locator("#logs")).to_contain_text("[left out: 10000 bytes]")
    assert_fits_the_screen(page)
    assert page.evaluate("[window.hacked, ({}).polluted].filter(Boolean)") == []
    assert page.locator("script").count() == 1
    assert page.locator("#main img").count() == 0
    page.reload()
    expect(page.locator("#reason")).to_contain_text("<script>")


def assert_fits_the_screen(page: Page) -> None:
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_limit_or_a_pause_is_named_as_the_reason_why_jobs_wait(
    server: Server, start_work: StartWork, start_exporter: StartExporter, visit: Visit
) -> None:
    work = start_work("bullmq6", server.port)
    old = {"timestamp": int((time.time() - 3600) * 1000)}
    work.call("serial", "setGlobalConcurrency", 1)
    work.call("by-plan", "setGlobalRateLimit", 2, 3_600_000)
    for queue in ("serial", "by-plan", "by-hand", "own-limiter", "still"):
        work.add(queue, "sleeps-600000" if queue == "serial" else "import", 5, old)
    work.work("serial")
    work.work("by-plan")
    work.work("own-limiter", {"limiter": {"max": 2, "duration": 3_600_000}})
    work.call("by-hand", "rateLimit", 900_000)
    work.add("paused", "import", 9, {"priority": 5})
    work.call("paused", "pause")
    waiting = {"serial": 4, "by-plan": 3, "own-limiter": 3}
    with server.client() as client:
        for queue, number in waiting.items():
            eventually(
                lambda queue=queue, number=number: client.llen(f"bull:{queue}:wait") == number
            )
        eventually(lambda: client.llen("bull:serial:active") == 1)
        for queue in ("by-plan", "own-limiter"):  # both jobs are done
            eventually(lambda queue=queue: not client.exists(f"bull:{queue}:active"))
    page = visit(start_exporter(server.url), viewport={"width": 1280, "height": 900}).open()
    expect(page.locator("#queues tbody tr")).to_have_count(6)

    def row(queue: str) -> Any:
        name = page.locator("a.queue", has_text=re.compile(f"^{queue}$"))
        return page.locator("#queues tbody tr", has=name)

    until = re.compile(r"^rate limited until (....-..-.. )?..:..:..$")
    for queue in ("by-plan", "by-hand"):
        expect(row(queue).locator("td.state")).to_have_text(until)
    may_be = re.compile(r"^may be rate limited until (....-..-.. )?..:..:..$")
    expect(row("own-limiter").locator("td.state")).to_have_text(may_be)
    expect(row("still").locator("td.state")).to_have_text("stuck")
    expect(row("paused").locator("td.state")).to_have_text("paused with jobs")
    expect(row("paused").locator("td[data-label=Paused]")).to_have_text("yes  + 9")
    expect(row("serial").locator("td[data-label=Active]")).to_have_text("1 of 1")
    expect(page.locator("#tile-still")).to_contain_text("1 queue is stuck")

    row("by-plan").locator("a.queue").click()
    expect(page.locator("#limits")).to_contain_text("Rate limited until")
    expect(page.locator("#limits")).to_contain_text("Rate limit: 2 jobs in 1 h.")
    page.click("#crumb-all")
    row("own-limiter").locator("a.queue").click()
    expect(page.locator("#limits")).to_contain_text("A worker's own rate limit counts jobs until")
    page.click("#crumb-all")
    row("serial").locator("a.queue").click()
    expect(page.locator("#limits")).to_contain_text("Concurrency limit reached.")
    expect(page.locator("#limits")).to_contain_text("Concurrency limit: 1 of 1 active.")


def test_the_page_is_strict_about_what_may_run(failing: Exporter, visit: Visit) -> None:
    client = failing.api.without_credentials()
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert client.get("/").headers["X-Frame-Options"] == "DENY"
    page_folder = ROOT / "exporter" / "web" / "page"
    served = {file for file in page_folder.rglob("*.*") if not file.name.endswith(".d.ts")}
    assert {file.name for file in served} > {"page.js", "preact.js", "preact.LICENSE.txt"}
    for file in served:
        path = str(file.relative_to(page_folder))
        answer = client.get(f"/{'' if path == 'index.html' else path}")
        assert answer.status == 200
        assert answer.body == file.read_bytes()
        assert client.get(f"/{path}", If_None_Match=answer.headers["ETag"]).status in (304, 404)
    page = visit(failing).open()
    expect(page.locator("#queues")).to_be_visible()
    blocked = page.evaluate(
        """() => new Promise((resolve) => {
          addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
          const script = document.createElement("script");
          script.text = "window.hacked = 1";
          document.body.append(script);
        })"""
    )
    assert blocked.startswith("script-src")


def test_the_groups_of_5000_jobs_may_take_their_time(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    jobs = [
        {"name": "throws", "data": {"reason": f"fault {'abcdefghijklmnopqrstuvwxyz'[n % 20]}x {n}"}}
        for n in range(5000)
    ]
    work.addJobs("ingestion", jobs)
    work.work("ingestion", {"concurrency": 100})
    exporter = start_exporter(server.url, EXPORTER_API_SEARCH_SECONDS="60")
    count = "/v1/jobs/queues/ingestion?limit=1"
    eventually(lambda: exporter.api.get(count).json["counts"]["failed"] == 5000)
    visitor = visit(exporter)
    held: list[Any] = []
    visitor.page.route("**/failures?**", lambda route: held.append(route))  # noqa: PLW0108
    page = visitor.open(queue="ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 5,000")
    expect(page.locator("#groups-section")).to_contain_text("Loading the groups")
    page.click("#page-last")
    expect(page.locator("#range")).to_have_text("4,976 to 5,000 of 5,000")
    eventually(lambda: page.wait_for_timeout(50) or held)
    for route in held:
        with suppress(Error):  # the page gave up those of the page before
            route.continue_()
    visitor.page.unroute("**/failures?**")
    said = "5,000 failed jobs in 20 groups"
    expect(page.locator("#groups-section")).to_contain_text(said)
    page.click("#groups li >> nth=0 >> a")
    expect(page.locator("#range")).to_have_text("1 to 25 of 250")


def test_an_exemplars_link_leads_to_its_job(
    server: Server, failing: Exporter, start_exporter: StartExporter, visit: Visit
) -> None:
    page = visit(failing).open(job_key="bull:ingestion:job-007")
    expect(page.locator("#view-heading")).to_contain_text("job-007")
    assert "queue=ingestion" in page.url
    page.go_back()  # not to the key, which would lead forward again
    assert "job_key" not in page.url
    page = visit(failing).open(job_key="bull:nothing:1")
    expect(page.locator("#main")).to_contain_text("There is no job bull:nothing:1")


def test_what_makes_no_sense_in_an_address_is_said(failing: Exporter, visit: Visit) -> None:
    page = visit(failing).open(queue="ingestion", window="5y", page="-3", status="failed")
    expect(page.locator("#main")).to_contain_text(
        "Ignored invalid URL parameter: window=5y, page=-3"
    )
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    page.click("#page-next")
    expect(page.locator("#main")).not_to_contain_text("Ignored invalid URL parameter")
    page = visit(failing).open(queue="ingestion", text="x" * 501)
    expect(page.locator("#banner")).to_contain_text("must not be longer than 500 characters")
    expect(page.locator("#ask-again")).to_have_count(0)  # it would not help


def test_the_page_itself_uses_up_no_request(
    server: Server, failing: Exporter, start_exporter: StartExporter, visit: Visit
) -> None:
    visitor = visit(start_exporter(server.url, EXPORTER_API_RATE_LIMIT="30"))
    for _ in range(4):
        page = visitor.open(queue="ingestion")
        expect(page.locator("#range")).to_have_text("1 to 25 of 60")


def test_queues_of_several_prefixes_are_distinguished(
    server: Server, start_work: StartWork, start_exporter: StartExporter, visit: Visit
) -> None:
    for prefix, number in (("eu", 2), ("us", 3)):
        work = start_work("bullmq5", server.port, prefix)
        fail(work, number)
    page = visit(start_exporter(server.url, EXPORTER_PREFIX="eu,us")).open()
    expect(page.locator("#queues tbody tr")).to_have_count(2)
    page.click("#queues tbody tr:has-text('us') >> a.queue")
    expect(page.locator("#range")).to_have_text("1 to 3 of 3")
    assert "prefix=us" in page.url
    expect(page.locator("#groups li")).to_have_count(1)
    page.locator("#jobs tbody td.id a").first.click()
    expect(page.locator("#traces")).to_contain_text("work.mjs")


def test_queues_of_several_targets_are_distinguished_and_what_is_away_is_said(
    server: Server,
    own_server: Server,
    start_work: StartWork,
    start_exporter: StartExporter,
    visit: Visit,
    tmp_path: Path,
) -> None:
    for each, number in ((server, 2), (own_server, 3)):
        fail(start_work("bullmq5", each.port, "bull"), number)
    file = tmp_path / "exporter.yml"
    file.write_text(
        f"targets: [{{name: europe, redis: {{url: {server.url}}}}}, "
        f"{{name: america, redis: {{url: {own_server.url}}}}}]"
    )
    page = visit(start_exporter("", "--config", str(file))).open()
    expect(page.locator("#queues tbody tr")).to_have_count(2)
    page.click("#queues tbody tr:has-text('america') >> a.queue")
    expect(page.locator("#range")).to_have_text("1 to 3 of 3")
    assert "target=america" in page.url
    expect(page.locator("#view-heading")).to_contain_text("america")
    expect(page.locator("#groups li")).to_have_count(1)
    page.locator("#jobs tbody td.id a").first.click()
    expect(page.locator("#traces")).to_contain_text("work.mjs")
    assert "target=america" in page.url
    own_server.stop()
    page.click("#crumb-all")
    expect(page.locator("main .notice")).to_contain_text("america (Redis cannot be reached)")
    expect(page.locator("#queues tbody tr")).to_have_count(1)


def test_it_works_with_the_keyboard_alone(failing: Exporter, visit: Visit) -> None:
    visitor = visit(failing)
    page = visitor.open()
    expect(page.locator("#queues")).to_be_visible()

    def tab_to(wanted: str, key: str = "Tab") -> None:
        for _ in range(80):
            page.keyboard.press(key)
            if wanted in page.evaluate("document.activeElement.textContent || ''"):
                break
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
        page.keyboard.press("Enter")

    tab_to("ingestion")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    tab_to("job-058")
    expect(page.locator("#view-heading")).to_contain_text("job-058")
    assert page.evaluate("document.activeElement.id") == "view-heading"
    tab_to("Back to", "Shift+Tab")
    expect(page.locator("#range")).to_have_text("1 to 25 of 60")
    assert "job-058" in page.evaluate("document.activeElement.textContent")


def assert_keeps_nobody_out(page: Page, view: str) -> None:
    """By axe: contrast, names, roles, order; and no view is wider than its screen."""
    if not AXE.exists():
        pytest.fail("axe-core is missing: make test installs it")
    assert_fits_the_screen(page)
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    serious = [
        f"{view}: {each['id']}: {each['nodes'][0]['html'][:200]}"
        for each in found
        if each["impact"] in ("serious", "critical")
    ]
    assert serious == []


COLORS = pytest.mark.parametrize("colors", ["light", "dark"])
SIZES = pytest.mark.parametrize(
    "size", [{"width": 1280, "height": 900}, PHONE], ids=["desk", "phone"]
)


@COLORS
@SIZES
def test_a_link_to_a_group_leads_to_what_was_seen_though_its_jobs_are_gone(
    server: Server,
    work: Work,
    start_exporter: StartExporter,
    visit: Visit,
    colors: str,
    size: dict[str, int],
) -> None:
    gone, again = f"connect ECONNREFUSED 10.0.0.7:993 {SCRIPT}", "Card declined for cus_8812"
    work.call("ingestion", "getJobCounts")
    exporter = wait_following(start_exporter(server.url))
    work.work("ingestion", {"concurrency": 1})
    source = {"reason": gone, "ingestionSourceId": "source-1"}
    later = {"attempts": 2, "backoff": {"type": "fixed", "delay": 3_600_000}}
    work.addJobs(
        "ingestion",
        [
            *({"name": "throws", "data": {"reason": f"kept {at}"}} for at in "abcdefghij"),
            *[{"name": "throws", "data": source, "opts": {"removeOnFail": True}}] * 7,
            {"name": "throws", "data": source, "opts": {"removeOnFail": True, **later}},
        ],
    )
    failures, fingerprint = "/v1/jobs/queues/ingestion/failures", fold(gone).fingerprint

    def found() -> dict[str, Any]:
        groups = exporter.api.get(failures).json["groups"]
        return {each["fingerprint"]: each for each in groups}

    def is_traced() -> bool:
        return any(job["stacktrace"] for job in found()[fingerprint]["evidence"])

    eventually(lambda: fingerprint in found() and is_traced())
    work.call("ingestion", "promoteJobs")
    eventually(lambda: found()[fingerprint]["seen24h"] == 8)
    work.addJobs("ingestion", [{"name": "throws", "data": {"reason": again}, "opts": later}])
    eventually(lambda: fold(again).fingerprint in found())

    visitor = visit(exporter, color_scheme=colors, viewport=size, reduced_motion="reduce")
    page = visitor.open(queue="ingestion", window="24h", fingerprint=fingerprint)
    chosen = page.locator("#groups .chosen")
    expect(chosen).to_be_in_viewport()
    expect(chosen).to_contain_text("0 kept, 8 seen in 24 h, 1 retry")
    expect(chosen).to_contain_text("throws × 8")
    expect(chosen.get_by_role("img")).to_have_accessible_name(
        re.compile(r"^By hour, the last 24 h: 8 failed, 1 retry; most at \d\d:\d\d: ")
    )
    expect(chosen.locator("svg g")).to_have_count(24)
    jobs = chosen.locator("article")
    expect(jobs).to_have_count(3)
    if size is PHONE:
        expect(jobs.last).to_be_hidden()
        chosen.get_by_role("button", name="Show 2 more jobs").click()
    expect(jobs.last).to_be_visible()
    expect(jobs.first).to_contain_text("job 18")
    expect(jobs.first).to_contain_text("after 2 attempts")
    expect(jobs.first).to_contain_text("source source-1")
    expect(jobs.first).to_contain_text("removed")
    expect(jobs.first.get_by_role("link")).to_have_count(0)
    expect(jobs.first.locator("pre").first).to_have_text(gone)
    jobs.first.locator("summary").click()
    expect(jobs.first.locator("details")).to_contain_text("work.mjs")
    expect(jobs.first.locator("details pre")).to_be_visible()
    assert_keeps_nobody_out(page, "a group whose jobs are gone")
    # A refresh takes nothing away.
    page.evaluate("window.scrollTo(0, 0)")
    page.click("#pause")
    page.click("#pause")
    expect(jobs.first.locator("details pre")).to_be_visible()

    chosen.get_by_role("link").first.click()
    expect(page.locator("#groups li").first).to_contain_text("8")
    page.click("#more-groups")
    retried = page.locator(f"[data-group='{fold(again).fingerprint}']")
    expect(retried).to_contain_text("1 will be retried")
    assert_keeps_nobody_out(page, "groups")
    # Of a window that has passed: it is asked for alone.
    eventually(lambda: not exporter.api.get(f"{failures}?window=1s").json["groups"])
    page = visitor.open(queue="ingestion", window="1s", fingerprint=fingerprint)
    expect(page.locator("#groups .chosen")).to_contain_text("0 kept, 8 seen in 24 h")
    expect(page.locator("#group-filter")).to_contain_text("connect ECONNREFUSED")
    assert page.evaluate("window.hacked") is None


@COLORS
@SIZES
def test_nobody_is_kept_out(
    server: Server,
    failing: Exporter,
    visit: Visit,
    colors: str,
    size: dict[str, int],
) -> None:
    hostile(server)
    visitor = visit(failing, color_scheme=colors, viewport=size, reduced_motion="reduce")
    eventually(lambda: len(failing.api.get("/v1/jobs/queues").json["queues"]) == 2)
    page = visitor.open(sign_in=None)

    def check(view: str) -> None:
        assert_keeps_nobody_out(page, view)

    check("sign in")
    visitor.sign_in("wrong-key-wrong-key")
    expect(page.locator("#refused")).to_contain_text("was not accepted")
    check("refused")
    visitor.sign_in(API_KEY)
    expect(page.locator("#queues tbody tr")).to_have_count(2)
    check("all queues")
    visitor.open(queue="ingestion")
    expect(page.locator("#groups")).to_be_visible()
    check("failed jobs")
    visitor.open(queue="ingestion", status="delayed")
    expect(page.locator("#main")).to_contain_text("There are no delayed jobs")
    check("none")
    visitor.open(queue="ingestion", job="job-001")
    expect(page.locator("#traces")).to_be_visible()
    check("a job")
    visitor.open(queue="nothing")
    expect(page.locator("#main")).to_contain_text("There is no such queue")
    check("gone")


def test_a_parent_that_waits_for_ever_shows_which_child_failed_and_why(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    children = [
        {"name": "throws", "queueName": "mails", "data": {"reason": f"no mailbox {SCRIPT}\nat x"}},
        {"name": "works", "queueName": "idle", "opts": {"jobId": "evicted"}},
        {"name": "works", "queueName": "idle", "opts": {"jobId": "waits"}},
    ]
    children[0]["opts"] = {"jobId": "fails"}
    work.flow(
        {"name": "import", "queueName": "flows", "opts": {"jobId": "p"}, "children": children}
    )
    work.work("mails")
    with server.client() as client:
        client.delete("bull:idle:evicted")
        eventually(lambda: client.zcard("bull:mails:failed") == 1)
    page = visit(start_exporter(server.url)).open(queue="flows", job="p")
    listed = page.locator("#flow .children li")
    expect(listed).to_have_count(3)
    expect(listed.filter(has_text="mails / fails")).to_contain_text("failed no mailbox <script>")
    expect(listed.filter(has_text="idle / evicted")).to_contain_text("removed")
    expect(listed.filter(has_text="idle / waits")).to_contain_text("waiting")
    expect(page.locator("#flow")).to_contain_text(
        "1 child failed. This job waits until it is retried"
    )
    expect(page.locator("#flow")).to_contain_text("1 child was removed. This job will never")
    page.click("#flow >> text=fails")
    expect(page.locator("#view-heading")).to_contain_text("fails")


def test_a_parent_that_no_longer_waits_is_not_said_to_wait_for_a_failed_child(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    fails = {"name": "throws", "queueName": "mails", "opts": {"jobId": "fails"}}
    breaks = {"name": "throws", "queueName": "files", "opts": {"failParentOnFailure": True}}
    flow = {"name": "works", "queueName": "flows", "opts": {"jobId": "p"}}
    work.flow(flow | {"children": [fails, breaks]})
    work.work("mails")
    with server.client() as client:
        eventually(lambda: client.zcard("bull:mails:failed") == 1)
        for queue in ("files", "flows"):
            work.work(queue)
        eventually(lambda: client.zcard("bull:flows:failed") == 1)
    page = visit(start_exporter(server.url)).open(queue="flows", job="p")
    children = page.locator("#flow .children li")
    expect(children).to_have_count(2)
    expect(children.filter(has_text="mails / fails")).to_contain_text("failed")
    expect(page.locator("#flow .notice")).to_have_count(0)


def test_a_queue_shows_what_its_schedulers_repeat_and_which_is_overdue(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    berlin = {"pattern": "0 3 * * *", "tz": "Europe/Berlin"}
    work.call("mail", "upsertJobScheduler", "nightly", berlin, {"name": "clean"})
    work.call("mail", "upsertJobScheduler", SCRIPT, {"every": 5_400_000}, {"name": "sync"})
    work.call("idle", "add", "x", {})
    with server.client() as client:
        client.zadd("bull:mail:repeat", {"late": 1_700_000_000_000, "over": 1_600_000_000_000})
        client.hset("bull:mail:repeat:late", mapping={"name": "late", "every": 60_000})
        ran = {"timestamp": 1_650_000_000_000, "opts": '{"repeat":{"count":3}}'}
        client.hset("bull:mail:repeat:late:1700000000000", mapping=ran)
        client.hset("bull:mail:repeat:over", mapping={"name": "over", "limit": 2, "ic": 2})
    exporter = start_exporter(server.url)
    eventually(lambda: len(exporter.api.get("/v1/jobs/queues").json["queues"]) == 2)
    page = visit(exporter).open(queue="mail", status="delayed")
    expect(page.locator("#schedulers-heading")).to_have_text("Schedulers (4)")
    rows = page.locator("#schedulers tbody tr")
    expect(rows).to_have_count(4)
    expect(rows.nth(0)).to_contain_text("ended")
    expect(rows.nth(1)).to_contain_text("every 1 min")
    expect(rows.nth(1)).to_contain_text("overdue")
    nightly = rows.filter(has_text="nightly")
    for text in ("clean", "0 3 * * *", "Europe/Berlin", "unknown", "in "):
        expect(nightly).to_contain_text(text)
    expect(nightly).not_to_contain_text("overdue")
    added = rows.filter(has_text="<script>")
    expect(added).to_contain_text("every 1 h 30 min")
    expect(added).not_to_contain_text("overdue")
    page = visit(exporter).open(queue="idle", status="waiting")
    expect(page.locator("#jobs tbody tr")).to_have_count(1)
    expect(page.locator("#schedulers-heading")).to_have_count(0)


def test_jobs_without_data_are_said_to_be_there(
    server: Server, work: Work, start_exporter: StartExporter, visit: Visit
) -> None:
    work.add("mail", "send", 10)
    work.add("lost", "send", 1)
    with server.client() as client:
        ids = client.lrange("bull:mail:wait", 0, -1)
        client.delete("bull:lost:1", *(b"bull:mail:" + each for each in ids[::2]))
        exporter = start_exporter(server.url)
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            page = visit(exporter).open(queue="mail", status="waiting")
            expect(page.locator("#missing")).to_contain_text(
                "5 of 10 jobs have no data (evicted or"
            )
            expect(page.locator("#missing")).to_contain_text("(maxmemory-policy allkeys-lru)")
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    expect(page.locator("#jobs tbody tr")).to_have_count(5)
    expect(page.locator("#range")).to_have_text("1 to 10 of 10")
    page = visit(exporter).open(queue="lost", status="waiting")
    expect(page.locator("#missing")).to_contain_text("1 of 1 job has no data (evicted or deleted)")
    expect(page.locator("#jobs-section")).not_to_contain_text("There are no waiting jobs")

"""The page in a real browser, whatever jobs are called and whatever their fields hold.

One page load for all of them: within it, a script goes from view to view as links do. The page
keeps the answers of the last views, so each test has queues of its own.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser, Page, expect

from exporter.queues.text import text
from tests.support.exporters import API_KEY, Exporter, spawn_exporter
from tests.support.servers import Server, running
from tests.support.strategies import ALL_FIELDS, JOB, examples
from tests.support.template import fork_process
from tests.support.waiting import eventually

NOW = 1_700_000_000_000
NUMBERS = itertools.count()
QUEUES = "/v1/jobs/queues"
# Each JSON type, alone and within the others, and what is no JSON.
SHAPES = (
    *(b'[{"a":1}]', b"[1]", b'{"a":1}', b'["Error", null]', b"[[]]", b"[[1]]", b"[true, false]"),
    *(b"null", b"[null]", b"true", b"false", b"0", b"1", b"-1.5", b"1e308", b"[]", b"{}", b"[{}]"),
    *(b'""', b'"Error: x"', b'[""]', b'["Error: x\\n    at f (a.js:1:1)"]', b'"[1]"', b'"\\"a\\""'),
    *(b'{"length": 5}', b'{"length": "x"}', b'{"toString": 1}', b'{"__proto__": null}'),
    *(b'[{"toJSON": 1, "then": 1}]', b'{"slice": 1, "trim": 1}', b'{"attempts": {"a": []}}'),
    *(b"x", b"", b" ", b"{", b"\xff", b"\x00", b"NaN", b"[NaN]", b"Traceback (most"),
    *(b'["' + b"x" * 300_000 + b'", 1]', b"[" * 200 + b"]" * 200, b'"\\ud83d"'),
    *(b'["\\u202e\\u0000"]', b"\xef\xbb\xbf[1]"),
)
IDS = (
    *(b".", b"..", b"...", b"a\nb", b"\n", b"\r\n", b"\t", b" ", b"  x  ", b"a/b", b"/", b"//"),
    *(b"/..", b"a/../b", b"..\\b", b"%2F", b"%2e%2e", b"%", b"%zz", b"%ff", b"?a=b", b"#a"),
    *(b"&job=x", b"+", b"\xff", rb"\xff", b"\\xff\xfe", b"a\xffb", b"\xed\xa0\xbd", b"%\xff"),
    *(b"x" * 9000, "é".encode() * 9000, "😀".encode() * 9000, b"(" * 9000, b"\n" * 9000),
    *(b"\xff" * 9000, b"\x00", b"\x00\x7f\x1b[31m", "\u202e\u200b".encode(), b"<b>", b'"', b"'"),
    *(b"-", b"jobs", b"a;b", b"a:b", b":", b"meta2", b"constructor", b"__proto__", b"1e3", b"0"),
    *(b"null", b"~", b"*", b"\\"),
)

# Goes to each view as a link would; says of each what went wrong, or nothing, and what is shown.
VISIT = """async ([views, whole]) => {
  const results = [];
  let faults = [];
  addEventListener("error", ({ message }) => faults.push(message));
  addEventListener("unhandledrejection", ({ reason }) => faults.push(String(reason)));
  const main = document.getElementById("main");
  const until = async (is) => {
    for (const end = Date.now() + 60000; !is() && !faults.length;) {
      if (Date.now() > end) faults.push("waited for a minute for " + is);
      await new Promise((resume) => setTimeout(resume, 2));
    }
  };
  for (const view of views) {
    faults = [];
    history.pushState({}, "", view);
    dispatchEvent(new PopStateEvent("popstate"));
    await until(() => main.querySelector(whole) && !main.querySelector("[aria-busy]")
      && !/^Loading /m.test(main.innerText));
    results.push({ view, faults, text: main.innerText.slice(0, 100_000) });
  }
  return results;
}"""


@dataclass
class Visited:
    """An exporter, its server, and one page of it in which somebody is signed in."""

    server: Server
    exporter: Exporter
    page: Page

    def visit(self, views: list[str], whole: str) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = self.page.evaluate(VISIT, [views, whole])
        wrong = [result for result in results if result["faults"]]
        assert not wrong, [(result["view"][:200], result["faults"]) for result in wrong[:5]]
        return results


@pytest.fixture(scope="module")
def visited(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visited]:
    directory = tmp_path_factory.mktemp("page")
    with running("valkey", directory, "--appendonly", "no") as server:
        quick = {"EXPORTER_POLL_INTERVAL": "0.2", "EXPORTER_DISCOVERY_INTERVAL": "0.2"}
        log = directory / "log"
        exporter = spawn_exporter(server.url, log, start=fork_process, **quick)
        exporter.wait_ready()
        context = browser.new_context()
        context.set_default_timeout(60_000)
        page = context.new_page()
        page.goto(exporter.api.url)
        page.fill("#credential", API_KEY)
        page.press("#credential", "Enter")
        expect(page.locator("#view-heading")).to_contain_text("queue")
        yield Visited(server, exporter, page)
        context.close()
        exporter.terminate()
        assert "a request failed" not in exporter.log


def put(client: redis.Redis, queue: bytes, jobs: dict[bytes, dict[bytes, bytes]]) -> None:
    """Failed jobs, and nothing else."""
    client.flushall()
    base = b"bull:%b:" % queue
    with client.pipeline() as pipeline:
        pipeline.hset(base + b"meta", "version", "bullmq:5.56.3")
        for number, (job_id, fields) in enumerate(jobs.items()):
            pipeline.zadd(base + b"failed", {job_id: NOW + number})
            pipeline.hset(base + job_id, mapping=fields)
        pipeline.execute()


def wait_listed(visited: Visited, queue: str) -> None:
    """Until this queue, and no other, is found."""
    eventually(
        lambda: (
            [each["name"] for each in visited.exporter.api.get(QUEUES).json["queues"]] == [queue]
        )
    )


def job_views(queue: str, ids: list[str]) -> list[str]:
    return [f"?{urlencode({'queue': queue, 'job': job_id})}" for job_id in ids]


def test_a_job_is_shown_whatever_the_json_of_its_fields(visited: Visited) -> None:
    # Each field has each shape in one of the jobs.
    jobs = {
        b"%d" % at: {
            field: SHAPES[(at + 3 * place) % len(SHAPES)] for place, field in enumerate(ALL_FIELDS)
        }
        for at in range(len(SHAPES))
    }
    with visited.server.client() as client:
        put(client, b"shapes", jobs)
        for at, shape in enumerate(SHAPES):  # log lines, relatives, schedulers
            job, scheduler = b"bull:shapes:%d" % at, b"s" + shape[:100]
            client.rpush(job + b":logs", shape, b"\xff")
            client.sadd(job + b":dependencies", b"bull:shapes:" + shape, shape)
            client.zadd("bull:shapes:repeat", {scheduler: NOW})
            names = ("name", "pattern", "tz", "every", "endDate", "limit", "ic")
            client.hset(b"bull:shapes:repeat:" + scheduler, mapping=dict.fromkeys(names, shape))
    visited.visit(job_views("shapes", [job.decode() for job in jobs]), "#options")
    visited.visit(["?queue=shapes&page=1", "?queue=shapes&page=2"], "#jobs")
    visited.visit(["?queue=shapes"], "#groups")
    visited.visit(["?queue=shapes&status=completed"], "#schedulers")


@examples(2)
@given(given_jobs=st.lists(JOB, min_size=50, max_size=50))
def test_a_job_is_shown_whatever_its_fields_hold(
    visited: Visited, given_jobs: list[dict[bytes, bytes]]
) -> None:
    queue = f"fields-{next(NUMBERS)}"
    jobs = {b"%d" % at: fields for at, fields in enumerate(given_jobs)}
    with visited.server.client() as client:
        put(client, queue.encode(), jobs)
    visited.visit(job_views(queue, [job.decode() for job in jobs]), "#options")
    visited.visit([f"?queue={queue}&page={page}" for page in (1, 2)], "#jobs")


def test_a_listed_job_can_be_opened_whatever_its_id_and_its_queue(visited: Visited) -> None:
    for queue in (b"q", b".", b"..", b"a/b", b"a\nb", b"\xff", b"%2e%2e"):
        assert_opens(visited, queue)


def assert_opens(visited: Visited, queue: bytes) -> None:
    """Each job that is listed there is opened by the API and by the page."""
    ids = IDS if queue == b"q" else (b"..", b"a\nb", b"\xff", rb"\xff")
    jobs = {
        job_id: {b"data": b'{"number": "<%d>"}' % at, b"failedReason": b"r%c" % (65 + at)}
        for at, job_id in enumerate(ids)
    }
    with visited.server.client() as client:
        put(client, queue, jobs)
    name = text(queue)
    wait_listed(visited, name)
    parameters = {"queue": name, "limit": 1000}
    found = visited.exporter.api.get(f"{QUEUES}/-?{urlencode(parameters)}").json["jobs"]
    assert len(found) == len(ids)
    # The API: by the bytes of the id, in the path or in the query, and by what is shown of it.
    for at, (job_id, job) in enumerate(zip(ids, found, strict=True)):
        encoded = quote(job_id, safe="")
        paths = [f"-/jobs/{encoded}?{urlencode({'queue': name})}"]
        paths += [f"-/jobs/-?{urlencode({'queue': name})}&id={encoded}"]
        own = job.get("encodedId") or quote(job["id"], safe="")
        paths += [f"{quote(name, safe='')}/jobs/{own}"]
        for path in paths:
            answer = visited.exporter.api.get(f"{QUEUES}/{path}")
            assert answer.status == 200, (path[:100], answer.body)
            assert answer.json["job"]["data"] == {"number": f"<{at}>"}
            assert answer.json["job"]["id"] == job["id"]
    # The page: each row's link, and the example of each group.
    pages = range(1, -(-len(ids) // 25) + 1)
    lists = [f"?{urlencode({'queue': name, 'page': page, 'order': 'asc'})}" for page in pages]
    links: list[str] = []
    for view in lists:
        visited.visit([view], "#jobs tbody tr")
        links += visited.page.eval_on_selector_all(
            "#jobs tbody td.id a", "all => all.map((each) => each.getAttribute('href'))"
        )
    assert len(links) == len(ids)
    for at, result in enumerate(visited.visit(links, "#options")):
        assert f'"number": "<{at}>"' in result["text"], result["view"][:200]
    visited.visit(lists[:1], "#groups")
    example = visited.page.get_by_text("an example").first.get_attribute("href")
    assert example
    assert '"number": "<' in visited.visit([example], "#options")[0]["text"]


def test_what_a_link_says_can_be_loaded_anew(visited: Visited) -> None:
    """As from a notification: the whole page is asked for with that address."""
    jobs = {
        job_id: {b"name": b"x", b"data": b'{"number": "<%d>"}' % at}
        for at, job_id in enumerate((b"..", b"a\n/b", b"\xff", "😀".encode() * 9000))
    }
    with visited.server.client() as client:
        put(client, b"..", jobs)
    wait_listed(visited, "..")
    visited.page.goto(f"{visited.exporter.api.url}/?queue=..&order=asc")
    expect(visited.page.locator("#jobs tbody tr")).to_have_count(4)
    links = visited.page.eval_on_selector_all(
        "#jobs tbody td.id a", "all => all.map((each) => each.getAttribute('href'))"
    )
    for at, link in enumerate(links):
        visited.page.goto(f"{visited.exporter.api.url}/{link}")
        expect(visited.page.locator("#data")).to_contain_text(f'"number": "<{at}>"')
    # What an exemplar links to: the key of the job, as it is shown on /metrics.
    for job_key in ("bull:..:..", "bull:..:a\n/b", "bull:..:\\xff"):
        visited.page.goto(f"{visited.exporter.api.url}/?{urlencode({'job_key': job_key})}")
        expect(visited.page.locator("#data")).to_contain_text('"number": "<')


def test_a_relative_with_any_id_is_linked_and_its_state_is_known(visited: Visited) -> None:
    with visited.server.client() as client:
        put(client, b"q\xff", {b"\xff": {b"name": b"child", b"failedReason": b"x"}})
        client.zadd(b"bull:q\xff:waiting-children", {b"parent": NOW})
        client.hset(b"bull:q\xff:parent", "name", "parent")
        client.sadd(b"bull:q\xff:parent:dependencies", b"bull:q\xff:\xff")
        client.hset(b"bull:q\xff:\xff", "parentKey", b"bull:q\xff:parent")
    wait_listed(visited, "q\\xff")
    path = f"{QUEUES}/{quote(chr(92))}xff/jobs/parent".replace("queues/", "queues/q")
    answer = visited.exporter.api.get(path).json
    [child] = answer["job"]["children"]["jobs"]
    assert (child["id"], child["encodedId"], child["state"]) == ("\\xff", "%FF", "failed")
    parent = visited.exporter.api.get(path.replace("parent", child["encodedId"])).json
    assert parent["job"]["parent"] == {"queue": "q\\xff", "id": "parent"}


def test_an_id_too_long_for_an_address_is_listed_without_a_link(visited: Visited) -> None:
    with visited.server.client() as client:
        put(client, b"long", {b"i" * 200_000: {b"name": b"x"}, b"short": {b"name": b"x"}})
    wait_listed(visited, "long")
    visited.visit(["?queue=long"], "#jobs tbody tr")
    assert visited.page.locator("#jobs td.id a").all_inner_texts() == ["short"]
    assert (
        visited.page.locator("#jobs td.id span").get_attribute("title") == "too long to be opened"
    )
    refused = visited.exporter.api.get(f"{QUEUES}/long/jobs/{'i' * 200_000}")
    assert refused.status == 400
    answer = visited.exporter.api.get(f"{QUEUES}/long?limit=2").json
    assert {len(job["id"]) for job in answer["jobs"]} == {5, 200_000}


def test_json_shapes_are_what_they_were(visited: Visited) -> None:
    """The page writes a value that is no text as JSON, and as nothing else."""
    with visited.server.client() as client:
        put(client, b"json", {b"1": {b"stacktrace": b'[{"a": 1}, null, "Error: x"]'}})
    assert visited.exporter.api.get(f"{QUEUES}/json/jobs/1").json["job"]["stacktrace"] == [
        {"a": 1},
        None,
        "Error: x",
    ]
    [result] = visited.visit(["?queue=json&job=1"], "#traces")
    traces = visited.page.locator("#traces pre").all_text_contents()
    assert traces == ["Error: x", "null", json.dumps({"a": 1}, indent=2)]
    assert "[object Object]" not in result["text"]

"""The port that Prometheus scrapes."""

from __future__ import annotations

import base64
import gzip
import re
import socket
import ssl
import subprocess
import urllib.request
from itertools import product
from pathlib import Path

import pytest
import trustme
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporter.web.metrics import MAX_WRONG_PASSWORDS
from tests.support.exporters import Exporter, StartExporter
from tests.support.http_client import Client
from tests.support.programs import program
from tests.support.prometheus import StartPrometheus
from tests.support.servers import Server
from tests.support.waiting import eventually

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.fixture
def exporter(server: Server, start_exporter: StartExporter) -> Exporter:
    with server.client() as client:
        client.hset('bull:odd "name"\n\\:meta', "version", "bullmq:5.56.3")
        client.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
    return start_exporter(server.url)


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ("text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.2", False),
        ("application/openmetrics-text;q=0", False),
        ("text/plain", False),
        ("*/*", False),
        ("text/html,application/xhtml+xml", False),
        ("", False),
        ("application/openmetrics-text;q=many;version=abc;;,", False),
    ],
)
def test_a_scraper_gets_the_format_that_it_accepts(
    exporter: Exporter, accept: str, openmetrics: bool
) -> None:
    page = exporter.metrics.get("/metrics", Accept=accept)
    assert page.status == 200
    assert page.text.endswith("# EOF\n") == openmetrics
    expected = (
        "application/openmetrics-text; version=1.0.0"
        if openmetrics
        else "text/plain; version=0.0.4"
    )
    assert page.headers["Content-Type"] == f"{expected}; charset=utf-8"
    if openmetrics:
        names = [family.name for family in parse_openmetrics(page.text)]
        assert len(names) == len(set(names))
        assert "bullmq_job_count" in names


def test_gzip_is_sent_where_it_is_asked_for(exporter: Exporter) -> None:
    assert exporter.metrics.get("/metrics").headers["Content-Encoding"] is None
    for asked, given in (
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("br", False),
    ):
        page = exporter.metrics.get("/metrics", Accept_Encoding=asked)
        assert (page.headers["Content-Encoding"] == "gzip") == given
        body = gzip.decompress(page.body) if given else page.body
        assert b'bullmq_job_count{queue="ingestion",state="failed"} 0' in body


def test_the_page_moves_on_with_each_poll_in_every_format(exporter: Exporter) -> None:
    def polls(accept: str) -> str:
        text = exporter.metrics.get("/metrics", Accept=accept).text
        [line] = [
            line for line in text.splitlines() if line.startswith("bullmq_exporter_last_poll_")
        ]
        return line

    for accept in (PROMETHEUS_3, "text/plain"):
        first = polls(accept)
        eventually(lambda accept=accept, first=first: polls(accept) != first)


def test_promtool_and_a_real_prometheus_read_it(
    exporter: Exporter, scrape: StartPrometheus
) -> None:
    page = exporter.metrics.get("/metrics")
    promtool = [program("promtool", "prometheus"), "check", "metrics"]
    checked = subprocess.run(promtool, input=page.body, capture_output=True, check=False)
    # `bullmq_job_count` is BullMQ's own name; it ends like a histogram's counter and is a gauge.
    complaints = [
        line for line in checked.stderr.decode().splitlines() if "bullmq_job_count" not in line
    ]
    assert complaints == []

    prometheus = scrape(exporter)
    query = "count_values without (state) ('value', bullmq_job_count)"
    found = eventually(lambda: prometheus.query(query))
    assert {row["metric"]["queue"] for row in found} == {"ingestion", 'odd "name"\n\\'}


REQUESTS = (
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET /nothing HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.0\r\n\r\n",
    b"GET /%b HTTP/1.0\r\n\r\n" % (b"a" * 9000),
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\r\n\r\n",  # TLS
)


def test_no_answer_reports_the_versions_of_what_it_runs_on(exporter: Exporter) -> None:
    for client, asked in product((exporter.metrics, exporter.api), REQUESTS):
        host, port = client.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(asked)
            answer = connection.makefile("rb").read()
        assert b"\r\nServer: bullmq-exporter\r\n" in answer
        assert not re.search(b"aiohttp|python", answer, re.IGNORECASE)


def test_a_body_that_is_not_what_it_claims_is_not_logged(exporter: Exporter) -> None:
    body = b"Content-Length: 3\r\n\r\nabc"
    chunk = b"Transfer-Encoding: chunked\r\n\r\nabc\r\n"
    for client, coding, rest in product(
        (exporter.metrics, exporter.api), (b"gzip", b"deflate", b"x"), (body, chunk)
    ):
        host, port = client.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            connection.sendall(head + b"Content-Encoding: " + coding + b"\r\n" + rest)
            assert connection.makefile("rb").readline().startswith(b"HTTP/1.")
    assert exporter.metrics.get("/-/healthy").status == 200
    assert "Traceback" not in exporter.log
    assert "exception" not in exporter.log


def test_health_readiness_and_a_landing_page(exporter: Exporter) -> None:
    assert exporter.metrics.get("/-/healthy").status == 200
    assert exporter.metrics.get("/-/ready").status == 200
    landing = exporter.metrics.get("/")
    assert landing.status == 200
    assert 'href="metrics"' in landing.text
    assert exporter.metrics.get("/v1/jobs/queues").status == 404
    assert exporter.metrics.request("POST", "/metrics").status == 405


def test_metrics_can_be_kept_behind_a_password_while_probes_go_on(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(
        server.url, EXPORTER_METRICS_USER="prometheus", EXPORTER_METRICS_PASSWORD="päss:word"
    )
    right = base64.b64encode("prometheus:päss:word".encode()).decode()
    wrong = base64.b64encode(b"prometheus:password").decode()
    for header in ("", "Basic", "Basic !!!", f"Basic {wrong}", f"Bearer {right}"):
        answer = exporter.metrics.get("/metrics", Authorization=header)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"].startswith("Basic ")
        assert exporter.metrics.get("/", Authorization=header).status == 401
    assert exporter.metrics.get("/metrics", Authorization=f"Basic {right}").status == 200
    assert exporter.metrics.get("/-/ready").status == 200
    # What is no basic authentication is no guess; the other three, each at two paths, are.
    guess = {"Authorization": f"Basic {wrong}"}
    for _ in range(MAX_WRONG_PASSWORDS - 6):
        assert not exporter.metrics.is_hung_up_on("/metrics", guess)
    assert exporter.metrics.is_hung_up_on("/metrics", guess)
    # Not 429: browsers would not ask for another password.
    assert exporter.metrics.request("GET", "/metrics", guess).status == 401
    # Prometheus may be at the same address.
    assert exporter.metrics.get("/metrics", Authorization=f"Basic {right}").status == 200
    [line] = eventually(lambda: exporter.lines("too many wrong credentials"))
    assert (line["port"], line["client"]) == ("metrics", "127.0.0.1")
    [line] = eventually(lambda: exporter.lines("a credential was refused"))
    assert (line["port"], line["reason"]) == ("metrics", "password")
    exporter.metrics = Client(exporter.metrics.url, {"Authorization": f"Basic {right}"})
    counted = {("password",): MAX_WRONG_PASSWORDS + 2}
    failed = "bullmq_exporter_failed_logins_total"
    eventually(lambda: exporter.metrics.samples(failed, port="metrics") == counted)
    # A path that looks like a probe's is none.
    for path in ("/-/../metrics", "/-/%2e%2e/metrics", "//metrics", "/-/x"):
        assert Client(exporter.metrics.url).get(path).status == 401
    assert "word" not in exporter.log.replace("password", "")


@pytest.mark.parametrize("user", ["", "prometheus"])
def test_readiness_names_targets_unless_the_page_needs_a_password(
    server: Server, start_exporter: StartExporter, tmp_path: Path, user: str
) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text(
        f"""\
targets:
  - {{name: here, redis: {{url: "{server.url}"}}}}
  - {{name: away, redis: {{url: "redis://127.0.0.1:1"}}}}
"""
    )
    password = {"EXPORTER_METRICS_USER": user, "EXPORTER_METRICS_PASSWORD": "p" * 16}
    exporter = start_exporter("", "--config", str(file), **(password if user else {}))
    assert exporter.metrics.get("/-/ready").text == f"ready{'' if user else ', except away'}\n"


def test_metrics_can_be_served_over_tls(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for index, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=index > 0)
    exporter = start_exporter(
        server.url,
        ready=False,
        EXPORTER_METRICS_TLS_CERT=str(tmp_path / "cert.pem"),
        EXPORTER_METRICS_TLS_KEY=str(tmp_path / "key.pem"),
    )
    assert exporter.metrics.url.startswith("https://")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    def scrape() -> bytes:
        with urllib.request.urlopen(f"{exporter.metrics.url}/metrics", context=context) as page:
            return bytes(page.read())

    eventually(lambda: b"bullmq_up 1.0" in scrape())

"""The Jobs API over HTTP: who gets in, what is refused and how, and what the answers look like."""

from __future__ import annotations

import base64
import hmac
import http.client
import json
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jwt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from exporter.harmful_settings import harmful_settings
from exporter.settings import load
from exporter.web.api import MAX_LINE_BYTES
from exporter.web.credentials import Credentials, Unauthorized
from tests.support.exporters import API_KEY, JWT_SECRET, Exporter, StartExporter
from tests.support.http_client import Answer, Client
from tests.support.servers import Server
from tests.support.tokens import token
from tests.support.waiting import eventually

QUEUES = ("/v1/jobs/queues", "/api/v1/jobs/queues")
KEYS = "/v1/jobs/keys/{jobKey}"
PATHS = [path + rest for path in QUEUES for rest in ("", "/ingestion")]


@pytest.fixture
def exporter(server: Server, start_exporter: StartExporter) -> Exporter:
    """An exporter that watches the queue `ingestion` with 25 failed jobs."""
    with server.client() as client:
        client.hset("bull:ingestion:meta", "version", "bullmq:5.56.3")
        for number in range(25):
            client.zadd("bull:ingestion:failed", {f"{number}": number})
            job = {
                "name": "process-mailbox",
                "data": json.dumps({"ingestionSourceId": f"source-{number}"}),
                "timestamp": 1_700_000_000_000,
                "processedOn": 1_700_000_001_000,
                "finishedOn": 1_700_000_002_000,
                "atm": 5,
                "failedReason": "Error: Connection timed out",
                "stacktrace": '["Error: Connection timed out\\n    at connect"]',
            }
            client.hset(f"bull:ingestion:{number}", mapping=job)
    return start_exporter(server.url)


def assert_message(answer: Answer, status: int) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    body = answer.json
    assert list(body) == ["message"]
    assert isinstance(body["message"], str)
    assert "Traceback" not in body["message"]
    return str(body["message"])


@pytest.mark.parametrize("path", PATHS)
def test_nobody_gets_in_without_a_valid_credential(exporter: Exporter, path: str) -> None:
    client = exporter.api.without_credentials()
    now = int(time.time())
    unsigned = jwt.encode({"sub": "u", "roles": ["Super Admin"]}, None, "none")
    refused: list[dict[str, str]] = [
        {},
        {"X-API-KEY": ""},
        {"X-API-KEY": "wrong"},
        {"X-API-KEY": API_KEY[:-1]},
        {"X-API-KEY": API_KEY + "x"},
        {"X-API-KEY": "k\xe9y"},
        {"Authorization": f"Bearer {API_KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer not.a.token"},
        {"Authorization": f"Basic {token()['Authorization'][7:]}"},
        {"Authorization": f"Bearer {unsigned}"},
        token(secret="another secret that is long enough for it"),
        token(secret=JWT_SECRET + "-longer", algorithm="HS384"),
        token(exp=now - 120),
        token(nbf=now + 3600),
        token(mfaPending=True),
        token(sub=None),
        # A wrong key is not made good by a good token: Open Archiver looks at the key first.
        {"X-API-KEY": "wrong"} | token(),
    ]
    for headers in refused:
        answer = client.request("GET", path, headers)
        assert_message(answer, 401)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), headers


@pytest.mark.parametrize("path", PATHS)
def test_an_api_key_or_a_super_admins_token_opens_every_route(
    exporter: Exporter, path: str
) -> None:
    client = exporter.api.without_credentials()
    for headers in (
        {"X-API-KEY": API_KEY},
        token(),
        token(aud="open-archiver", mfaVerified=True, roles=["Auditor", "Super Admin"]),
        token(exp=int(time.time()) - 5),  # clocks differ
    ):
        assert client.request("GET", path, headers).status == 200, headers


def test_a_valid_credential_without_manage_all_is_forbidden(
    server: Server, start_exporter: StartExporter, tmp_path: Path
) -> None:
    config = tmp_path / "exporter.yml"
    config.write_text(
        "api:\n  keys:\n"
        "  - {name: reader, key: a-key-that-may-not-much, permissions: ['read:jobs']}\n"
        "  - {name: admin, key: a-key-that-may-do-all-xyz}\n"
    )
    exporter = start_exporter(server.url, "--config", str(config))
    client = exporter.api.without_credentials()
    for path in PATHS:
        for headers in (
            {"X-API-KEY": "a-key-that-may-not-much"},
            token(roles=["Auditor"]),
            token(roles=[]),
            token(roles=None),
            token(roles="Super Admin"),
        ):
            assert "manage:all" in assert_message(client.request("GET", path, headers), 403)
    headers = {"X-API-KEY": "a-key-that-may-do-all-xyz"}
    assert client.request("GET", QUEUES[0], headers).status == 200


def test_without_any_credential_configured_nobody_gets_in_and_the_log_says_how(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_KEY="", JWT_SECRET="")
    for headers in ({}, {"X-API-KEY": API_KEY}, token(), token(secret="x" * 40)):
        answer = exporter.api.without_credentials().request("GET", QUEUES[0], headers)
        assert_message(answer, 401)
    assert "EXPORTER_API_KEY" in exporter.log


def test_a_published_jwt_secret_opens_nothing_and_the_log_says_so(
    server: Server, start_exporter: StartExporter
) -> None:
    published = "a-very-secret-key-that-you-should-change"
    exporter = start_exporter(server.url, JWT_SECRET=published)
    client = exporter.api.without_credentials()
    assert_message(client.request("GET", QUEUES[0], token(secret=published)), 401)
    assert exporter.api.get(QUEUES[0]).status == 200
    [line] = [line for line in exporter.log.splitlines() if "JWT_SECRET" in line]
    assert '"warning"' in line
    assert "no token is accepted" in line
    assert published not in exporter.log


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
@pytest.mark.parametrize(
    ("secret", "warning"),
    [
        ("a-very-secret-key-that-you-should-change", "published"),
        ("a-very-secret-key", "published"),
        ("x" * 31, "less than 32 bytes"),
        ("x" * 32, None),
        ("é" * 16, None),
        ("", None),
    ],
)
def test_a_jwt_secret_that_is_known_or_short_is_warned_of(secret: str, warning: str | None) -> None:
    settings = load({}, {"JWT_SECRET": secret})
    lines = [line for line in harmful_settings(settings) if "JWT_SECRET" in line]
    assert len(lines) == (warning is not None)
    assert not secret or secret not in " ".join(lines)
    if warning:
        assert warning in lines[0]
    if not secret:
        return
    signed = token(secret=secret)
    credentials = Credentials(settings.api)
    if warning == "published":
        with pytest.raises(Unauthorized):
            credentials.holder(signed)
    else:  # one that is short works as before
        assert credentials.holder(signed).may_manage_all


@pytest.mark.parametrize(("password", "is_warned_of"), [("x" * 15, True), ("x" * 16, False)])
def test_a_short_password_of_the_metrics_is_warned_of(password: str, is_warned_of: bool) -> None:
    settings = load(
        {}, {"EXPORTER_METRICS_USER": "prometheus", "EXPORTER_METRICS_PASSWORD": password}
    )
    lines = [line for line in harmful_settings(settings) if "EXPORTER_METRICS_PASSWORD" in line]
    assert len(lines) == is_warned_of
    assert password not in " ".join(lines)


@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")
def test_a_short_jwt_secret_works_and_is_warned_of_in_one_line(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, JWT_SECRET="short-secret")
    client = exporter.api.without_credentials()
    assert client.request("GET", QUEUES[0], token(secret="short-secret")).status == 200
    [line] = [line for line in exporter.log.splitlines() if "32 bytes" in line]
    assert "JWT_SECRET" in line
    assert "InsecureKeyLengthWarning" not in exporter.log


def test_what_is_no_token_is_refused_however_it_is_written() -> None:
    """Before its content is parsed, unless the signature is right; then, whatever it holds."""
    credentials = Credentials(load({}, {"JWT_SECRET": JWT_SECRET}).api)

    def signed(header: bytes, payload: bytes) -> str:
        parts = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, payload))
        mac = hmac.digest(JWT_SECRET.encode(), parts, "sha256")
        return (parts + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()

    right, claims = b'{"alg":"HS256"}', b'{"sub":"u","roles":["Super Admin"]}'
    assert credentials.holder({"Authorization": f"bEARER  {signed(right, claims)} "}).may_manage_all
    for header, payload in (
        (b'{"alg":"none"}', claims),
        (b'{"alg":"HS512"}', claims),
        (b'{"alg":"HS256","crit":["x"],"x":1}', claims),
        (b'{"alg":"HS256","b64":false}', claims),
        (b"[" * 3000, claims),
        (b"", claims),
        (b"null", claims),
        (right, b"null"),
        (right, b"[]"),
        (right, b"[" * 3000),
        (right, b"\xff"),
        (right, b'{"sub":1,"roles":["Super Admin"]}'),
        (right, b'{"sub":"u","roles":["Super Admin"],"exp":1e999}'),
        (right, b'{"sub":"u","roles":["Super Admin"],"exp":"never"}'),
        (right, b'{"sub":"u","roles":["Super Admin"],"exp":' + b"9" * 5000 + b"}"),
        (right, b'{"sub":"u","roles":["Super Admin"],"nbf":1e999}'),
    ):
        with pytest.raises(Unauthorized):
            credentials.holder({"Authorization": f"Bearer {signed(header, payload)}"})
    whole = signed(right, claims)
    for made_up in (whole + "=", whole[:-1], "." + whole, whole + ".", f"{whole}\udcff", "..", "."):
        with pytest.raises(Unauthorized):
            credentials.holder({"Authorization": f"Bearer {made_up}"})
    # The last letter of a signature holds four bits; there is one way to write them.
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if letter != whole[-1]:
            with pytest.raises(Unauthorized):
                credentials.holder({"Authorization": f"Bearer {whole[:-1]}{letter}"})


@pytest.mark.parametrize(
    ("query", "parameter", "allowed"),
    [
        ("status=done", "status", "waiting-children"),
        ("status=", "status", "failed"),
        ("status=FAILED", "status", "failed"),
        ("status=failed&status=active", "status", "once"),
        ("page=0", "page", "from 1"),
        ("page=-1", "page", "from 1"),
        ("page=1.5", "page", "whole number"),
        ("page=%201", "page", "whole number"),
        ("page=1_0", "page", "whole number"),
        ("page=%D9%A1", "page", "whole number"),
        ("page=9999999999999999999999", "page", "to 1000000000"),
        ("limit=0", "limit", "from 1 to 1000"),
        ("limit=1001", "limit", "from 1 to 1000"),
        ("limit=ten", "limit", "from 1 to 1000"),
        ("order=down", "order", "asc, desc"),
    ],
)
def test_a_bad_parameter_is_refused_with_what_is_allowed(
    exporter: Exporter, query: str, parameter: str, allowed: str
) -> None:
    message = assert_message(exporter.api.get(f"{QUEUES[0]}/ingestion?{query}"), 400)
    assert parameter in message
    assert allowed in message


def test_a_path_may_be_percent_encoded_anywhere(exporter: Exporter) -> None:
    for path, encoded in (
        (f"{QUEUES[0]}/ingestion/jobs/7", "/v1/jobs/%71ueues/ingestion/%6aobs/%37"),
        (f"{QUEUES[1]}/ingestion/jobs/7", "/%61pi/v1/jobs/queues/ingestion/jobs/7"),
        ("/v1/jobs/keys/bull:ingestion:7", "/v1/j%6fbs/%6beys/bull%3Aingestion:%37"),
    ):
        plain = exporter.api.get(path)
        assert plain.status == 200
        assert exporter.api.get(encoded).json == plain.json
        # With the whole URL, as a proxy may ask.
        connection = http.client.HTTPConnection(urlsplit(exporter.api.url).netloc, timeout=60)
        with closing(connection):
            connection.request("GET", f"http://any{encoded}", headers=exporter.api.headers)
            assert json.loads(connection.getresponse().read()) == plain.json


def test_an_unknown_queue_path_or_method_is_refused_as_json(exporter: Exporter) -> None:
    for name in ("nothing", "a%3Ab", "%2F", "..%2f..", "%00", "%FF", "x" * 5000, "é"):
        path = f"{QUEUES[0]}/{quote(name, safe='%.')}"
        assert_message(exporter.api.get(path), 404)
    for path in (
        "/v1",
        "/v1/jobs",
        "/page",
        "/page/api.js",
        "/../api.py",
        "/v1/jobs/queues/",
        "/v1/jobs/queues/a/b",
        "/metrics",
    ):
        assert_message(exporter.api.get(path), 404)
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        answer = exporter.api.request(method, PATHS[1])
        assert "GET" in assert_message(answer, 405)
        assert answer.headers["Allow"] == "GET, HEAD"
    assert exporter.api.request("HEAD", PATHS[1]).status == 200


def test_pages_default_to_ten_failed_jobs_and_end_empty(exporter: Exporter) -> None:
    page = exporter.api.get(f"{QUEUES[1]}/ingestion").json
    assert [job["id"] for job in page["jobs"]] == [str(number) for number in range(10)]
    assert page["pagination"] == {"currentPage": 1, "totalPages": 3, "totalJobs": 25, "limit": 10}
    assert page["jobs"][0] == {
        "id": "0",
        "name": "process-mailbox",
        "data": {"ingestionSourceId": "source-0"},
        "state": "failed",
        "failedReason": "Error: Connection timed out",
        "timestamp": 1_700_000_000_000,
        "processedOn": 1_700_000_001_000,
        "finishedOn": 1_700_000_002_000,
        "attemptsMade": 5,
        "stacktrace": ["Error: Connection timed out\n    at connect"],
        "returnValue": None,
        "ingestionSourceId": "source-0",
        "error": "Error: Connection timed out",
    }
    last = exporter.api.get(f"{QUEUES[1]}/ingestion?page=3").json
    assert [job["id"] for job in last["jobs"]] == ["20", "21", "22", "23", "24"]
    for page_number in (4, 1_000_000_000):
        past = exporter.api.get(f"{QUEUES[1]}/ingestion?page={page_number}&limit=1000").json
        assert past["jobs"] == []
        assert past["pagination"]["totalJobs"] == 25


def test_answers_are_what_the_openapi_document_says(exporter: Exporter) -> None:
    answer = exporter.api.without_credentials().get("/openapi.json")
    assert answer.status == 200
    document = answer.json
    validate(document)
    stated = {
        f"{server['url'].rstrip('/')}{path}"
        for server in document["servers"]
        for path in document["paths"]
    }
    queue = f"{QUEUES[0]}/{{queueName}}"
    ours = (
        QUEUES[0],
        queue,
        f"{queue}/failures",
        f"{queue}/schedulers",
        f"{queue}/jobs/{{jobId}}",
        KEYS,
    )
    assert stated == {f"{prefix}{path}" for prefix in ("", "/api") for path in ours}

    def assert_fits(answer: Answer, template: str) -> None:
        responses = document["paths"][template]["get"]["responses"]
        response = responses[str(answer.status)]
        if "$ref" in response:
            response = document["components"]["responses"][response["$ref"].rpartition("/")[2]]
        schema = response["content"]["application/json"]["schema"]
        whole = {"components": document["components"]} | schema
        Draft202012Validator(whole).validate(answer.json)
        for name in response.get("headers", {}):
            assert name in answer.headers

    one = "/v1/jobs/queues/{queueName}"
    assert_fits(exporter.api.get(QUEUES[0]), QUEUES[0])
    assert_fits(exporter.api.get(f"{QUEUES[0]}?detail=true"), QUEUES[0])
    assert_fits(exporter.api.get(f"{QUEUES[0]}?detail=yes"), QUEUES[0])
    assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion?text=source-1"), one)
    assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion?detail=true"), one)
    assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion/failures?window=9999w"), f"{one}/failures")
    for job in ("7", "none"):
        assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion/jobs/{job}"), f"{one}/jobs/{{jobId}}")
        assert_fits(exporter.api.get(f"/v1/jobs/keys/bull:ingestion:{job}"), KEYS)
    assert_fits(exporter.api.get("/v1/jobs/keys/x"), KEYS)
    for status in document["components"]["schemas"]["Status"]["enum"]:
        assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion?status={status}"), one)
    assert_fits(exporter.api.get(f"{QUEUES[0]}/ingestion?page=x"), one)
    assert_fits(exporter.api.get(f"{QUEUES[0]}/nothing"), one)
    assert_fits(exporter.api.without_credentials().get(QUEUES[0]), QUEUES[0])


def test_what_the_document_allows_is_answered_and_what_it_does_not_is_refused(
    exporter: Exporter, tmp_path: Path
) -> None:
    """By schemathesis, which makes requests of the document and checks what comes back."""
    schemathesis = Path(sys.executable).with_name("st")
    command = [
        *(schemathesis, "run", f"{exporter.api.url}/openapi.json", "--no-color"),
        *("--header", f"X-API-KEY: {API_KEY}", "--max-examples", "40"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "Tested: 6" in done.stdout
    assert "a request failed" not in exporter.log


def test_an_address_that_asks_too_often_has_to_wait(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_RATE_LIMIT="5")
    remaining = []
    for number in range(5):
        answer = exporter.api.get(PATHS[0] if number % 2 else "/openapi.json")
        assert answer.status == 200
        assert answer.headers["RateLimit-Limit"] == "5"
        assert answer.headers["RateLimit-Policy"] == "5;w=60"
        assert 1 <= int(answer.headers["RateLimit-Reset"]) <= 60
        remaining.append(int(answer.headers["RateLimit-Remaining"]))
    assert remaining == [4, 3, 2, 1, 0]
    for path in (PATHS[0], "/openapi.json", "/nothing"):
        answer = exporter.api.get(path)
        assert_message(answer, 429)
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert answer.headers["RateLimit-Remaining"] == "0"
    # A second address has an allowance of its own.
    opener = urllib.request.build_opener(_From("127.0.0.2"))
    with opener.open(f"{exporter.api.url}/openapi.json") as response:
        assert response.headers["RateLimit-Remaining"] == "4"
    assert exporter.metrics.get("/metrics").status == 200


class _From(urllib.request.HTTPHandler):
    """Requests from one of this machine's other addresses."""

    def __init__(self, address: str) -> None:
        super().__init__()
        self._address = address

    def http_open(self, request: Any) -> Any:
        def connect(host: str, **options: Any) -> http.client.HTTPConnection:
            return http.client.HTTPConnection(host, source_address=(self._address, 0), **options)

        return self.do_open(connect, request)  # type: ignore[arg-type]


def test_a_hundred_requests_a_minute_are_allowed_by_default(
    server: Server, start_exporter: StartExporter
) -> None:
    exporter = start_exporter(server.url, EXPORTER_API_RATE_LIMIT="")
    assert exporter.api.get(PATHS[0]).headers["RateLimit-Limit"] == "100"


def test_browsers_of_other_origins_are_kept_out_unless_set(
    server: Server, start_exporter: StartExporter
) -> None:
    origin = {"Origin": "https://archive.example.org"}
    preflight = origin | {
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "x-api-key",
    }
    closed = start_exporter(server.url)
    assert (
        closed.api.request("GET", PATHS[0], origin).headers["Access-Control-Allow-Origin"] is None
    )
    assert_message(closed.api.request("OPTIONS", PATHS[0], preflight), 405)

    allowed = start_exporter(server.url, EXPORTER_API_CORS_ORIGINS=origin["Origin"])
    answer = allowed.api.request("GET", PATHS[0], origin)
    assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
    answer = allowed.api.without_credentials().request("OPTIONS", PATHS[0], preflight)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]
    assert "X-API-KEY" in answer.headers["Access-Control-Allow-Headers"].upper()
    other = allowed.api.request("GET", PATHS[0], {"Origin": "https://evil.example.org"})
    assert other.headers["Access-Control-Allow-Origin"] is None
    answer = allowed.api.without_credentials().request("GET", PATHS[0], origin)
    assert_message(answer, 401)
    assert answer.headers["Access-Control-Allow-Origin"] == origin["Origin"]


def test_every_answer_carries_the_security_headers(exporter: Exporter) -> None:
    for client in (exporter.api, exporter.api.without_credentials()):
        for path in (*PATHS, "/openapi.json", "/nothing"):
            headers = client.get(path).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cache-Control"] == "no-store"
            assert "default-src 'none'" in headers["Content-Security-Policy"]
            assert headers["Server"] == "bullmq-exporter"


def test_requests_are_counted_by_route_and_status(exporter: Exporter) -> None:
    exporter.api.get(PATHS[0])
    exporter.api.get(PATHS[3])
    exporter.api.get(f"{QUEUES[0]}/nothing")
    exporter.api.get("/a-path-of-nobody")
    counted: dict[tuple[str, ...], float] = {}

    def all_counted() -> bool:
        nonlocal counted
        counted = exporter.metrics.samples("bullmq_exporter_api_requests_total")
        return sum(counted.values()) == 4

    eventually(all_counted)
    assert counted == {
        ("/v1/jobs/queues", "200"): 1,
        ("/v1/jobs/queues/{queue}", "200"): 1,
        ("/v1/jobs/queues/{queue}", "404"): 1,
        ("other", "404"): 1,
    }


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/jobs/queues HTTP/1.1\r\nHost: x\r\nX-API-KEY: %b\x00\r\n\r\n" % API_KEY.encode(),
        b"GET /v1/jobs/queues HTTP/1.1\r\nHost: x\r\nX-API-KEY: %b\r\n\r\n" % (b"k" * 20_000),
        b"GET /%b" % (b"x" * MAX_LINE_BYTES),
        b"BREW /v1/jobs/queues HTTP/1.1\r\n\r\n",
    ],
)
def test_bytes_that_are_no_http_are_refused_and_leave_nothing_in_the_log(
    exporter: Exporter, request_bytes: bytes
) -> None:
    host, port = exporter.api.url.removeprefix("http://").split(":")
    before = exporter.log
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(request_bytes)
        assert connection.recv(100).startswith(b"HTTP/1.0 400 Bad Request\r\n")
    assert exporter.api.get(PATHS[0]).status == 200
    assert exporter.log == before


TEXT = st.text(max_size=30)
HEADER = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    path=st.sampled_from([*PATHS, "/openapi.json", f"{PATHS[1]}/failures", f"{PATHS[1]}/jobs/1"]),
    name=st.none() | TEXT,
    query=st.dictionaries(
        st.sampled_from(
            ["status", "page", "limit", "order", "prefix", "text", "window", "logsPage"]
        )
        | TEXT,
        st.sampled_from(["failed", "1", "1000", "desc"]) | TEXT,
        max_size=5,
    ),
    headers=st.dictionaries(
        st.sampled_from(
            ["X-API-KEY", "Authorization", "Accept", "Origin", "Accept-Encoding", "Range"]
        ),
        st.sampled_from([API_KEY, "Bearer x.y.z", "Bearer ", token()["Authorization"]]) | HEADER,
        max_size=4,
    ),
)
def test_no_query_and_no_header_makes_an_error_of_the_server(
    exporter: Exporter,
    path: str,
    name: str | None,
    query: dict[str, str],
    headers: dict[str, str],
) -> None:
    if name is not None and path != "/openapi.json":
        path = f"{path}/{quote(name, safe='')}"
    encoded = "&".join(
        f"{quote(key, safe='', errors='replace')}={quote(value, safe='', errors='replace')}"
        for key, value in query.items()
    )
    sent = {"X-API-KEY": API_KEY} | {
        key: value.strip().encode("latin-1", "replace").decode("latin-1")
        for key, value in headers.items()
    }
    answer = Client(exporter.api.url, {}).request("GET", f"{path}?{encoded}", sent)
    assert answer.status in (200, 400, 401, 404), answer
    assert isinstance(answer.json, dict)
    assert "a request failed" not in exporter.log

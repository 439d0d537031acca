"""What `api.redact` and `api.redact_values` hide, in whatever form an application wrote it."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.bullmq.jobs import parse_json
from exporter.settings import ValueKind
from exporter.web import redaction
from exporter.web.redaction import MAX_TEXT_LENGTH, TOO_LONG, VALUE_KINDS, Redaction
from tests.conftest import Server, StartExporter
from tests.test_fuzz import examples

SECRET = "hunter2"
BY_KEY = Redaction(["*password*"])
BY_VALUE = Redaction([], list(VALUE_KINDS))
TOKENS = Redaction(["*token*"])
QUEUES = "/v1/jobs/queues"


def dumped(value: Any, times: int) -> Any:
    for _ in range(times):
        value = json.dumps(value)
    return value


HIDDEN = [
    {"user": "bob", "password": SECRET},
    {"a": [{"PassWord": {"deep": [SECRET]}}]},
    *(dumped({"password": SECRET}, times) for times in (1, 2, 3, 6)),
    {"body": dumped({"password": SECRET}, 2)},
    *(
        f"{mark}{dumped({'password': SECRET}, 1)}"
        for mark in ("\ufeff", "\u200b", "\x00", "\u2060 ")
    ),
    *(
        "\u200b{\u200b" + dumped({"password": SECRET}, 1)[1:],
        "pass\u200bword: hunter2",
        "pass\x00word: hunter2",
    ),
    *({"\uff50assword": SECRET}, {"pass\u00adword": SECRET}, {" password\x00": SECRET}),
    # util.inspect
    *("{ user: 'bob', password: 'hunter2', a: [Object] }", "Map(1) { 'password' => 'hunter2' }"),
    "{\n  password:\n   'hunter2 and \\'more\\' hunter2' +\n    'hunter2',\n  x: 1 }",
    *("[ { name: 'password', value: 'hunter2' } ]", "{ [Symbol(password)]: 'hunter2' }"),
    # repr, and what other languages write
    *("{'user': 'bob', 'password': 'hunter2'}", "{'password': \"it's hunter2\", 'a': None}"),
    *(
        "('password', 'hunter2')",
        "Config(user='bob', password='hunter2')",
        "{b'password': b'hunter2'}",
    ),
    *('Config { password: Some("hunter2") }', "map[password:hunter2 user:bob]"),
    *(
        "array (\n  'password' => 'hunter2',\n)",
        '{:password=>"hunter2"}',
        "const password = `hunter2`;",
    ),
    # JSON5, and what is not quite JSON
    *(
        '{user: "bob", password: "hunter2",}',
        "/* c */ {password: hunter2}",
        "{'password': 'hunter2'",
    ),
    *(
        '{"a":{"password":"hunt hunter2',
        '{"my password!": "hunter2", x}',
        '{"a":1}\n{"password":"hunter2"}',
    ),
    '{"p\\u0061ssword": "hunter2", cut',
    # Names beside their values
    *(
        {"name": "password", "value": SECRET},
        {"value": SECRET, "key": "db-password", "n": {"x": SECRET}},
    ),
    *(
        ["password", SECRET],
        [["X-Password", SECRET]],
        ["--password", SECRET],
        {"args": ["--password", SECRET]},
    ),
    *(
        "oops {value: 'hunter2', name: 'password'} end",
        dumped([{"value": SECRET, "key": "password"}], 1),
    ),
    # Sentences
    *("Login failed, password=hunter2 user=bob", "Login failed: password: hunter2 is wrong"),
    *("password 'hunter2' is wrong", 'Bad body {"user":"b","password":"hunter2"} sent to x'),
    *(
        'Bad body {"a":"}","value":"hunter2","name":"password"} sent',
        'Bad: {"a":{"password":"hunt hunter2',
    ),
    *(
        'body "{\\"password\\":\\"hunter2\\"}" x',
        'body \\"password\\":\\"hun\\\\\\"ter2 hunter2\\" x',
    ),
    *("err p\\u0061ssword: hunter2", "q=p%61ssword%3Dhunter2", "&#112;assword: hunter2"),
    # Command lines, environments, URLs, XML, YAML, INI
    *("Command failed: mysql --password hunter2 -u bob", "mysql --password='hunter2 x' -u bob"),
    *("DB_PASSWORD=hunter2", "Server=x;Password=hunter2;User=y", "user=bob&password=hunter2"),
    *("GET https://x/?password=hunter2&a=1 failed", "X-Password: hunter2"),
    *("<a><password type='x'>hunter2</password></a>", "oops <password>hunter2</password> end"),
    *("<add value='hunter2' key='password'/>", "<key>password</key>\n<string>hunter2</string>"),
    *("db:\n  password: |\n    hunter2\n", "env:\n- name: DB_PASSWORD\n  value: hunter2\n"),
    *("passwords:\n  - hunter2\n  - hunter2\nother: 1", "password = hunter2 x hunter2\nuser = bob"),
    *("password: '''\nhunter2\n'''", "password: <Buffer 68 75>hunter2", "password: it's hunter2"),
]


@pytest.mark.parametrize("given_value", HIDDEN)
def test_the_value_of_a_key_is_hidden_in_each_form(given_value: Any) -> None:
    assert SECRET in dumped(given_value, 1)
    assert SECRET not in dumped(BY_KEY.value(given_value), 1)
    # Within a sentence, in a stack trace, in a log, in data, and written into another text.
    written = given_value if isinstance(given_value, str) else dumped(given_value, 1)
    for text in (
        f"Request failed with {written}",
        f"Error: {written}\n    at send (/app/send.js:1:2)\n    at node:internal/x:1:1",
        f"it's {written} isn't it",
        f"body: {dumped(written, 1)}",
    ):
        assert SECRET not in str(BY_KEY.text(text)), text
        assert SECRET not in dumped(BY_KEY.value({"log": [text, {"x": text}]}), 1), text


def inspected(value: Any) -> str:
    """About as util.inspect writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {inspected(each)}" for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[ " + ", ".join(map(inspected, value)) + " ]"
    return repr(value)


WRAPPINGS: tuple[Callable[[Any], Any], ...] = (
    json.dumps,
    lambda value: json.dumps(value, indent=2),
    repr,
    inspected,
    lambda value: f"\ufeff{value if isinstance(value, str) else json.dumps(value)}",
    lambda value: f"Error: got {value if isinstance(value, str) else inspected(value)} from bob",
    lambda value: {"headers": [["host", "x"]], "body": value},
    lambda value: [1, value, None],
)
# What stands in the way of a reader of quotes and brackets.
SECRETS = st.text("ab '\"\\{}[]()<>:=,;&\n\t`$é", min_size=1, max_size=6).map(
    lambda odd: f"{SECRET[:4]}{odd}{SECRET[4:]}"
)


@examples(400)
@given(
    secret=SECRETS,
    key=st.sampled_from(["password", "dbPassword", "x-password", "PASSWORDS", "new.password"]),
    in_pair=st.booleans(),
    wrappings=st.lists(st.sampled_from(WRAPPINGS), max_size=4),
)
def test_a_secret_is_hidden_however_its_job_is_written(
    secret: str, key: str, in_pair: bool, wrappings: list[Callable[[Any], Any]]
) -> None:
    value: Any = {"value": secret, "name": key} if in_pair else {"user": "bob", key: secret}
    for wrap in wrappings:
        value = wrap(value)
    raw = json.dumps(value).encode()
    for shown in (
        BY_KEY.value(parse_json(raw)),
        BY_KEY.text(value if isinstance(value, str) else ""),
    ):
        assert "hunt" not in json.dumps(shown), (value, shown)


SHOWN = (
    *("Unexpected token < in JSON at position 0", '"token" is required', "invalid token"),
    "TypeError: Cannot read properties of null (reading 'token')\n    at x (/app/token.js:12:5)",
    "Error: x\n    at login [as token] (/app/src/token.ts:1:2)\n    at async token (x.js:3:4)",
    'Traceback\n  File "/app/token.py", line 3, in token\n    raise',
    *(
        "JsonWebTokenError: jwt expired",
        "[info] started job 5: fine",
        "connect ECONNREFUSED 10.0.0.7:993",
    ),
    *("{ user: 'bob' }", "it's {x: 1} isn't", "[left out: 123 bytes]", "", " ", "é😀"),
)


@pytest.mark.parametrize("text", SHOWN)
def test_what_holds_no_value_of_a_key_is_shown_as_it_is(text: str) -> None:
    assert TOKENS.text(text) == text
    value = {"a": [text, 1, None, True, 1.5, {"b": {}}], "c": dumped({"x": text}, 2)}
    assert TOKENS.value(value) == value
    assert Redaction().value({"token": text}) == {"token": text}


def test_around_a_secret_the_rest_stays() -> None:
    assert BY_KEY.text("Login of bob failed, password=x, on mail.example") == (
        "Login of bob failed, password=[redacted] on mail.example"
    )
    assert BY_KEY.text('Bad body {"user":"bob","password":"x"} sent') == (
        'Bad body {"user":"bob","password":"[redacted]"} sent'
    )
    assert BY_KEY.value({"name": "password", "value": 1}) == {
        "name": "password",
        "value": "[redacted]",
    }
    trace = "Error: password: x\n    at f (/app/a.js:1:2)"
    assert BY_KEY.text(trace) == "Error: password:[redacted]\n    at f (/app/a.js:1:2)"


# SECURITY.md names these: a test that fails here asks for a change there.
NOT_COVERED = (
    *("the password is hunter2", "wrong password hunter2", "user,password\nbob,hunter2"),
    *({"columns": ["user", "password"], "rows": [["bob", SECRET]]}, {"cGFzc3dvcmQ=": SECRET}),
    *("value: hunter2\nname: password", "passwd: hunter2"),
)


@pytest.mark.parametrize("given_value", NOT_COVERED)
def test_what_the_document_says_is_not_covered_is_not(given_value: Any) -> None:
    assert SECRET in dumped(BY_KEY.value(given_value), 1)
    assert "api.redact" in Path("SECURITY.md").read_text()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:p@ss@host:1/0 x", "redis://[redacted]@host:1/0 x"),
        ("postgres://u:p/a@h/db", "postgres://[redacted]@h/db"),
        ("see https://a:b@x/?u=redis://:c@y", "see https://[redacted]@x/?u=redis://[redacted]@y"),
        ("https://s3/x?X-Amz-Signature=abc&y=1", "https://s3/x?X-Amz-Signature=[redacted]&y=1"),
        ("https://registry/@scope/p@1.0 http://h:80/a@b", None),
        ("mail bob@corp.example, x", "mail [redacted], x"),
        ("user@host.co.uk. bob%40corp.example", "[redacted]. [redacted]"),
        ("/node_modules/.pnpm/express@4.18.2/x.js", None),
        ("Authorization: Bearer abcdef123456", "Authorization: [redacted]"),
        ("Basic dXNlcjpwYXNz or Basic authentication", "[redacted] or Basic authentication"),
        ("eyJhbGciOi.eyJzdWIi.sig", "[redacted]"),
        ("ghp_0123456789abcdef0123 sk-only", "[redacted] sk-only"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x", "[redacted] x"),
        ("-----BEGIN PRIVATE KEY-----\nMII", "[redacted]"),
    ],
)
def test_values_are_hidden_by_what_they_look_like(text: str, shown: str | None) -> None:
    expected = text if shown is None else shown
    assert BY_VALUE.text(text) == expected
    assert BY_VALUE.value({text: [text, {"a": text}]}) == {expected: [expected, {"a": expected}]}
    assert Redaction().text(text) == text


def test_two_keys_that_are_hidden_stay_two() -> None:
    shown = BY_VALUE.value({"a@corp.example": 1, "b@corp.example": 2, "c": 3})
    assert list(shown.values()) == [1, 2, 3]


def test_the_kinds_of_values_are_those_of_the_setting() -> None:
    assert set(get_args(ValueKind)) == VALUE_KINDS.keys()


# What makes a reader go back, or look at the same again and again.
PARTS = (
    *(
        "token",
        "token ",
        "token:",
        "token: ",
        "token=",
        "token='",
        'token:"',
        'token:\\"',
        "token\n:",
    ),
    *(
        "token:{",
        "token:[\n",
        "{",
        "[",
        "{[(",
        "}",
        '{"a":',
        '{"a":"{"}',
        "{'",
        "['",
        "('",
        "{token",
    ),
    *(
        '"',
        "'",
        "`",
        "\\",
        '\\"',
        "\\'",
        '":',
        '" :',
        "':'",
        "a:",
        "a=",
        "-",
        "--",
        "--token ",
        "-a ",
    ),
    *(
        "<token>",
        "<",
        "<a",
        "</",
        "name=",
        "name=token ",
        "name: ",
        '"token",',
        "token',",
        "\n",
        " ",
    ),
    *("\n  ", "token:\n  a\n", "token: |\n", "\\u0074", "\\", "%74", "&#116;", "&#", "\u200b", "é"),
    *("eyJ", "eyJaaaaa.", "eyJ-", "Bearer ", "Bearer a", "Basic a", "sk-", "ghp_", "AKIA", "-----"),
    *(
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "-----END ",
        "@",
        "a@",
        "a@a.",
        "a@a",
        "a.",
        "%40",
    ),
    *(
        "://",
        "a://",
        "a://a@",
        "?token=",
        "&sig=",
        "?",
        "https://",
        "a@1.",
        "a@-",
        "x@y.z",
        "\uff20",
    ),
)


@pytest.mark.parametrize("begin", ["", '{"a": "', "token: {", "[{'x"])
def test_a_text_takes_a_time_that_grows_with_its_length_alone(begin: str) -> None:
    both = Redaction(["*token*", "?*pass*word*"], list(VALUE_KINDS))
    for number, part in enumerate(PARTS):
        for size in (2000, 8000, *([1 << 20] if not begin and not number % 6 else [])):
            text = begin + part * ((size - len(begin)) // len(part))
            steps = steps_of(lambda text=text: both.value(text))  # type: ignore[misc]
            # Calls of functions, also of those written in C, for each character.
            assert steps < 12 * len(text), (part, size)


def test_json_takes_no_more_time_than_is_allowed() -> None:
    most = redaction.MAX_VALUES
    many: tuple[Any, ...] = (
        ["a b"] * most,
        {f"{at}": 1 for at in range(most)},
        json.dumps([["token: x"]] * most),
    )
    for value in many:
        shown: list[Any] = []
        given_value = [value, {"token": SECRET, "body": f"token: {SECRET}"}]
        steps = steps_of(lambda given=given_value, to=shown: to.append(TOKENS.value(given)))  # type: ignore[misc]
        assert steps < 100 * most
        assert SECRET not in json.dumps(shown)


def steps_of(call: Callable[[], object]) -> int:
    """The functions that are called; fails where one of them, such as a search, never ends."""
    number = itertools.count()

    def count(_frame: object, event: str, _argument: object) -> None:
        if event in ("call", "c_call"):
            next(number)

    began = time.thread_time()
    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    # Not a measurement: what goes back over what it has read takes hours, all else a second.
    assert time.thread_time() - began < 60
    return next(number)


def test_no_expression_goes_back_over_what_it_has_read() -> None:
    """Each repetition without an end is possessive, or is all that its expression looks for."""
    expressions = [each for each in vars(redaction).values() if isinstance(each, re.Pattern)]
    assert len(expressions) > 20
    for expression in expressions:
        parsed = re._parser.parse(expression.pattern, expression.flags & ~re.UNICODE)  # type: ignore[attr-defined]
        assert len(parsed.data) == 1 or not goes_back(parsed), expression.pattern


def goes_back(parsed: Any) -> bool:
    constants = re._constants  # type: ignore[attr-defined]
    if isinstance(parsed, tuple | list) or hasattr(parsed, "data"):
        items = list(parsed.data if hasattr(parsed, "data") else parsed)
        if items and items[0] in (constants.MAX_REPEAT, constants.MIN_REPEAT):
            _, (_, most, inner) = items
            return most is constants.MAXREPEAT or goes_back(inner)
        return any(map(goes_back, items))
    return False


def test_a_text_that_is_too_long_to_look_through_is_hidden_whole() -> None:
    long = "x " * MAX_TEXT_LENGTH
    assert BY_KEY.text(f"{long}password: hunter2") == TOO_LONG
    assert BY_KEY.text(long) == long
    # A reading of JSON is not so limited.
    shown = BY_KEY.value(json.dumps({"a": long, "password": SECRET}))
    assert json.loads(shown) == {"a": long, "password": "[redacted]"}
    # The next job has its own allowance.
    assert BY_KEY.text("password: hunter2") == "password:[redacted]"


def test_every_way_out_hides_the_same(server: Server, start_exporter: StartExporter) -> None:
    secrets = ("hunter2", "bob@corp.example", "ghp_0123456789abcdef0123")
    with server.client() as client:
        client.hset("bull:mail:meta", "version", "bullmq:5.56.3")
        for number in range(3):
            # Another secret in each: the groups must not differ by them.
            text = f"password: hunter2{number} of x{number}bob@corp.example {secrets[2]}{number}"
            job = f"bull:mail:{number}"
            mapping = {
                "name": "import",
                "failedReason": text,
                "stacktrace": json.dumps([f"Error: {text}\n    at f (/app/a.js:1:2)", {"x": text}]),
                **{
                    field: json.dumps({"text": text, "body": dumped({"a": text}, 2)})
                    for field in ("data", "returnvalue", "opts", "progress")
                },
            }
            client.hset(job, mapping=mapping)
            client.zadd("bull:mail:failed", {f"{number}": 1_700_000_000_000 + number})
            client.rpush(f"{job}:logs", text, dumped({"password": "hunter2"}, 2))
            client.sadd(f"{job}:dependencies", f"bull:mail:{(number + 1) % 3}")
    exporter = start_exporter(
        server.url,
        EXPORTER_API_REDACT="*password*",
        EXPORTER_API_REDACT_VALUES="tokens, mail_addresses",
        EXPORTER_LOG_LEVEL="debug",
    )
    groups = exporter.api.get(f"{QUEUES}/mail/failures").json["groups"]
    assert [group["count"] for group in groups] == [3]
    fingerprint = groups[0]["fingerprint"]
    paths = ["mail", "mail?brief=true", "mail/failures", f"mail?fingerprint={fingerprint}"]
    paths += [f"mail/jobs/{number}" for number in range(3)]
    for path in paths:
        answer = exporter.api.get(f"{QUEUES}/{path}")
        assert answer.status == 200
        assert "[redacted]" in answer.text
        assert not [secret for secret in secrets if secret in answer.text], path
    assert exporter.api.get(f"{QUEUES}/mail/jobs/1").json["job"]["logs"]["total"] == 2
    assert (
        exporter.api.get(f"{QUEUES}/mail?fingerprint={fingerprint}").json["pagination"]["totalJobs"]
        == 3
    )
    for secret in secrets:
        assert exporter.api.get(f"{QUEUES}/mail?text={quote(secret)}").json["jobs"] == []
        assert secret not in exporter.log + exporter.metrics.get("/metrics").text

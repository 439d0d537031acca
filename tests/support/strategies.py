"""What Redis may hold of jobs, for Hypothesis."""

from __future__ import annotations

import json
import os
from typing import Any

import orjson
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from exporter.stores.bullmq.job_detail import MORE_FIELDS
from exporter.stores.bullmq.jobs import FIELDS

TIMES = float(os.environ.get("FUZZ_TIMES", "1"))


NOW = 1_700_000_000_000  # in the past, wherever this runs


def examples(number: int) -> Any:
    return settings(
        max_examples=max(1, int(number * TIMES)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def mostly(usual: st.SearchStrategy[Any], *odd: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The first three times out of four."""
    return st.integers(0, 3).flatmap(lambda at: st.one_of(*odd) if at == 3 else usual)


def seldom(odd: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """The first once in fifty times."""
    return st.integers(0, 49).flatmap(lambda at: odd if at == 49 else usual)


NUMBERS = st.sampled_from(
    [
        *(b"0", b"1", b"2", b"-1", b"1.5", b"1e3", b"1e308", b"-1e400", b"inf", b"-Infinity"),
        *(
            b"nan",
            b"-nan",
            b"0x7f",
            b"0x1a2182a2f00",
            b"1_000",
            b" 7 ",
            b"7\n",
            b"+7",
            b"",
            b"true",
            b"null",
        ),
        *(b"%d" % (NOW - 1000), b"%d" % (NOW + 10**12), b"%d.25" % NOW, b"-%d" % NOW),
        *(b"%d" % 2**number for number in (31, 32, 53, 63, 64, 200)),
        *(b"%d" % (2**number + 1) for number in (53, 63)),
        *(b"9" * digits for digits in (400, 4300, 4301, 10_000)),
        *("٣٤".encode(), "²".encode(), b"1\x00", b"\x00", b"\xff"),
    ]
)


LARGE = st.sampled_from(
    [b"x" * (1 << 20), b"x" * ((1 << 20) + 1), b'"%b"' % (b"y" * (3 << 20)), b"\xff" * 300_000]
)


RAW = st.binary(max_size=12) | st.text(max_size=12).map(
    lambda given: given.encode("utf-8", "surrogatepass")
)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["ingestionSourceId", "password", "a", "token", "delay", "backoff", "type", "count"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
).map(orjson.dumps)


ODD_JSON = st.sampled_from(
    [
        *(b"{}", b"[]", b"null", b'""', b"0", b"NaN", b'{"a": NaN}', b"[Infinity]", b"-", b"{"),
        *(b'"\\ud83d"', b'{"\\ud800": 1}', b'{"a": "\\ud83d", "b": NaN}', b'["\\udc00\\ud800"]'),
        *(b'{"a": 1, "a": 2}', b'"\\u0000"', b'"\x00"', b'"\xff"', b'"\xed\xa0\xbd"', b"1e400"),
        *(b'{"a": "{\\"password\\": 1}"}', b'{"a": "[\\"\\\\ud83d\\"]"}', b"\xef\xbb\xbf{}"),
        *(b'{"\\ud83d": %b}' % (b"9" * digits) for digits in (400, 10_000)),
        *('{"a": "\\ud83d"}'.encode(name) for name in ("utf-16", "utf-32", "utf-16-le")),
        b'{"ingestionSourceId": {"a": []}, "delay": 5, "backoff": {"type": "fixed", "delay": 1}}',
        b'{"delay": 1e308, "backoff": {"type": "exponential", "delay": -1e308}}',
        b'{"delay": "x", "backoff": {"type": 1, "delay": null}, "removeOnFail": {"count": 1e30}}',
        b'{"removeOnFail": 18446744073709551615, "removeOnComplete": {"count": true}, "delay": {}}',
    ]
)


@st.composite
def deep_json(draw: st.DrawFn) -> bytes:
    """Nested about as deep as one of the readers or writers on the way can go."""
    near = st.sampled_from([10, 100, 126, 240, 254, 300, 333, 500, 990, 1000, 1024, 2000])
    depth = max(1, draw(near) + draw(st.integers(-3, 3)))
    begin, end = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}"), (b'[{"token":', b"}]")]))
    depth //= len(end)
    inner = draw(st.sampled_from([b"1", b'"x"', b'"\\ud83d"', b"NaN", b"9" * 10_000, b""]))
    whole = begin * depth + inner + end * draw(st.sampled_from([depth, depth - 1, 0]))
    # A text within JSON is looked through as well.
    return draw(st.sampled_from([whole, json.dumps({"a": whole.decode()}).encode()]))


@st.composite
def broken_json(draw: st.DrawFn) -> bytes:
    whole = draw(JSON)
    at = draw(st.integers(0, len(whole)))
    return bytes(whole[:at] + draw(st.sampled_from([b"", b"\\ud83d", b"\xff", b"NaN", b'"'])))


DOCUMENT = seldom(LARGE, mostly(JSON, ODD_JSON, ODD_JSON, deep_json(), broken_json(), RAW))


REASONS = st.sampled_from(
    [
        b"Error: connect ECONNREFUSED 10.0.0.7:993",
        "Error: 'a' said \"no\" at ٣٤:٣٤ /a/b/c <x@y> é@é.é [::1]:²".encode(),
        b"getaddrinfo ENOTFOUND imap.example.org:99999 \\ud83d 5.5.5.5:99999 localhost:65536",
        *(
            part * 1500
            for part in (b"'", b"a.", b"a@", b"1:", b"::1 ", b"/a", b'"x" ', b"<a", b"-")
        ),
        *(part * 700 for part in (b"http://", b"0x0f", b"a-b_c.", b" at ", b"1.1.1.1.", b"[:")),
        b"a" * 5000,
    ]
)


TRACES = st.sampled_from(
    [
        [],
        ["Error: x\n    at async fetch (/app/src/imap.js:1:2)\n    at node:internal/x:1:1"],
        ['Traceback\n  File "/app/x.py", line 3, in work\n    raise'],
        ["    at (" * 4000],
        ["    at async " + "x" * 9000],
        ["    at f (a)\n" * 3000],
        ['  File "' * 3000],
        [1, None, {"a": []}],
        ["x", None],
        [["    at f (a)"]],
    ]
).map(orjson.dumps)


KEYS = st.sampled_from(
    [b"bull:sound:1", b"bull:eu:q:2", b"x", b":", b"", b"a:b:c:d", b"bull:\xff:"]
)


USUAL: dict[bytes, st.SearchStrategy[Any]] = {
    b"name": st.sampled_from([b"import", b"\xff", b"", b'"\\\n', b"n" * 300, "é".encode() * 150]),
    b"failedReason": REASONS,
    b"stacktrace": TRACES,
    b"parentKey": KEYS,
    b"pb": st.sampled_from([b"worker-1", b"\xff"]),
    **dict.fromkeys((b"data", b"returnvalue", b"opts", b"progress"), DOCUMENT),
}


ALL_FIELDS = tuple(name.encode() for name in (*FIELDS, *MORE_FIELDS, "ats"))


# Of a scheduler and of `meta`.
MORE_NAMES = (b"endDate", b"limit", b"ic", b"paused", b"version", b"opts.maxLenEvents", b"event")


FIELD = st.sampled_from([*ALL_FIELDS, *MORE_NAMES]) | RAW


ANYTHING = st.one_of(NUMBERS, DOCUMENT, RAW, REASONS)


HASH = st.dictionaries(FIELD, ANYTHING, min_size=1, max_size=6)


JOB = st.fixed_dictionaries(
    {},
    optional={name: mostly(USUAL.get(name, NUMBERS), ANYTHING) for name in ALL_FIELDS},
).map(lambda fields: fields or {b"name": b"import"})

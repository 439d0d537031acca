"""Failure reasons of one fault get one fingerprint, those of two faults never do."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.queues import reason_lines, reason_tokens, reason_values, reason_words
from exporter.queues.failure_reasons import MAX_LABEL_LENGTH, MAX_TEXT_LENGTH, fold
from tests.support.failure_reasons import corpus, count_pairs
from tests.support.paths import ROOT
from tests.support.strategies import examples

FAULTS = {**corpus("tuned"), **corpus("held_out")}
REASONS = [reason for reasons in FAULTS.values() for reason in reasons]


def fingerprint(reason: str) -> str:
    return fold(reason).fingerprint


def test_the_corpus_is_large_enough_to_say_something() -> None:
    assert len(REASONS) >= 1000
    assert len(set(REASONS)) == len(REASONS)
    assert sum(len(reasons) >= 4 for reasons in FAULTS.values()) >= 150


@pytest.mark.parametrize("part", ["tuned", "held_out"])
def test_less_than_2_percent_of_the_pairs_of_one_fault_are_split(part: str) -> None:
    pairs = count_pairs(corpus(part), fingerprint)
    assert pairs.of_one_fault > 150
    assert pairs.split / pairs.of_one_fault < 0.02


def test_no_two_faults_are_joined() -> None:
    faults: dict[str, set[str]] = {}
    for fault, reasons in FAULTS.items():
        for reason in reasons:
            faults.setdefault(fold(reason).text, set()).add(fault)
    assert [found for found in faults.values() if len(found) > 1] == []
    assert count_pairs(FAULTS, fingerprint).joined == 0


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("Card declined for cus_8812 (req_908zqqx65g)", "Card declined for <*> (<*>)"),
        ("Card declined for cus_17 (req_zqqxkwvbnh)", "Card declined for <*> (<*>)"),
        ("login of anna.b+x@corp.example refused", "login of <email> refused"),
        ("mailbox of <anna@corp.example> is full", "mailbox of <email> is full"),
        ("GET https://api.example.com/v1/x?y=1 timed out", "GET <url> timed out"),
        ("cannot read /var/mail/anna/1.eml", "cannot read <path>"),
        ("EPERM, open C:\\mail\\anna\\1.eml", "EPERM, open <path>"),
        ("getaddrinfo ENOTFOUND imap.corp.example", "getaddrinfo ENOTFOUND <host>"),
        ("connect ETIMEDOUT 2001:db8::5 (IMAP)", "connect ETIMEDOUT <host> (IMAP)"),
        ("source clx1y2z3a0000b4d2e5f6g7h8 is gone", "source <*> is gone"),
        ("no row 550e8400-e29b-41d4-a716-446655440000", "no row <*>"),
        ("Job 42 of 1,000 took 3.5s", "Job <*> of <*> took <*>"),
        ("Job 42 of 1,000 took 2 min 5 s", "Job <*> of <*> took <*>"),
        ("31.2 MB exceeds 25MiB", "<*> exceeds <*>"),
        ("charge of €12.50 refused", "charge of <*> refused"),
        ("charge of 12,50 EUR refused", "charge of <*> refused"),
        ("Retry after 2026-11-24T10:00:01.123Z", "Retry after <*>"),
        ("Retry after Tue, 24 Nov 2026 10:00:00 GMT", "Retry after <*>"),
        ("no answer from +49 (30) 901820", "no answer from <*>"),
        ("ids 12, 15 and 19 are unknown", "ids <*> are unknown"),
        ("gave up after 1 attempt", "gave up after <*> attempt"),
        ("gave up after 3 attempts", "gave up after <*> attempt"),
        ("bad token eyJhbGciOiJub25lIn0.e30.", "bad token <*>"),
        ("bad frame 16 03 01 00 a5", "bad frame <*>"),
        ("cannot decode %E4%BD%A0%E5%A5%BD", "cannot decode <*>"),
        ("\x1b[31mread ECONNRESET\x1b[39m", "read ECONNRESET"),
        ("订单 \uff12\uff10\uff12\uff16 支付失败", "订单 <*> 支付失败"),
        ("الطلب رقم ٨٨١٢", "الطلب رقم <*>"),
        ("two\n  lines", "two lines"),
        ("can't reach it, won't retry", "can't reach it, won't retry"),
        ("\ud800 is no text", "? is no text"),
        ("", ""),
    ],
)
def test_what_differs_from_job_to_job_is_folded(reason: str, text: str) -> None:
    assert fold(reason).text == text


@pytest.mark.parametrize(
    "text",
    [
        "connect ECONNREFUSED <host>:993",
        "connect ECONNREFUSED <host>:5432",
        "Request failed with status code 401",
        "HTTP 503",
        "429 Too Many Requests",
        "535-5.7.8 Username and Password not accepted",
        "exited with code 137",
        "SQLSTATE[23000]: Integrity constraint violation: 1062 Duplicate entry",
        "E11000 duplicate key",
        "P2002: unique constraint failed",
        '{"error":{"code":403,"message":"Not you"}}',
        "Cannot read properties of undefined (reading 'length')",
        "'NoneType' object has no attribute 'decode'",
        'violates unique constraint "users_email_key"',
        "Unknown column 'total' in it",
        "No module named 'psycopg2'",
        'select "id" from "mails" where "id" = <*>',
        "sha256 of S3 object in utf-8",
        "a-rather-long-name-of-a-thing and/or another",
    ],
)
def test_what_distinguishes_faults_stays(text: str) -> None:
    assert fold(text).text == text


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (
            "Traceback (most recent call last):\n"
            "  File \"/a/w.py\", line 4, in run\n    go()\nKeyError: 'total'",
            "KeyError: 'total'",
        ),
        (
            "a.B: it failed\n\tat a.C.d(C.java:1)\nCaused by: a.E: no\n\t... 3 more\n"
            "Caused by: java.net.ConnectException: Connection refused\n\tat x",
            "a.B: it failed Caused by: java.net.ConnectException: Connection refused",
        ),
        ("Error: x\n    at a (/app/a.js:1:1)\n    at b (b.js:2:2)", "x"),
        ("PDOException: no in /a/b.php:7\nStack trace:\n#0 {main}", "PDOException: no in <path>"),
        ("it is\nDETAIL:  Key (email)=(anna) exists.\nHINT:  No.", "it is"),
        (
            "<!DOCTYPE html><html><head><title>502 Bad\nGateway</title></head>"
            "<body><h1>Sorry</h1>ray 8f2a71c9</body></html>",
            "502 Bad Gateway",
        ),
        (
            "<html><body><h1>503 <b>Service</b> Unavailable</h1></body></html>",
            "503 Service Unavailable",
        ),
        ('{\n  "error": {\n    "code": 403\n  }\n}', '{"error":{"code":403}}'),
    ],
)
def test_of_many_lines_those_count_that_say_what_failed(reason: str, text: str) -> None:
    assert fold(reason).text == text


def test_a_traceback_that_is_cut_off_at_its_beginning_still_ends_with_its_exception() -> None:
    frames = '  File "/a/w.py", line 4, in run\n    go()\n' * 1000
    reason = f"Traceback (most recent call last):\n{frames}ValueError: no"
    assert fold(reason).text == "ValueError: no"


def test_a_fingerprint_is_the_same_for_all_time() -> None:
    assert fingerprint("Card declined for cus_8812 (req_908zqqx65g)") == "cf56a33c2570"


def test_every_process_folds_alike() -> None:
    program = (
        "from exporter.queues.failure_reasons import fold\n"
        "from tests.support.failure_reasons import corpus\n"
        "for part in ('tuned', 'held_out'):\n"
        "    for reasons in corpus(part).values():\n"
        "        for reason in reasons: print(fold(reason).label, fold(reason).fingerprint)"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8"},
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == len(REASONS)


def assert_holds(reason: str) -> None:
    folded = fold(reason)
    assert len(folded.text) <= MAX_TEXT_LENGTH
    assert len(folded.label) <= MAX_LABEL_LENGTH
    assert folded.text.isprintable()
    folded.text.encode()
    assert re.fullmatch("[0-9a-f]{12}", folded.fingerprint)


@examples(300)
@given(st.text(max_size=600))
def test_any_text_can_be_folded(reason: str) -> None:
    assert_holds(reason)


SIGNS = st.sampled_from(
    [*"""'"`«»“”„<>()[]{}=:;,./\\@%#$€*-_+ \n\t1a""", "٣", "\uff11", "ﷺ", "\ud800"]
)
SNIPPETS = st.sampled_from(
    ["<*>", "<host>", "status", '"code":', "Traceback (most recent call last):\n", "<html>", "EUR"]
)


@examples(300)
@given(st.lists(SIGNS | SNIPPETS, max_size=120).map("".join))
def test_any_signs_can_be_folded(reason: str) -> None:
    assert_holds(reason)


@examples(200)
@given(st.sampled_from(REASONS), st.sampled_from(REASONS), st.integers(0, 400))
def test_any_part_of_reasons_can_be_folded(first: str, second: str, at: int) -> None:
    assert_holds(first[at:] + second[:at])


def test_what_was_folded_is_of_the_same_group() -> None:
    for reason in REASONS:
        folded = fold(reason)
        assert fold(folded.text) == folded, reason


SECRETS = st.one_of(
    # As mail servers give them out; RFC 5322 also allows `{@example.org`.
    st.from_regex(r"[a-z0-9][a-z0-9.+_-]{0,20}@([a-z0-9-]{1,12}\.){1,3}[a-z]{2,8}", fullmatch=True),
    st.uuids().map(str),
    st.from_regex(r"eyJ[A-Za-z0-9]{20}\.eyJ[A-Za-z0-9]{20}\.[A-Za-z0-9_-]{30}", fullmatch=True),
    st.from_regex(r"(sk|pk)_(live|test)_[A-Za-z0-9]{24}", fullmatch=True),
    st.from_regex(
        r"https://[a-z]{3,12}\.example/[a-z0-9]{4,20}\?token=[a-z0-9]{8}", fullmatch=True
    ),
)
PLACES = (
    "{} failed",
    "Cannot reach {}: no",
    "user={}",
    "it is ({})",
    '{{"to":"{}"}}',
    "'{}' is bad",
)


@examples(300)
@given(SECRETS, st.sampled_from(PLACES))
def test_addresses_and_tokens_are_not_in_a_folded_text(secret: str, place: str) -> None:
    assert secret not in fold(place.format(secret)).text


def patterns(module: ModuleType) -> Iterator[re.Pattern[str]]:
    for value in vars(module).values():
        for each in value if isinstance(value, tuple) else (value,):
            if isinstance(each, re.Pattern):
                yield each


def unbounded_within_unbounded(parsed: Any, inside: bool = False) -> Iterator[str]:
    """Repetitions without a bound in others, which may take exponential time if they backtrack."""
    for operation, argument in parsed:
        name = str(operation)
        if name in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            _, most, body = argument
            unbounded = most is re._constants.MAXREPEAT  # type: ignore[attr-defined]
            backtracks = unbounded and name != "POSSESSIVE_REPEAT"
            if backtracks and inside:
                yield name
            yield from unbounded_within_unbounded(body, inside or unbounded)
        elif name == "BRANCH":
            for branch in argument[1]:
                yield from unbounded_within_unbounded(branch, inside)
        elif name in ("SUBPATTERN", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT"):
            body = argument if name == "ATOMIC_GROUP" else argument[-1]
            yield from unbounded_within_unbounded(body, inside)


def test_no_pattern_can_take_exponential_time() -> None:
    found = [
        pattern.pattern
        for module in (reason_lines, reason_tokens, reason_values, reason_words)
        for pattern in patterns(module)
        if [*unbounded_within_unbounded(re._parser.parse(pattern.pattern, pattern.flags))]  # type: ignore[attr-defined]
    ]
    assert found == []

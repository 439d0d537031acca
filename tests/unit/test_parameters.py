"""Parameters of requests: what is not allowed is named, and what is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from exporter.web.parameters import (
    MAX_TEXT_LENGTH,
    choice,
    duration,
    parameter,
    raw_parameter,
    raw_rest,
    short_text,
    whole_number,
)
from exporter.web.responses import BadRequest


def asked(query: str) -> web.Request:
    return make_mocked_request("GET", f"/v1/jobs?{query}")


def refused(read: Callable[..., Any], query: str, *arguments: Any) -> str:
    with pytest.raises(BadRequest) as raised:
        read(asked(query), *arguments)
    return str(raised.value)


def test_a_parameter_is_given_once_at_most() -> None:
    assert parameter(asked(""), "name") is None
    assert parameter(asked("name="), "name") == ""
    assert parameter(asked("name=a+b%2Bc&other=1"), "name") == "a b+c"
    assert "2 times" in refused(parameter, "name=a&name=a", "name")
    assert "2 times" in refused(raw_parameter, "id=a&%69d=b", "id")


@pytest.mark.parametrize(
    ("query", "raw"),
    [
        ("id=a%FFb", b"a\xffb"),
        ("id=%00", b"\0"),
        ("id=a+b", b"a b"),
        ("id=a%2Bb", b"a+b"),
        ("%69d=a", b"a"),
        ("other=%FF&id=a=b", b"a=b"),
        ("id=", b""),
        ("other=1", None),
    ],
)
def test_bytes_that_are_not_utf_8_come_through(query: str, raw: bytes | None) -> None:
    assert raw_parameter(asked(query), "id") == raw


async def test_the_end_of_a_path_may_be_any_bytes_and_hold_slashes() -> None:
    read: list[bytes] = []

    async def note(request: web.Request) -> web.Response:
        read.append(raw_rest(request))
        return web.Response()

    app = web.Application()
    app.router.add_get("/v1/jobs/queues/{queue}/jobs/{id:.+}", note)
    app.freeze()
    for end in ("42", "a%2Fb", "a/b", "%FF", "%2F%2F", "a+b"):
        request = make_mocked_request("GET", f"/v1/jobs/queues/a%2Fb/jobs/{end}", app=app)
        match = await app.router.resolve(request)
        request._match_info = match
        await note(request)
    assert read == [b"42", b"a/b", b"a/b", b"\xff", b"//", b"a+b"]


def test_a_choice_is_one_of_those_allowed() -> None:
    allowed = ["asc", "desc"]
    assert choice(asked(""), "order", allowed, "asc") == "asc"
    assert choice(asked("order=desc"), "order", allowed, "asc") == "desc"
    for wrong in ("order=", "order=ASC", "order=asc%20"):
        assert refused(choice, wrong, "order", allowed, "asc") == "order must be one of asc, desc"


def test_a_number_is_whole_and_within_its_limits() -> None:
    assert whole_number(asked(""), "page", 3, 10) == 3
    for given, number in (("1", 1), ("10", 10), ("007", 7)):
        assert whole_number(asked(f"page={given}"), "page", 3, 10) == number
    wrong = ("", "0", "11", "-1", "%2B1", "1.0", "1e1", "%D9%A3", "1_0", "%201", "9" * 13)
    for given in wrong:
        message = refused(whole_number, f"page={given}", "page", 3, 10)
        assert message == "page must be a whole number from 1 to 10"


def test_a_duration_has_a_number_and_a_unit() -> None:
    assert duration(asked(""), "window") is None
    for given, seconds in (("30s", 30), ("90m", 5400), ("24h", 86_400), ("7d", 604_800)):
        assert duration(asked(f"window={given}"), "window") == seconds
    assert duration(asked("window=99999w"), "window") == 99_999 * 604_800
    for given in ("", "0h", "24", "h", "1.5h", "-1h", "1H", "1h30m", "123456s", "%D9%A3h"):
        assert "such as 30m, 24h or 7d" in refused(duration, f"window={given}", "window")


def test_a_text_is_bounded_and_no_text_is_none() -> None:
    assert short_text(asked("text="), "text") is None
    assert short_text(asked(""), "text") is None
    longest = "é" * MAX_TEXT_LENGTH
    assert short_text(asked(f"text={longest}"), "text") == longest
    assert str(MAX_TEXT_LENGTH) in refused(short_text, f"text={longest}x", "text")

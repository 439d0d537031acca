"""What a server sends to a subscriber, and what Bull's messages say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.stores.bull.events.frames import (
    MAX_KEPT_BYTES,
    ErrorReply,
    Frame,
    FrameParser,
    InvalidFrame,
    Text,
)
from exporter.stores.bull.events.messages import (
    STALLED_REASON,
    Heard,
    split_channel,
    understand,
)
from exporter.stores.bull.events.subscription import pattern_of


def bulk(*texts: bytes, kind: bytes = b"*") -> bytes:
    items = b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)
    return b"%b%d\r\n%b" % (kind, len(texts), items)


def parsed(data: bytes, size: int) -> list[Frame]:
    parser = FrameParser()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return [frame for piece in pieces for frame in parser.feed(piece)]


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 1 << 16, 1 << 20])
def test_frames_are_complete_however_they_arrive(size: int) -> None:
    data = (
        b"*3\r\n$10\r\npsubscribe\r\n$6\r\nbull:*\r\n:1\r\n"
        + bulk(b"pmessage", b"bull:*", b"bull:q:completed", b"a\r\n$5\r\nb", kind=b">")
        + bulk(b"pmessage", b"bull:*", b"bull:q:progress", b"")
        + b"-NOPERM no\r\n+PONG\r\n"
        + bulk(b"pong", b"")
    )
    assert parsed(data, size) == [
        [Text(b"psubscribe"), Text(b"bull:*"), Text(b"1")],
        [Text(b"pmessage"), Text(b"bull:*"), Text(b"bull:q:completed"), Text(b"a\r\n$5\r\nb")],
        [Text(b"pmessage"), Text(b"bull:*"), Text(b"bull:q:progress"), Text(b"")],
        ErrorReply("NOPERM no"),
        [Text(b"PONG")],
        [Text(b"pong"), Text(b"")],
    ]


@pytest.mark.parametrize("size", [1000, 1 << 16, 1 << 20])
@pytest.mark.parametrize("beyond", [0, 1, 2, 5, 3 << 20])
def test_of_a_long_text_only_the_beginning_is_kept(size: int, beyond: int) -> None:
    long = b"x" * MAX_KEPT_BYTES + b"\n" * beyond
    data = bulk(b"pmessage", b"p", long, b"text") + bulk(b"pmessage", b"p", b"c", long) * 2
    kept = Text(long[:MAX_KEPT_BYTES], is_whole=not beyond)
    last = [Text(b"pmessage"), Text(b"p"), Text(b"c"), kept]
    first = [Text(b"pmessage"), Text(b"p"), kept, Text(b"text")]
    assert parsed(data + b"+PONG\r\n", size) == [first, last, last, [Text(b"PONG")]]


def test_what_is_dropped_takes_no_memory() -> None:
    parser = FrameParser()
    parser.feed(b"*1\r\n$%d\r\n" % (1 << 30))
    for _ in range(100):
        parser.feed(b"x" * (1 << 16))
        assert len(parser._data) <= MAX_KEPT_BYTES + (1 << 16) + 20


@given(st.binary(max_size=200), st.integers(1, 50))
def test_what_is_no_reply_is_refused_or_incomplete(data: bytes, size: int) -> None:
    try:
        frames = parsed(data, size)
    except InvalidFrame:
        return
    assert all(isinstance(frame, list | ErrorReply) for frame in frames)


@pytest.mark.parametrize(
    "data",
    [
        *(b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"*1000000\r\n", b"*0\r\n", b"$-1\r\n"),
        *(b"*-1\r\n", b"*1\r\n*1\r\n", b"%1\r\n", b"$99999999999\r\n", b"+" + b"x" * 2000),
    ],
)
def test_this_is_no_frame(data: bytes) -> None:
    with pytest.raises(InvalidFrame):
        FrameParser().feed(data)


@pytest.mark.parametrize(
    ("channel", "base", "kind"),
    [
        (b"bull:jobs:completed", b"bull:jobs:", b"completed"),
        (b"bull:a:b:waiting@0b1-2", b"bull:a:b:", b"waiting"),
        (b"bull:jobs:stalled@", b"bull:jobs:", b"stalled"),
        (b"nothing", b"", b"nothing"),
    ],
)
def test_a_channel_names_the_queue_and_the_kind(channel: bytes, base: bytes, kind: bytes) -> None:
    assert split_channel(channel) == (base, kind)


@pytest.mark.parametrize(
    ("kind", "payload", "heard"),
    [
        ("waiting", "5", Heard(b"waiting", b"5")),
        ("active", "a:b", Heard(b"active", b"a:b")),
        ("stalled", "", None),
        ("delayed", "1795500000000", Heard(b"delayed", due=1_795_500_000_000)),
        ("delayed", "1795500000000.0012", Heard(b"delayed", due=1_795_500_000_000)),
        ("delayed", "nan", None),
        ("delayed", "1e300", None),
        ("delayed", "-1", None),
        ("progress", "5", None),
        ("completed", '{"jobId":"5","val":{"jobId":"6"}}', Heard(b"completed", b"5")),
        ("completed", '{"jobId":5,"val":null}', Heard(b"completed", b"5")),
        ("completed", '{"jobId":"a\\"b✉"}', Heard(b"completed", 'a"b✉'.encode())),
        ("completed", '{"val":1}', None),
        ("completed", "no", None),
        ("completed", '{"jobId":"\\x"}', None),
        ("failed", '{"jobId":"5","val":"no"}', Heard(b"failed", b"5", reason=b"no")),
        ("failed", '{"jobId":"5"}', Heard(b"failed", b"5")),
        ("failed", '{"jobId":"5","val":7}', Heard(b"failed", b"5")),
        (
            "failed",
            '{"jobId":"a"b", "val": "job stalled more than maxStalledCount"}',
            Heard(b"failed", b'a"b', reason=STALLED_REASON),
        ),
    ],
)
def test_a_message_says_this(kind: str, payload: str, heard: Heard | None) -> None:
    assert understand(kind.encode(), Text(payload.encode())) == heard


def test_the_job_of_a_long_message_is_known_and_its_reason_is_not() -> None:
    payload = json.dumps({"jobId": "5", "val": "x" * 100}).encode()[:50]
    assert understand(b"completed", Text(payload, False)) == Heard(b"completed", b"5")
    assert understand(b"failed", Text(payload, False)) == Heard(b"failed", b"5")
    assert understand(b"waiting", Text(b"5" * 50, False)) is None


@given(st.sampled_from(["completed", "failed", "delayed", "waiting"]), st.binary(max_size=100))
def test_no_message_is_beyond_understanding(kind: str, payload: bytes) -> None:
    heard = understand(kind.encode(), Text(payload))
    assert heard is None or heard.kind == kind.encode()


def test_a_pattern_is_literal_but_for_its_end() -> None:
    assert pattern_of("bull") == "bull:*"
    assert pattern_of("{bull}") == "{bull}:*"
    assert pattern_of("b*[?]\\") == "b\\*\\[\\?\\]\\\\:*"

"""Names of queues and keys of jobs: both may contain colons."""

from __future__ import annotations

import pytest

from exporter.queues.queue import MAX_QUEUE_KEY_BYTES, JobKey, Queue, queues_of_key

MAIL = Queue.named("bull", "mail")
SALES = Queue.named("bull", "sales:cancel")
OTHER = Queue.named("bull:sales", "cancel")


def by_key(*queues: Queue) -> dict[str, Queue]:
    return {f"{queue.prefix}:{queue.name}": queue for queue in queues}


def test_a_queue_has_its_raw_name_whatever_bytes_it_is_of() -> None:
    for name in ("mail", "", "a:b", "{tag}", "é", "x" * 300):
        queue = Queue.named("bull:é", name)
        assert queue.raw_name == name.encode()
        assert queue.job_key(b"1:2") == b"bull:\xc3\xa9:%b:1:2" % name.encode()
    odd = Queue.named("bull", b"\xff\x00")
    assert (odd.raw_name, odd.name) == (b"\xff\x00", "\\xff\x00")


def test_the_longest_queue_of_a_key_comes_first() -> None:
    known = by_key(MAIL, SALES, Queue.named("bull", "sales"))
    assert list(queues_of_key(b"bull:sales:cancel:7", known)) == [
        (SALES, b"7"),
        (known["bull:sales"], b"cancel:7"),
    ]
    assert list(queues_of_key(b"bull:mail:a:b:c", known)) == [(MAIL, b"a:b:c")]
    assert list(queues_of_key(b"bull:mail:", known)) == [(MAIL, b"")]
    odd, plain = Queue.named("bull", "a:"), Queue.named("bull", "a")
    assert list(queues_of_key(b"bull:a::7", by_key(odd, plain))) == [(odd, b"7"), (plain, b":7")]
    for nothing in (b"", b":", b"bull", b"bull:", b"bull:unknown:1", b"mail:1"):
        assert list(queues_of_key(nothing, known)) == []


def test_a_key_of_a_million_colons_is_looked_through_at_its_beginning_only() -> None:
    assert list(queues_of_key(b"bull:mail" + b":" * 1_000_000, by_key(MAIL))) == [
        (MAIL, b":" * 999_999)
    ]
    far = Queue.named("bull", "x" * MAX_QUEUE_KEY_BYTES)
    known = {far.base[:-1].decode(): far}
    assert list(queues_of_key(far.job_key(b"1"), known)) == []


@pytest.mark.parametrize(
    ("key", "prefixes", "queues", "parts"),
    [
        # Of a queue that is known, its own prefix and name.
        (b"bull:sales:cancel:7", ["bull"], [SALES], ("bull", "sales:cancel", b"7")),
        (b"bull:sales:cancel:7", ["bull", "bull:sales"], [OTHER], ("bull:sales", "cancel", b"7")),
        # Of others the longest prefix that fits, and a name without a colon.
        (b"bull:sales:cancel:7", ["bull"], [], ("bull", "sales", b"cancel:7")),
        (b"bull:sales:cancel:7", ["bull", "bull:sales"], [], ("bull:sales", "cancel", b"7")),
        (b"bullet:mail:7", ["bull"], [], ("bullet", "mail", b"7")),
        (b"other:mail:7:8", [], [], ("other", "mail", b"7:8")),
        # What is no key has parts all the same.
        (b"bull:mail", ["bull"], [], ("bull", "mail", b"")),
        (b"", [], [], ("", "", b"")),
        (b"\xff:\xfe:\xfd", [], [], ("\\xff", "\\xfe", b"\xfd")),
    ],
)
def test_the_parts_of_a_key(
    key: bytes, prefixes: list[str], queues: list[Queue], parts: tuple[str, str, bytes]
) -> None:
    assert JobKey.parsed(key, prefixes, by_key(*queues)) == parts

"""What a single value may be, and what is said where it is something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.settings import Address, load
from tests.support.settings import error_of, error_of_file, from_file, value_of


@pytest.mark.parametrize(
    ("given_address", "address", "shown"),
    [
        (":9538", Address("", 9538), ":9538"),
        ("127.0.0.1:0", Address("127.0.0.1", 0), "127.0.0.1:0"),
        ("localhost:65535", Address("localhost", 65535), "localhost:65535"),
        ("[::1]:9538", Address("::1", 9538), "[::1]:9538"),
        ("[::]:9538", Address("::", 9538), "[::]:9538"),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1), "[fe80::1%eth0]:1"),
        (" :1 ", Address("", 1), ":1"),
    ],
)
def test_an_address_to_listen_on(
    given_address: str, address: Address, shown: str, tmp_path: Path
) -> None:
    for path in ("metrics.listen", "api.listen"):
        assert value_of(load({path: given_address}, {}), path) == address
        section = path.split(".")[0]
        text = f"{section}: {{listen: '{given_address}'}}"
        assert value_of(from_file(tmp_path, text), path) == address
    assert str(address) == shown


@pytest.mark.parametrize(
    "wrong",
    ["9538", "::1:9538", "[::1]", "[]:1", "[zz]:1", "[1.2.3.4]:1", "h:65536", "h:-1", "h:", "h:٣"],
)
def test_an_address_that_is_none_is_refused_with_examples(wrong: str) -> None:
    message = error_of({}, {"metrics.listen": wrong})
    assert message.startswith("--metrics-listen: must be HOST:PORT with a port from 0 to 65535")
    assert "127.0.0.1:9538 or [::1]:9538" in message
    assert message.endswith("[::1]:9538")  # what is wrong may be a key


@pytest.mark.parametrize("value", ["['', 3]", "{host: a, port: 3}", "[a, 99999]"])
def test_an_address_is_text_and_nothing_else(value: str, tmp_path: Path) -> None:
    assert "must be HOST:PORT" in error_of_file(tmp_path, f"api: {{listen: {value}}}")


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("REDIS_PORT", "abc", "must be a whole number, not 'abc'"),
        ("REDIS_PORT", "1.5", "must be a whole number"),
        pytest.param("REDIS_PORT", "9" * 5000, "must be a whole number", id="5,000 digits"),
        ("REDIS_TLS_ENABLED", "maybe", "must be true or false, not 'maybe'"),
        ("EXPORTER_POLL_INTERVAL", "5s", "must be a number, not '5s'"),
        ("EXPORTER_POLL_INTERVAL", "nan", "must be at "),
        ("EXPORTER_POLL_INTERVAL", "inf", "must be at most 3600"),
        ("EXPORTER_POLL_INTERVAL", "-inf", "must be at least 0.1"),
        ("EXPORTER_LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ("EXPORTER_LOG_FORMAT", "xml", "must be 'logfmt' or 'json', not 'xml'"),
        ("EXPORTER_PREFIX", "bull:", "ends in a colon"),
        ("EXPORTER_PREFIX", ",", "must not be empty"),
        ("EXPORTER_API_CORS_ORIGINS", "https://a/b", "without a path"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "1,0.5", "in increasing order"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.5,0.5", "in increasing order"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.0015", "in whole milliseconds"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.0001", "must be at least 0.001"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "nan", "must be "),
        ("EXPORTER_EVENTS_PROCESS_BUCKETS", ",", "must not be empty"),
        ("REDIS_HOST", "\udcff", "is not UTF-8 text"),
        ("REDIS_PASSWORD", "\udcff", "is not UTF-8 text"),
    ],
)
def test_a_variable_with_a_wrong_value_is_named_with_what_is_allowed(
    variable: str, value: str, expected: str
) -> None:
    message = error_of({variable: value})
    assert message.startswith(variable)
    assert expected in message
    assert len(message) < 200


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "0", "x", ""])
def test_a_poll_interval_that_is_no_time_is_refused(value: str) -> None:
    assert error_of({}, {"poll_interval": value}).startswith("--poll-interval: must be ")


@pytest.mark.parametrize(
    ("text", "queues"),
    [
        ("queues: 'a, b'", ("a", "b")),
        ("queues: a,b", ("a", "b")),
        ("queues: [a, b]", ("a", "b")),
        ("queues: ['a,b', ' c ']", ("a,b", " c ")),
        ("queues: [1, 2026-01-02, no]", ("1", "2026-01-02", "no")),
        ("queues: []", ()),
        ("queues:", ()),
        ("queues: ''", ()),
    ],
)
def test_a_list_in_the_file_is_a_list_or_text_with_commas(
    text: str, queues: tuple[str, ...], tmp_path: Path
) -> None:
    assert from_file(tmp_path, text).queues == queues


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poll_interval: [1]", "poll_interval: must be a number"),
        ("queues: {a: b}", "queues: must be a list"),
        ("queues: [[a]]", "queues.0: must be text"),
        ("queues: [a, null]", "queues.1: must be text"),
        ("redis: 3", "redis must be a mapping"),
        ("redis: [host]", "redis must be a mapping"),
        ("- redis", "the file must be a mapping"),
        ("redis", "the file must be a mapping"),
        ("redis: {port: true}", "redis.port: must be a whole number"),
        ("redis: {port: 65536}", "redis.port: must be at most 65535"),
        pytest.param(f"max_queues: {'9' * 5000}", "max_queues: must be", id="5,000 digits"),
        ("poll_interval: 2026-13-45", "poll_interval: must be a number"),
        ("max_queues: !!int ''", "max_queues: must be a whole number"),
    ],
)
def test_a_wrong_type_in_the_file_is_named_with_what_is_allowed(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert expected in error_of_file(tmp_path, text)


@pytest.mark.parametrize(
    ("pair", "names"),
    [
        ({"EXPORTER_METRICS_USER": "a"}, ("metrics.user", "EXPORTER_METRICS_PASSWORD")),
        ({"EXPORTER_METRICS_PASSWORD": "hunter2"}, ("EXPORTER_METRICS_USER", "metrics.password")),
        ({"EXPORTER_METRICS_TLS_CERT": "a"}, ("metrics.tls_cert", "EXPORTER_METRICS_TLS_KEY")),
        ({"EXPORTER_METRICS_TLS_KEY": "a"}, ("EXPORTER_METRICS_TLS_CERT", "metrics.tls_key")),
    ],
)
def test_half_a_pair_is_refused_and_both_halves_named(
    pair: dict[str, str], names: tuple[str, ...]
) -> None:
    message = error_of(pair)
    assert "set both or none" in message
    assert all(name in message for name in names)
    assert "hunter2" not in message

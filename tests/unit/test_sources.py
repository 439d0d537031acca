"""Which source wins, and what is said of names that do not exist."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from exporter.settings import FILE_ONLY, LEAVES, Address, load
from tests.support.settings import (
    SECRETS,
    error_of,
    error_of_file,
    from_file,
    password_of,
    value_of,
)


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("poll_interval", [("1", 1.0), ("2", 2.0), ("3", 3.0)]),
        ("queues", [("[a, b]", ("a", "b")), ("c,d", ("c", "d")), ("e, f,", ("e", "f"))]),
        ("prefix", [("a", ("a",)), ("{b},c", ("{b}", "c")), ("d", ("d",))]),
        (
            "metrics.listen",
            [("':1'", Address("", 1)), ("h:2", Address("h", 2)), (":3", Address("", 3))],
        ),
        (
            "api.listen",
            [("'h:1'", Address("h", 1)), (":0", Address("", 0)), (":3", Address("", 3))],
        ),
        ("log.level", [("error", "error"), ("DEBUG", "debug"), ("warning", "warning")]),
    ],
)
def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(
    path: str, values: list[tuple[str, Any]], tmp_path: Path
) -> None:
    (in_file, first), (in_environment, second), (in_flag, third) = values
    *section, name = path.split(".")
    file = f"{section[0]}: {{{name}: {in_file}}}" if section else f"{name}: {in_file}"
    environment, flags = {LEAVES[path].variable: in_environment}, {path: in_flag}

    assert value_of(load({}, {}), path) not in (first, second, third)
    assert value_of(from_file(tmp_path, file), path) == first
    assert value_of(from_file(tmp_path, file, environment), path) == second
    assert value_of(from_file(tmp_path, file, environment, flags), path) == third
    assert value_of(load(flags, {}), path) == third


def test_settings_of_one_section_come_from_different_sources(tmp_path: Path) -> None:
    settings = from_file(tmp_path, "redis: {host: a, db: 3}", {"REDIS_HOST": "b"})
    assert (settings.redis.host, settings.redis.db) == ("b", 3)


def test_an_empty_list_in_a_flag_means_discovery_again() -> None:
    assert load({"queues": ""}, {"EXPORTER_QUEUES": "a"}).queues == ()


def test_empty_variables_are_not_set(tmp_path: Path) -> None:
    empty = {leaf.variable: "" for path, leaf in LEAVES.items() if path not in FILE_ONLY}
    empty |= {f"{leaf.variable}_FILE": " " for leaf in SECRETS.values()}
    assert load({}, empty) == load({}, {})
    file = "redis: {host: a, password: b}"
    assert from_file(tmp_path, file, empty) == from_file(tmp_path, file)


def test_blanks_around_a_variable_are_dropped_but_not_those_of_a_password() -> None:
    settings = load({}, {"REDIS_USER": " a ", "REDIS_PORT": " 1 ", "REDIS_PASSWORD": " a "})
    assert (settings.redis.user, settings.redis.port, password_of(settings)) == ("a", 1, " a ")


def test_open_archivers_variable_for_tls_does_not_verify_as_it_does_not() -> None:
    redis = load({}, {"REDIS_TLS_ENABLED": "true"}).redis
    assert (redis.tls, redis.tls_verify) == (True, False)


@pytest.mark.parametrize("file", ["redis: {tls: true}", "redis: {url: 'rediss://h'}"])
def test_tls_from_the_file_verifies(file: str, tmp_path: Path) -> None:
    redis = from_file(tmp_path, file).redis
    assert (redis.tls, redis.tls_verify) == (True, True)


def test_tls_from_a_url_verifies_whatever_open_archivers_variable_says() -> None:
    for given_tls in ("true", "false"):
        redis = load({"redis.url": "rediss://h"}, {"REDIS_TLS_ENABLED": given_tls}).redis
        assert (redis.tls, redis.tls_verify) == (True, True)


def test_whoever_asks_for_verification_gets_it_with_open_archivers_variable_too(
    tmp_path: Path,
) -> None:
    enabled = {"REDIS_TLS_ENABLED": "true"}
    assert from_file(tmp_path, "redis: {tls_verify: true}", enabled).redis.tls_verify
    assert load({}, enabled | {"EXPORTER_REDIS_TLS_VERIFY": "true"}).redis.tls_verify
    # Who names an authority wants it asked.
    authority = os.fspath(_certificate(tmp_path))
    assert load({}, enabled | {"EXPORTER_REDIS_TLS_CA": authority}).redis.tls_verify


def _certificate(directory: Path) -> Path:
    import trustme  # noqa: PLC0415 - slow to import

    file = directory / "ca.pem"
    trustme.CA().cert_pem.write_to_path(os.fspath(file))
    return file


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("EXPORTER_TYPO", "did you mean EXPORTER_"),
        ("EXPORTER_POL_INTERVAL", "did you mean EXPORTER_POLL_INTERVAL?"),
        ("EXPORTER_API_KEYS", "did you mean EXPORTER_API_KEY?"),
        ("EXPORTER_REDIS_HOST", "did you mean REDIS_HOST?"),
        ("EXPORTER_REDIS_TLS", "did you mean REDIS_TLS_ENABLED?"),
        ("EXPORTER_API_JWT_SECRET", "did you mean JWT_SECRET?"),
        ("EXPORTER_PORT", "did you mean EXPORTER_"),
        ("EXPORTER_ÄÖÜÄÖÜÄÖÜÄÖÜ", "config/exporter.yml lists them all"),
    ],
)
def test_an_unknown_variable_is_refused_with_a_suggestion(name: str, suggestion: str) -> None:
    message = error_of({name: "9538"})
    assert message.startswith(f"{name}: no such setting; ")
    assert suggestion in message


def test_variables_that_kubernetes_adds_for_services_are_ignored() -> None:
    address = "tcp://10.0.0.1:9538"
    added = {
        "EXPORTER_SERVICE_HOST": "10.0.0.1",
        "EXPORTER_SERVICE_PORT": "9538",
        "EXPORTER_SERVICE_PORT_METRICS": "9538",
        "EXPORTER_PORT": address,
        "EXPORTER_PORT_9538_TCP": address,
        "EXPORTER_PORT_9538_TCP_PROTO": "tcp",
        "EXPORTER_PORT_9538_TCP_PORT": "9538",
        "EXPORTER_PORT_9538_TCP_ADDR": "10.0.0.1",
        # of a Service named `exporter-bullmq`
        "EXPORTER_BULLMQ_SERVICE_HOST": "10.0.0.1",
        "EXPORTER_BULLMQ_SERVICE_PORT": "9538",
        "EXPORTER_BULLMQ_PORT": address,
        "EXPORTER_BULLMQ_PORT_9538_TCP_ADDR": "10.0.0.1",
        # of a Service named `redis`
        "REDIS_SERVICE_HOST": "10.0.0.2",
        "REDIS_PORT": "tcp://10.0.0.2:6379",
        "REDIS_PORT_6379_TCP": "tcp://10.0.0.2:6379",
    }
    assert load({}, added) == load({}, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("poll_intervall: 1", "poll_intervall: no such setting; did you mean poll_interval?"),
        ("redis: {hots: a}", "redis.hots: no such setting; did you mean redis.host?"),
        ("metrics: {password_fil: a}", "did you mean metrics.password_file?"),
        ("poll_interval_file: a", "poll_interval_file: no such setting; did you mean"),
        ("zzz: 1", "zzz: no such setting; config/exporter.yml lists them all"),
        ("1: 2", "1: no such setting"),
        ("2026-01-02: 3", "2026-01-02: no such setting"),
        ("true: 3", "true: no such setting"),
        ("~: 3", "no such setting"),
        ("<<: {prefix: a}", "<<: no such setting"),
    ],
)
def test_an_unknown_name_in_the_file_is_refused_with_a_suggestion(
    text: str, expected: str, tmp_path: Path
) -> None:
    assert expected in error_of_file(tmp_path, text)

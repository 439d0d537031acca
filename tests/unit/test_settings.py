"""Where settings come from, which one wins, and what is said where one is wrong."""

from __future__ import annotations

import operator
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from exporter.settings import (
    FILE_ONLY,
    FLAGS,
    LEAVES,
    Address,
    Settings,
    SettingsError,
    load,
    prepare,
)
from tests.support.paths import ROOT

REFERENCE = ROOT / "config" / "exporter.yml"
SECRETS = {path: leaf for path, leaf in LEAVES.items() if leaf.secret}
KEY = "a-key-of-the-tests-0123456789"


def from_file(
    directory: Path,
    text: str,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, str] | None = None,
) -> Settings:
    file = directory / "exporter.yml"
    file.write_text(text, "utf-8")
    return load(flags or {}, environment or {}, file)


def password_of(settings: Settings) -> str | None:
    password = settings.redis.password
    return password.get_secret_value() if password else None


def error_of(
    environment: Mapping[str, str],
    flags: Mapping[str, str] | None = None,
    file: Path | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load(flags or {}, environment, file)
    return str(caught.value)


def error_of_file(directory: Path, text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        from_file(directory, text)
    message = str(caught.value)
    assert str(directory / "exporter.yml") in message
    return message


# The reference file


@dataclass(frozen=True)
class Documented:
    """A setting of config/exporter.yml: the comment right above it, and what is given for it."""

    comment: str
    value: str


def documented() -> dict[str, Documented]:
    found, section, comment = {}, "", ""
    for line in REFERENCE.read_text("utf-8").splitlines():
        text = line.strip()
        if text.startswith("#"):
            comment += text.lstrip("# ") + "\n"
            continue
        if match := re.fullmatch(r"( *)([a-z_]+):(.*)", line):
            indent, name, value = match.groups()
            if not indent and not value:
                section = f"{name}."
            else:
                path = f"{section if indent else ''}{name}"
                found[path] = Documented(comment, value.strip())
                if f"{path}_file" in secret_files():
                    continue  # the comment is for both
        comment = ""
    return found


def secret_files() -> set[str]:
    return {f"{path}_file" for path in SECRETS}


def test_the_reference_file_changes_nothing() -> None:
    assert load({}, {}, REFERENCE) == load({}, {}, None)
    open_archiver = {"REDIS_HOST": "valkey", "REDIS_TLS_ENABLED": "true", "REDIS_PASSWORD": "x"}
    assert load({}, open_archiver, REFERENCE) == load({}, open_archiver, None)


def test_the_reference_file_holds_every_setting_and_no_other() -> None:
    assert documented().keys() == LEAVES.keys() | secret_files()


@pytest.mark.parametrize("path", LEAVES)
def test_the_comment_above_a_setting_names_its_variable_and_flag(path: str) -> None:
    words = re.findall(r"--[a-z-]+|[A-Z_]+", documented()[path].comment)
    wanted = [] if path in FILE_ONLY else [LEAVES[path].variable]
    wanted += [f"{LEAVES[path].variable}_FILE"] if path in SECRETS else []
    wanted += [FLAGS[path]] if path in FLAGS else []
    assert set(wanted) <= set(words)


def test_the_reference_file_names_no_variable_and_no_flag_that_does_not_exist() -> None:
    text = REFERENCE.read_text("utf-8")
    existing = {leaf.variable for path, leaf in LEAVES.items() if path not in FILE_ONLY}
    existing |= {f"{leaf.variable}_FILE" for leaf in SECRETS.values()}
    assert set(re.findall(r"\b(?:EXPORTER|REDIS|JWT)_[A-Z_]+\b", text)) <= existing
    assert set(re.findall(r"--[a-z][a-z-]*", text)) <= {*FLAGS.values(), "--config", "--check"}


def ranges() -> list[tuple[str, float, float]]:
    found = []
    for path, setting in documented().items():
        match = re.search(r"\b([0-9.]+) to ([0-9]+)\b", setting.comment)
        if match and not path.endswith("listen"):
            found.append((path, float(match[1]), float(match[2])))
    return found


@pytest.mark.parametrize(("path", "least", "most"), ranges())
def test_the_documented_range_is_the_range(path: str, least: float, most: float) -> None:
    variable = LEAVES[path].variable
    for allowed in (least, most):
        load({}, {variable: f"{allowed:.10g}"})
    for refused in (least - 1, least - 0.05, most + 1):
        assert error_of({variable: f"{refused:.10g}"}).startswith(f"{variable}: must be ")


def test_every_number_has_its_range_documented() -> None:
    defaults = Settings().model_dump()
    numbers = {
        path
        for path in LEAVES.keys() - {"redis.url"}
        if type(_at(defaults, path)) in (int, float) or path.startswith("retention.")
    }
    # `retention` says the range once, above the section.
    assert {path for path, _, _ in ranges()} == numbers - {
        "retention.completed",
        "retention.failed",
    }
    for path in ("retention.completed", "retention.failed"):
        variable = LEAVES[path].variable
        load({}, {variable: "1000000000"})
        assert "at least 1" in error_of({variable: "0"})
        assert "at most 1000000000" in error_of({variable: "1000000001"})


def _at(nested: Any, path: str) -> Any:
    for name in path.split("."):
        nested = nested[name]
    return nested


# Which source wins


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

    assert _value(load({}, {}), path) not in (first, second, third)
    assert _value(from_file(tmp_path, file), path) == first
    assert _value(from_file(tmp_path, file, environment), path) == second
    assert _value(from_file(tmp_path, file, environment, flags), path) == third
    assert _value(load(flags, {}), path) == third


def _value(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings


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


# The URL of Redis


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://h:1/2", {"host": "h", "port": 1, "db": 2}),
        ("redis://h/", {"host": "h"}),
        ("redis://u@h", {"host": "h", "user": "u"}),
        ("redis://:p@h", {"host": "h", "password": "p"}),
        ("redis://u:p@h", {"host": "h", "user": "u", "password": "p"}),
        ("redis://%75%40:%2F%3a%23%C3%A9@h", {"host": "h", "user": "u@", "password": "/:#é"}),
        ("redis://u:p+q@h", {"host": "h", "user": "u", "password": "p+q"}),
        ("rediss://h:1", {"host": "h", "port": 1, "tls": True}),
        ("valkey://h", {"host": "h"}),
        ("valkeys://h", {"host": "h", "tls": True}),
        ("redis://[::1]:7/3", {"host": "::1", "port": 7, "db": 3}),
    ],
)
def test_a_url_sets_what_it_names(url: str, parts: dict[str, Any]) -> None:
    settings = load({"redis.url": url}, {})
    assert settings == load({}, {"EXPORTER_REDIS_URL": url})
    told = settings.redis.model_dump(exclude_defaults=True)
    if settings.redis.password:
        told["password"] = password_of(settings)
    assert {"host": "localhost"} | told == parts


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "http://u:hunter2@h",
        "redis://",
        "redis://u:hunter2@",
        "redis://u:hunter2@h:65536",
        "redis://u:hunter2@h:0",
        "redis://u:hunter2@h/one",
        "redis://u:hunter2@h/1/2",
        "redis://u:hunter2@h?db=1",
        "redis://u:hun/ter2@h",
        "redis://u:12/hunter2@h",
        "redis://u:12#hunter2@h",
        "redis://u:12?hunter2@h",
        "redis://[hunter2]",
    ],
)
def test_a_url_that_is_wrong_is_refused_and_not_repeated(url: str) -> None:
    for message in (
        error_of({"EXPORTER_REDIS_URL": url}),
        error_of({}, {"redis.url": url}),
    ):
        assert re.match(r"(EXPORTER_REDIS_URL|--redis-url): must be redis\[s\]://", message)
        assert "percent-encoded" in message
        assert "ter2" not in message


def test_redis_host_in_the_environment_beats_the_url_in_the_file(tmp_path: Path) -> None:
    file = "redis: {url: 'rediss://u:p@a:1/2'}"
    redis = from_file(tmp_path, file, {"REDIS_HOST": "b"}).redis
    assert (redis.host, redis.port, redis.user, redis.db, redis.tls) == ("b", 1, "u", 2, True)


def test_the_url_in_a_flag_beats_open_archivers_variables_where_it_names_something() -> None:
    environment = {"REDIS_HOST": "a", "REDIS_PORT": "1", "REDIS_PASSWORD": "p"}
    settings = load({"redis.url": "redis://b/2"}, environment)
    redis = settings.redis
    assert (redis.host, redis.port, redis.db, password_of(settings)) == ("b", 1, 2, "p")


def test_a_url_beats_the_other_settings_of_its_own_source(tmp_path: Path) -> None:
    assert from_file(tmp_path, "redis: {host: a, url: 'redis://b'}").redis.host == "b"


# TLS


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


# Secrets


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_can_come_from_a_file_whose_line_may_end(
    path: str, ending: str, tmp_path: Path
) -> None:
    secret = "redis://:p@h" if path == "redis.url" else f"{KEY} é "
    file = tmp_path / "secret"
    file.write_bytes((secret + ending).encode())
    more = {"EXPORTER_METRICS_USER": "a"} if path == "metrics.password" else {}
    variable = SECRETS[path].variable

    direct = load({}, {variable: secret} | more)
    section, name = path.split(".")
    yml = f"{section}: {{{name}_file: {file}}}"
    for read in (
        load({}, {f"{variable}_FILE": str(file)} | more),
        from_file(tmp_path, yml, more),
    ):
        # That of Redis is read again for each connection.
        assert read.redis.password_file == (file if path == "redis.password" else None)
        redis = read.redis.model_copy(update={"password_file": None})
        assert read.model_copy(update={"redis": redis}) == direct
    [found] = direct.secrets()
    assert found == ("p" if path == "redis.url" else secret)


@pytest.mark.parametrize("path", SECRETS)
def test_a_secret_given_twice_is_refused(path: str, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2")
    variable = SECRETS[path].variable
    message = error_of({variable: "hunter2", f"{variable}_FILE": str(file)})
    assert message == f"{variable}_FILE and {variable}: set one of the two"
    section, name = path.split(".")
    message = error_of_file(tmp_path, f"{section}: {{{name}: hunter2, {name}_file: {file}}}")
    assert f"{path}_file and " in message
    assert "set one of the two" in message
    assert "hunter2" not in message


@pytest.mark.parametrize("path", SECRETS)
def test_an_empty_secret_is_refused_so_that_no_check_is_off_by_accident(
    path: str, tmp_path: Path
) -> None:
    empty = tmp_path / "secret"
    empty.write_text("\n")
    variable = f"{SECRETS[path].variable}_FILE"
    more = {"EXPORTER_METRICS_USER": "a"} if path == "metrics.password" else {}
    message = error_of({variable: str(empty)} | more)
    assert message.startswith(f"{variable}: must ")
    section, name = path.split(".")
    assert path in error_of_file(tmp_path, f"{section}: {{{name}: ''}}")


def test_a_secret_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for file, reason in (
        (Path("/dev/zero"), "it is larger than 1 MiB"),
        (tmp_path / "missing", "No such file"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8"),
    ):
        message = error_of({"REDIS_PASSWORD_FILE": str(file)})
        assert message.startswith(f"REDIS_PASSWORD_FILE: {file} cannot be read: ")
        assert reason in message


@pytest.mark.parametrize(
    "written",
    ["12345", "0123", "1e3", "1_000", "0x10", "true", "no", "2026-01-02", "12:30:45", "=", ".inf"],
)
def test_a_password_without_quotes_is_taken_as_it_is_written(written: str, tmp_path: Path) -> None:
    assert password_of(from_file(tmp_path, f"redis: {{password: {written}}}")) == written
    assert password_of(from_file(tmp_path, f"redis:\n  password: {written} # a remark")) == written


@pytest.mark.parametrize(
    "written", ["*hunter2", "!hunter2", "!hunter2 more", "%hunter2", "[hunter2"]
)
def test_a_password_that_needs_quotes_is_refused_and_not_repeated(
    written: str, tmp_path: Path
) -> None:
    message = error_of_file(tmp_path, f"redis:\n  password: {written}\n")
    assert "is not valid YAML" in message
    assert "line" in message
    assert "hunter2" not in message


def test_a_short_api_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    for message in (
        error_of({"EXPORTER_API_KEY": "hunter2"}),
        error_of_file(tmp_path, "api: {key: hunter2}"),
        error_of_file(tmp_path, "api: {keys: [{name: a, key: hunter2}]}"),
    ):
        assert "must have at least 16 characters" in message
        assert "hunter2" not in message


def test_no_secret_shows_in_the_settings_as_text() -> None:
    settings = load(
        {"redis.url": "redis://u:hunter2@h"},
        {"EXPORTER_API_KEY": "hunter2-hunter2-hunter2", "JWT_SECRET": "hunter2"},
    )
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    assert sorted(settings.secrets()) == ["hunter2", "hunter2", "hunter2-hunter2-hunter2"]


def test_api_keys_have_names_files_and_permissions(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{KEY}-file\n")
    text = f"""
        api:
          key: {KEY}
          keys:
            - name: grafana
              key_file: {file}
              permissions: [read:archive, manage:all]
            - {{name: plain, key: {KEY}-plain}}
            - {{name: commas, key: {KEY}-commas, permissions: "read:archive, read:users"}}
    """
    keys = {
        key.name: (key.key.get_secret_value(), key.permissions)
        for key in from_file(tmp_path, text).api.all_keys
    }
    assert keys == {
        "api.key": (KEY, ("manage:all",)),
        "grafana": (f"{KEY}-file", ("read:archive", "manage:all")),
        "plain": (f"{KEY}-plain", ("manage:all",)),
        "commas": (f"{KEY}-commas", ("read:archive", "read:users")),
    }


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ("[{name: a}]", "api.keys.0.key: is missing"),
        (f"[{{key: {KEY}}}]", "api.keys.0.name: is missing"),
        (f"[{{name: a, key: {KEY}, permission: x}}]", "api.keys.0.permission: no such setting"),
        (f"[{{name: a, key: {KEY}, permissions: all}}]", "such as manage:all"),
        (f"[{{name: a, key: {KEY}, key_file: /x}}]", "set one of the two"),
        ("[{name: a, key_file: /no/file}]", "api.keys.0.key_file: /no/file cannot be read"),
        (f"[{KEY}]", "api.keys.0: must be a mapping"),
        (f"{{name: a, key: {KEY}}}", "api.keys: must be a list"),
        (KEY, "api.keys: must be a list"),
    ],
)
def test_what_is_wrong_in_the_list_of_api_keys_is_told_without_the_key(
    keys: str, told: str, tmp_path: Path
) -> None:
    message = error_of_file(tmp_path, f"api: {{keys: {keys}}}")
    assert told in message
    assert KEY not in message


# Names that do not exist


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
    ("text", "told"),
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
    text: str, told: str, tmp_path: Path
) -> None:
    assert told in error_of_file(tmp_path, text)


# Values


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
        assert _value(load({path: given_address}, {}), path) == address
        section = path.split(".")[0]
        text = f"{section}: {{listen: '{given_address}'}}"
        assert _value(from_file(tmp_path, text), path) == address
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
    ("variable", "value", "told"),
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
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "1,0.5", "in rising order"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.5,0.5", "in rising order"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.0015", "in whole milliseconds"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "0.0001", "must be at least 0.001"),
        ("EXPORTER_EVENTS_WAIT_BUCKETS", "nan", "must be "),
        ("EXPORTER_EVENTS_PROCESS_BUCKETS", ",", "must not be empty"),
        ("REDIS_HOST", "\udcff", "is not UTF-8 text"),
        ("REDIS_PASSWORD", "\udcff", "is not UTF-8 text"),
    ],
)
def test_a_variable_with_a_wrong_value_is_named_with_what_is_allowed(
    variable: str, value: str, told: str
) -> None:
    message = error_of({variable: value})
    assert message.startswith(variable)
    assert told in message
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
    ("text", "told"),
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
    text: str, told: str, tmp_path: Path
) -> None:
    assert told in error_of_file(tmp_path, text)


@pytest.mark.parametrize(
    "text",
    [
        "a: 'b",
        "a: {",
        "a: *b",
        "redis:\n\thost: a",
        "? [a]\n: b",
        "redis: &r {host: *r}",
        "queues: &q [*q]",
        "a: \x01",
        "--- {}\n--- {}",
        pytest.param("a: " + "[" * 1000, id="1,000 brackets"),
        "queues: [a]\nqueues: [b]",
        "redis: {host: a}\nlog: {}\nredis: {port: 1}",
        r'queues: ["\uD800"]',
        r'redis: {password: "\uDC00\uD800"}',
        r'{"\uD800": 1}',
    ],
)
def test_a_file_that_is_no_yaml_is_refused(text: str, tmp_path: Path) -> None:
    assert "is not valid YAML: " in error_of_file(tmp_path, text)


def test_a_character_that_json_escapes_as_two_halves_is_one(tmp_path: Path) -> None:
    assert from_file(tmp_path, r'{"queues": ["\ud83d\ude00"]}').queues == ("\U0001f600",)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yml"
    latin.write_bytes("prefix: bül".encode("latin-1"))
    wide = tmp_path / "wide.yml"
    wide.write_bytes("prefix: bull".encode("utf-16"))
    endless = Path("/dev/zero")
    for file, reason in (
        (endless, "it is larger than 1 MiB"),
        (tmp_path / "missing.yml", "No such file"),
        (tmp_path, "Is a directory"),
        (latin, "is not UTF-8"),
        (wide, "is not UTF-8"),
    ):
        message = error_of({}, file=file)
        assert message.startswith(f"--config {file}")
        assert reason in message


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}", "redis:\nlog:\n", "\ufeff{}"])
def test_a_file_that_sets_nothing_is_fine(text: str, tmp_path: Path) -> None:
    assert from_file(tmp_path, text) == load({}, {})


def test_the_file_may_be_dev_null_or_a_pipe(tmp_path: Path) -> None:
    assert load({}, {}, Path(os.devnull)) == load({}, {})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("prefix: piped",))
    writer.start()
    assert load({}, {}, pipe).prefix == ("piped",)
    writer.join()


# Anything at all

MARK = "sesame-open-7141"
# Not the derived ones alone: near misses, and the names of sections and lists.
NAMES = sorted({part for path in LEAVES for part in path.split(".")} | {"password_file", "name"})
# Halves of surrogate pairs, too, as what is not UTF-8 becomes in a variable.
any_text = st.text(st.characters(exclude_categories=[], exclude_characters="\0"), max_size=30)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.dates(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
# What people make of a secret: itself, with more around it, in brackets, in an URL.
secrets = st.sampled_from(
    [
        MARK,
        f"{MARK}\n{MARK}",
        [MARK],
        [[MARK]],
        {"value": MARK},
        f"redis://u:{MARK}@h:1/2",
        f"redis://u:{MARK}@h:port",
        f"redis://u:12/{MARK}@h",
        f"redis://u:12#{MARK}@h",
        f"redis://{quote('ü')}:{MARK}@[::1]:0",
        f"https://:{MARK}@h",
        {"name": "a", "key": MARK},
        [{"name": "a", "key": MARK, "permissions": "all"}],
        [{"name": ["a"], "key": MARK}],
        [{"key": MARK}],
        [{"name": "a", "key": f"{MARK}-long-enough", "key_file": "/none"}],
    ]
)
SECRET_NAMES = {*(path.split(".")[1] for path in SECRETS), "keys"}
sections = st.builds(
    operator.or_,
    st.dictionaries(
        st.sampled_from([name for name in NAMES if name not in SECRET_NAMES]) | st.text(max_size=3),
        anything,
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(sorted(SECRET_NAMES)), secrets, max_size=3),
)
documents = st.builds(
    operator.or_,
    st.dictionaries(
        st.sampled_from(sorted({path.split(".")[0] for path in LEAVES})) | st.text(max_size=3),
        anything,
        max_size=2,
    ),
    st.dictionaries(st.sampled_from(["redis", "metrics", "api"]), sections, max_size=3),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("settings") / "any.yml"


def assert_loads_or_says_why(environment: Mapping[str, str], file: Path | None) -> None:
    try:
        prepare(load({}, environment, file))
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1
        assert MARK not in str(error)


@pytest.mark.takes(seconds=4)
@given(documents | anything)
@hypothesis_settings(deadline=None, max_examples=300)
def test_any_document_is_taken_or_refused_in_one_line_without_its_secrets(
    scratch: Path, document: Any
) -> None:
    scratch.write_text(yaml.safe_dump(document), "utf-8")
    assert_loads_or_says_why({}, scratch)


@given(st.binary() | st.text(alphabet="a: -[]{}&*!|>'\"%@`#\n\t,?~0", max_size=60).map(str.encode))
@hypothesis_settings(deadline=None, max_examples=300)
def test_any_file_is_taken_or_refused_in_one_line(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    assert_loads_or_says_why({}, scratch)


variables = st.dictionaries(
    st.sampled_from(
        [
            *(leaf.variable for leaf in LEAVES.values() if not leaf.secret),
            *(f"{leaf.variable}_FILE" for leaf in SECRETS.values()),
        ]
    )
    | any_text.map(lambda text: f"EXPORTER_{text}"),
    any_text | st.sampled_from(["0", "1", "-1", "nan", "true", ":1", "a,b", "/", "tcp://1"]),
    max_size=3,
)
secret_variables = st.dictionaries(
    st.sampled_from([leaf.variable for leaf in SECRETS.values()]),
    st.builds(operator.add, secrets.filter(lambda value: isinstance(value, str)), any_text),
    max_size=3,
)


@given(variables, secret_variables)
@hypothesis_settings(deadline=None, max_examples=300)
def test_any_environment_is_taken_or_refused_in_one_line_without_its_secrets(
    others: dict[str, str], hidden: dict[str, str]
) -> None:
    assert_loads_or_says_why(others | hidden, None)

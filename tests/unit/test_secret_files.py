"""Secrets, from files and elsewhere: which are refused, and that none is repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.settings import load
from tests.support.settings import KEY, SECRETS, error_of, error_of_file, from_file

URLS = {"redis.url": "redis://:p@h", "postgres.url": "postgres://u:p@h"}
# What a secret goes together with.
NEEDED = {
    "metrics.password": {"EXPORTER_METRICS_USER": "a"},
    "postgres.password": {"EXPORTER_POSTGRES_HOST": "h"},
}


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_secret_can_come_from_a_file_whose_line_may_end(
    path: str, ending: str, tmp_path: Path
) -> None:
    secret = URLS.get(path, f"{KEY} é ")
    file = tmp_path / "secret"
    file.write_bytes((secret + ending).encode())
    more = NEEDED.get(path, {})
    variable = SECRETS[path].variable

    direct = load({}, {variable: secret} | more)
    section, name = path.split(".")
    yml = f"{section}: {{{name}_file: {file}}}"
    for read in (
        load({}, {f"{variable}_FILE": str(file)} | more),
        from_file(tmp_path, yml, more),
    ):
        # That of a store is read again for each connection.
        assert read.redis.password_file == (file if path == "redis.password" else None)
        assert read.postgres.password_file == (file if path == "postgres.password" else None)
        stores = {
            "redis": read.redis.model_copy(update={"password_file": None}),
            "postgres": read.postgres.model_copy(update={"password_file": None}),
        }
        assert read.model_copy(update=stores) == direct
    [found] = direct.secrets()
    assert found == ("p" if path in URLS else secret)


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
    more = NEEDED.get(path, {})
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
    ("keys", "expected"),
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
def test_what_is_wrong_in_the_list_of_api_keys_is_reported_without_the_key(
    keys: str, expected: str, tmp_path: Path
) -> None:
    message = error_of_file(tmp_path, f"api: {{keys: {keys}}}")
    assert expected in message
    assert KEY not in message

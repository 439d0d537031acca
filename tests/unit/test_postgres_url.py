"""The URL of PostgreSQL and what goes with it, in settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter.settings import Settings, load
from tests.support.settings import error_of, error_of_file, from_file

MARK = "hunter2"


def loaded(url: str) -> Settings:
    return load({"postgres.url": url}, {})


def test_a_url_stands_for_the_settings_that_it_names() -> None:
    postgres = loaded(f"postgres://bull%40mq:{MARK}@db.internal:6432/jobs%2Fa").postgres
    assert postgres.password is not None
    assert (postgres.host, postgres.port, postgres.database) == ("db.internal", 6432, "jobs/a")
    assert (postgres.user, postgres.password.get_secret_value()) == ("bull@mq", MARK)
    assert postgres.tls
    assert postgres.tls_verify


@pytest.mark.parametrize(
    ("mode", "tls", "verify"),
    [("disable", False, True), ("require", True, False), ("verify-full", True, True)],
)
def test_sslmode_says_whether_there_is_tls(mode: str, tls: bool, verify: bool) -> None:
    postgres = loaded(f"postgresql://h/db?sslmode={mode}").postgres
    assert (postgres.tls, postgres.tls_verify) == (tls, verify)


def test_a_socket_is_named_by_its_directory() -> None:
    postgres = loaded("postgres://u@/db?host=/run/postgresql").postgres
    assert postgres.is_socket
    assert postgres.address == "/run/postgresql/.s.PGSQL.5432"


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{MARK}@h/db",
        f"postgres://u:{MARK}@/db",
        f"postgres://u:{MARK}@h:port/db",
        f"postgres://u:12/{MARK}@h",
        f"postgres://u:{MARK}@h/db?sslmode=prefer",
        f"postgres://u:{MARK}@h/db?options=-csearch_path",
        f"postgres://u:{MARK}@h/db?host=/run",
        f"postgres://u:{MARK}@h/db#x",
    ],
)
def test_another_url_is_refused_without_being_repeated(url: str) -> None:
    message = error_of({}, {"postgres.url": url})
    assert message.startswith("--postgres-url: must be postgres[ql]://")
    assert MARK not in message


def test_the_schema_takes_the_place_of_the_prefix() -> None:
    settings = load({"postgres.url": "postgres://h/db"}, {"EXPORTER_POSTGRES_SCHEMA_NAME": "jobs"})
    [of_target] = settings.by_target().values()
    assert of_target.prefix == ("jobs",)
    assert not of_target.has_several_prefixes
    for name in ("", "1a", 'a"b', "a" * 64):
        if name:
            assert "at most 63 characters" in error_of(
                {"EXPORTER_POSTGRES_HOST": "h", "EXPORTER_POSTGRES_SCHEMA_NAME": name}
            )


def test_queues_are_in_one_store() -> None:
    host = {"EXPORTER_POSTGRES_HOST": "h"}
    for name, value in (("REDIS_HOST", "valkey"), ("EXPORTER_REDIS_SOCKET", "/run/redis.sock")):
        message = error_of(host | {name: value})
        assert message.startswith(f"{name} and EXPORTER_POSTGRES_HOST: queues are either in Redis")
    assert "no prefix" in error_of(host | {"EXPORTER_PREFIX": "mail"})
    assert error_of({"EXPORTER_POSTGRES_USER": "u"}) == (
        "postgres.user (EXPORTER_POSTGRES_USER) needs "
        "postgres.host (EXPORTER_POSTGRES_HOST, --postgres-url)"
    )


def test_targets_may_be_in_different_stores(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{MARK}-of-a-file\n")
    text = f"""
targets:
  - {{name: mail, redis: {{host: valkey}}, prefix: [mail]}}
  - name: archive
    postgres: {{url: 'postgres://u@db/x', password_file: {tmp_path / "secret"}}}
"""
    settings = from_file(tmp_path, text)
    targets = settings.by_target()
    assert [each.store_address for each in targets.values()] == [
        "Redis at valkey:6379",
        "PostgreSQL at db:5432",
    ]
    assert list(settings.secrets()) == [f"{MARK}-of-a-file"]
    archive = targets["archive"].postgres
    assert archive.password_file == tmp_path / "secret"
    assert archive.names_of("user") == "postgres.user of the target archive"
    wrong = "targets: [{name: a, redis: {host: r}, postgres: {host: p}}]"
    assert "queues are either in Redis or in PostgreSQL" in error_of_file(tmp_path, wrong)
    (tmp_path / "exporter.yml").write_text(text)
    with_flag = error_of({}, {"postgres.url": "postgres://h"}, tmp_path / "exporter.yml")
    assert with_flag.startswith("--postgres-url: cannot be combined with targets")

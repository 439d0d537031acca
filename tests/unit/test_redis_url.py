"""The URL of Redis, and the settings that it stands for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from exporter.settings import load
from tests.support.settings import error_of, from_file, password_of


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
    parsed = settings.redis.model_dump(exclude_defaults=True)
    if settings.redis.password:
        parsed["password"] = password_of(settings)
    assert {"host": "localhost"} | parsed == parts


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

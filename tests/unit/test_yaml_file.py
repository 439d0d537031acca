"""The settings file: what is YAML, and that its values are text as it is written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from exporter.settings import load
from tests.support.settings import error_of, error_of_file, from_file, password_of


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

"""Settings as tests write them, and what is said of wrong ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from exporter.settings import LEAVES, Settings, SettingsError, load

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


def value_of(settings: Any, path: str) -> Any:
    for name in path.split("."):
        settings = getattr(settings, name)
    return settings

"""All settings: the file that documents them, and that anything at all is loaded or refused."""

from __future__ import annotations

import operator
import re
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
    PostgresSettings,
    RedisSettings,
    Settings,
    SettingsError,
    Watched,
    load,
    prepare,
)
from tests.support.paths import ROOT
from tests.support.settings import SECRETS, error_of

REFERENCE = ROOT / "config" / "exporter.yml"


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


def test_messages_name_no_setting_that_does_not_exist() -> None:
    code = "\n".join(file.read_text("utf-8") for file in (ROOT / "exporter").rglob("*.py"))
    anywhere = set(re.findall(r"""(?<!\.)\bnames_of\(["']([\w.]+)["']\)""", code))
    of_redis = set(re.findall(r"""(?:settings|redis)\.names_of\(["'](\w+)["']\)""", code))
    of_postgres = set(re.findall(r"""postgres\.names_of\(["'](\w+)["']\)""", code))
    assert len(anywhere) > 10
    assert len(of_redis) > 10
    assert anywhere <= LEAVES.keys()
    assert of_redis <= {
        *(RedisSettings.model_fields.keys() | PostgresSettings.model_fields.keys()),
        *Watched.model_fields,
    }
    assert of_postgres
    assert of_postgres <= PostgresSettings.model_fields.keys()


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
        for path in LEAVES.keys() - {"redis.url", "postgres.url"}
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

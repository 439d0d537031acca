"""The settings file as YAML, whose values are text."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from exporter.settings.files import read_in_time, text_in
from exporter.settings.messages import SettingsError


def parsed(file: Path) -> Any:
    """The document: mappings, lists, and text or None. Raises SettingsError."""
    try:
        text = read_in_time(partial(text_in, file))
        return yaml.load(text, _Loader)  # noqa: S506 - it makes only text
    except OSError as error:
        raise SettingsError(f"--config {file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"--config {file}: is not UTF-8 text") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None)
        # The part that the parser quotes may be a secret: a password that starts with * counts as
        # an alias.
        problem = re.sub(r" '[^'<][^']+'", "", problem or "cannot be parsed")
        raise SettingsError(f"--config {file}: is not valid YAML: {problem}{where}") from None


class _Loader(yaml.BaseLoader):
    """YAML whose values are text as written, so a password of 0123 keeps its zero.

    Only null is not text. Settings turn text into numbers as they do for variables and flags.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            # PyYAML keeps only the last one, so a repeated section would lose half of its settings.
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem="a key occurs twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode) -> str:
        """The text. JSON escapes a character beyond U+FFFF as two halves, YAML as one."""
        text = str(super().construct_scalar(node))
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.MarkedYAMLError(
                problem="half of a surrogate pair is no text", problem_mark=node.start_mark
            ) from None

    def refuse(self, _: str, node: yaml.Node) -> None:
        raise yaml.MarkedYAMLError(
            problem="a value that starts with ! needs quotes", problem_mark=node.start_mark
        )


NULL = "tag:yaml.org,2002:null"
_Loader.add_implicit_resolver(NULL, re.compile(r"(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_Loader.add_constructor(NULL, lambda _loader, _node: None)
_Loader.add_multi_constructor("!", _Loader.refuse)

"""Finds words that are not used here in what people read; `make lint` runs this.

One term for one thing, and the term that the documentation of Prometheus, Redis and Python uses: a
reader should not have to learn another one. Checked are documents, configuration, dashboards, and
of the program HELP texts, log and error messages, the API's document and the page. Code in
backticks is not checked; of names in Python, in tests too, only words that are `banned_in_names`.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Word:
    """A word that is not used, as a regular expression, and what to write instead."""

    pattern: str
    instead: str
    why: str
    banned_in_names: bool = False

    @property
    def regex(self) -> re.Pattern[str]:
        # A phrase may go on in the next line, behind the sign of a comment.
        pattern = self.pattern.replace(" ", r"(?:\s|#|//)+")
        return re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE)


WORDS = (
    Word(
        "told|tells?|telling",
        "report, publish, expose, show, say; distinguish (tell apart)",
        "it names five different things, none of which the reader can look up",
        banned_in_names=True,
    ),
    Word("heads", "queue edges, head and tail of a list", "a list has one head"),
    Word("mend(?:ed|ing|s)?", "backfill", "the standard term for counting afterwards"),
    Word(
        "st(?:and|ands|ood|anding) still|standstill",
        "is stuck, are stuck; stops; does not change",
        "the standard term; only alert names keep the old one",
    ),
    Word(
        "beside",
        "next to, alongside, in addition to, as well as",
        "literary, and easily mistaken for `besides`",
    ),
    Word("but for", "except, except for", "literary; `but` alone misleads"),
    Word(
        "lets? nobody in|nobody is let in|let in",
        "rejects every request; is accepted",
        "what the program does is to reject requests",
    ),
    Word("wears? out|worn out", "overloads", "a Redis does not wear"),
    Word("gives? way|giving way", "yield, yields", "the term of asyncio"),
    Word("(?:their|its|a) turns?|turns(?= of| and)", "yield; request priority", "a metaphor"),
    Word("goes not|go not", "cannot be combined with", "word order of another language"),
    Word(
        # `[left out: 20000 bytes]` in answers of the API is relied on.
        r"(?<!\[)(?<!\[\\)left out",
        "omitted, skipped, ignored",
        "what was omitted and what was ignored are different things",
    ),
    Word("wants (?:a|an|TLS|the)", "requires, needs", "programs require"),
)

TEXT = ("*.md", "docs/**/*.md", "config/**/*", "exporter/web/**/*.html", "exporter/web/*.json")
PYTHON = ("exporter/**/*.py", "dashboards/*.py", "docs/*.py")
SCRIPTS = ("exporter/web/page/*.js",)
NAMES = ("exporter/**/*.py", "dashboards/*.py", "docs/*.py", "tests/**/*.py", "tools/*.py")
# Folders below tests/ that hold what others wrote.
INSTALLED = {"newest", "node_modules", "shipped"}
# Made from files that are checked: a word would be found twice.
GENERATED = ("config/kubernetes/prometheus-rule.yml",)


@dataclass(frozen=True)
class Finding:
    """Where a word stands, and which."""

    path: Path
    line: int
    found: str
    word: Word

    def __str__(self) -> str:
        found = " ".join(self.found.split())
        return f"{self.path}:{self.line}: {found!r}: write {self.word.instead} ({self.word.why})"


def findings(root: Path) -> Iterator[Finding]:
    """All words below a directory that are not to be used."""
    in_names = [word for word in WORDS if word.banned_in_names]
    for patterns, read, words in (
        (TEXT, _whole, WORDS),
        (PYTHON, _python_strings, WORDS),
        (SCRIPTS, _script_strings, WORDS),
        (NAMES, _names, in_names),
    ):
        for path in sorted({path for pattern in patterns for path in root.glob(pattern)}):
            relative = path.relative_to(root)
            if path.is_symlink() or not path.is_file() or str(relative) in GENERATED:
                continue
            if INSTALLED.intersection(relative.parts):
                continue
            try:
                text = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue  # an archive or an image
            for line, passage in read(text):
                yield from _in_passage(relative, line, passage, words)


def _in_passage(path: Path, line: int, passage: str, words: Iterable[Word]) -> Iterator[Finding]:
    # Code, and where links lead, by blanks: columns and lines stay.
    prose = re.sub(r"`[^`\n]*`|\]\([^)\s]*\)", lambda it: " " * len(it[0]), passage)
    for word in words:
        for match in word.regex.finditer(prose):
            yield Finding(path, line + prose.count("\n", 0, match.start()), match[0], word)


def _whole(text: str) -> Iterator[tuple[int, str]]:
    yield 1, text


def _names(text: str) -> Iterator[tuple[int, str]]:
    """The words of each name in Python: `is_told` and `IsTold` have two."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", token.string)
            yield token.start[0], words.replace("_", " ")


def _python_strings(text: str) -> Iterator[tuple[int, str]]:
    """Strings of more than one word, without docstrings."""
    tree = ast.parse(text)
    docstrings = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if id(node) not in docstrings and " " in node.value:
            yield node.lineno, node.value


# Of JavaScript: comments, strings, and where templates and the code within them begin and end.
_SCRIPT_PIECE = re.compile(
    r"""//[^\n]*|/\*.*?\*/|"(?:[^"\\\n]|\\.)*"|`|\{|\}""",
    re.DOTALL,
)
_TEMPLATE_PIECE = re.compile(r"(?:[^`\\$]|\\.|\$(?!\{))+|\$\{|`", re.DOTALL)


def _script_strings(text: str) -> Iterator[tuple[int, str]]:
    """Strings of more than one word, and the texts of templates, also of those within templates."""
    within: list[str] = []
    at = 0
    while match := (_TEMPLATE_PIECE if within[-1:] == ["`"] else _SCRIPT_PIECE).search(text, at):
        piece, at = match[0], match.end()
        if piece == "}" or (piece == "`" and within[-1:] == ["`"]):
            del within[-1:]
        elif piece in ("`", "{", "${"):
            within.append(piece)
        elif not piece.startswith("/") and " " in piece:
            yield 1 + text.count("\n", 0, match.start()), piece.strip('"')


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    found = [*findings(root)]
    for each in found:
        print(each)
    if found:
        print(f"{len(found)} words are not used here; tools/check_words.py has the list")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())

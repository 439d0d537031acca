"""The check for words that are not used: it finds them in what people read, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = ROOT / "tools" / "check_words.py"


def check(root: Path, file: str, text: str) -> tuple[int, list[str]]:
    """Exit code and lines for a project that consists of one file."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    command = [sys.executable, SCRIPT, root]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("file", "text", "line"),
    [
        ("README.md", "# Title\n\nA queue stands\nstill.\n", 3),
        ("docs/a/b.md", "It is\ntold.\n", 2),
        ("config/rules.yml", "a: 1\n# Beside that a queue stands\n# nothing.\n", 2),
        ("config/x/notes.txt", "It lets\n  # nobody in.\n", 1),
        ("exporter/web/openapi.json", '{"description": "All but for one."}', 1),
        ("exporter/web/page/page.js", '// told\nshow("what is told");\n', 2),
        (
            "exporter/web/page/a.js",
            "f(html`<p>${\n  a && g({b: html`<b>is told</b>`})}</p>`);\n",
            2,
        ),
        ("exporter/web/page/index.html", "<p>Nobody is let in.</p>", 1),
        ("exporter/a/b.py", '"""Told."""\n\nHELP = "What the server tells."\n', 3),
        ("exporter/a/b.py", 'def f(told):\n    raise ValueError(f"{told} wants a key")\n', 2),
        ("tests/a/test_b.py", "x = 1\n\n\ndef test_it_is_told() -> None: ...\n", 4),
        ("tools/a.py", "class ToldTwice: ...\n", 1),
        ("dashboards/a.py", 'TITLE = (\n    "Which queues "\n    "stand still"\n)\n', 2),
    ],
)
def test_a_word_is_found_with_its_line_and_what_to_write(
    file: str, text: str, line: int, tmp_path: Path
) -> None:
    code, lines = check(tmp_path, file, text)
    assert code == 1
    assert lines[0].startswith(f"{file}:{line}: ")
    assert ": write " in lines[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "README.md",
            "`heads.lua`, [a link](beside.md), a foretold headstand, BullMQQueueStandsStill\n",
        ),
        ("README.md", "A large value is shown as `[left out: 20 bytes]`.\n"),
        ("exporter/a.py", '"""What is told."""\n\n# What stands beside.\nheads = "told"\n'),
        ("exporter/a.py", 'MARK = "[left out: %d bytes]"\n'),
        ("exporter/web/page/page.js", "// beside\nconst told = tell(beside);\n"),
        ("exporter/web/page/a.js", "/** Is\n told. */ html`<p>${told} ${{ a: tell }}</p>`;\n"),
        ("tests/test_a.py", 'TEXT = "what is told"\nforetold = teller = TEXT\n'),
        ("tests/newest/a.py", "told = 1\n"),
    ],
)
def test_other_names_code_and_tests_are_not_checked(file: str, text: str, tmp_path: Path) -> None:
    assert check(tmp_path, file, text) == (0, [])


def test_files_that_hold_no_text_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "picture.png").write_bytes(b"\xff what is told")
    assert check(tmp_path, "README.md", "Nothing.\n") == (0, [])

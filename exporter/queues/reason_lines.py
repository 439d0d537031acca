"""Extracts the sentence that says what went wrong from a failure reason with traces, pages or
details.
"""

from __future__ import annotations

import re
import unicodedata

# How many characters are read of a reason, and from the end of a longer one that is a traceback.
MAX_READ_LENGTH = 4000

_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*+[@-~]?")
_PYTHON_TRACEBACK = "Traceback (most recent call last)"
# `PageError: 502 <!DOCTYPE html><html>…`
_HTML = re.compile(r"<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_HEADINGS = tuple(
    re.compile(rf"<{name}\b[^>]*+>(?P<text>.{{0,200}}?)</{name}>", re.IGNORECASE | re.DOTALL)
    for name in ("title", "h1")
)
_TAG = re.compile(r"<[^<>]*+>")
# Frames of JavaScript, Java and .NET, of PHP and of Ruby; marks below code; numbered code.
_FRAME = re.compile(
    r"\s+at |\s*\.{3} \d+ more|#\d+ |\s+from \S+:\d+|\s*[\^~][\^~\s]*$|(?:→|>)?\s+\d+(?:\s|$)"
)
# `/app/src/mail.ts:41:30`, alone in a line.
_LOCATION = re.compile(r"\S+\.\w{1,4}:\d+(?::\d+)?$")
# What follows is about one occurrence: rows, values, the whole statement, threads.
_OCCURRENCE = re.compile(
    r"(?:DETAIL|HINT|CONTEXT|QUERY|STATEMENT|LINE \d+|WHERE): |\[SQL: |\[parameters: "
    r"|\(Background on|params: |goroutine \d|Stack trace:|Require stack:"
)
# The same within a line, after a string that is quick to find: queries of Laravel, scripts of
# Redis, positions in statements of PostgreSQL.
_OCCURRENCES_IN_LINE = (
    ("(Connection: ", re.compile(r" \(Connection: ")),
    ("@user_script:", re.compile(r",? script: [0-9a-f]{40}, on @user_script:\d+\.?")),
    (" at character ", re.compile(r" at character \d+$")),
)
# `Error: Error: it failed`: the class of everything says nothing.
_GENERIC_CLASS = re.compile(r"(?:(?:Uncaught )?[Ee]rror: |ERROR: )+")


def essence(reason: str) -> str:
    """The part of a reason that says what went wrong, in one line of printable text.

    For a traceback of Python that is its last exception, for one of Java its first and its last
    cause, for a page of HTML its title; never frames, statements and values of one occurrence. Each
    step reads its input once; no more than twice `MAX_READ_LENGTH` characters are read.
    """
    text = reason[:MAX_READ_LENGTH]
    if _PYTHON_TRACEBACK in text:
        text = _last_exception(text if text == reason else reason[-MAX_READ_LENGTH:])
    text = _plain(text)
    if "<" in text and (page := _HTML.search(text)):
        text = text[: page.start()] + _heading(text, page.start())
    if "\n" in text:
        text = _significant_lines(text)
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(each for each in line if each.isprintable())
    for sign, pattern in _OCCURRENCES_IN_LINE:
        if sign in line and (occurrence := pattern.search(line)) and occurrence.start():
            line = line[: occurrence.start()]
    if generic := _GENERIC_CLASS.match(line):
        line = line[generic.end() :]
    return line[:MAX_READ_LENGTH]


def _plain(text: str) -> str:
    """Without colours and escaped quotation marks; digits and brackets of any width as ASCII."""
    if "\x1b" in text:
        text = _ESCAPE_SEQUENCE.sub("", text)
    if not text.isascii():
        # Lone surrogates cannot be exposed. A character may become 18.
        text = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
        text = text[:MAX_READ_LENGTH]
    return text.replace('\\"', '"').replace("\\'", "'").strip()


def _heading(text: str, start: int) -> str:
    for heading in _HEADINGS:
        if found := heading.search(text, start):
            return _TAG.sub(" ", found["text"])
    return text[start:]


def _last_exception(text: str) -> str:
    """The text below the last frame: the first line that is not indented, and those after it."""
    lines = text[max(0, text.rfind(_PYTHON_TRACEBACK)) :].splitlines()
    for number, line in enumerate(lines[1:], 1):
        if line and not line[0].isspace():
            return "\n".join(lines[number:])
    return text


def _significant_lines(text: str) -> str:
    kept: list[str] = []
    cause: str | None = None
    for line in text.splitlines():
        if line.startswith("Caused by: "):
            cause = line
        elif not kept:
            kept.append(line)
        elif _OCCURRENCE.match(line):
            break
        elif _LOCATION.match(line):
            # Prisma: `Invalid … invocation in`, and below it where.
            kept[-1] = kept[-1].removesuffix(" in") + ":"
        elif not _FRAME.match(line):
            kept.append(line)
    return "\n".join([*kept, cause] if cause else kept)

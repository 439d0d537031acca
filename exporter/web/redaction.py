"""Hides secrets in what applications write into jobs, before anything else is done with it.

By keys (`api.redact`): the value of a key whose name fits a pattern. In JSON that is exact, at any
depth and in JSON within texts. In other texts (reasons, stack traces, logs, what util.inspect or
Python's repr wrote) names are searched for, and when in doubt too much is hidden, not too little.
By values (`api.redact_values`): what looks like a token, a mail address or a URL's credentials.

Whoever can add a job decides what stands here, and it is looked through in the process that polls:
each text takes a time that grows with its length alone, and each job at most what the limits below
allow. So no expression below goes back over what it has read: repetitions are possessive (`*+`),
and begin where no other one is under way.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import translate
from typing import Any, NamedTuple

import orjson

from exporter.bullmq.job_detail import JobDetail
from exporter.bullmq.jobs import Job, NotJson

REDACTED = "[redacted]"
NOT_JSON = "[redacted: not JSON]"
TOO_LONG = "[redacted: too long to look through]"
# What is looked through of one job, with its children and the page of its log that an answer shows;
# a text, list or object that would exceed it is hidden whole. Nothing else is done meanwhile: 2 µs
# for each character of texts that hold a name and for each escape, 0.7 µs for each character that
# is looked through for values, and 3 µs for each key or element of JSON.
MAX_TEXT_LENGTH = 50_000
MAX_VALUE_TEXT_LENGTH = 200_000
MAX_VALUES = 50_000
# Longer keys that are not ASCII are hidden: bringing them into one form takes the square of it.
MAX_NORMALIZED_LENGTH = 200
# How far before its end (characters) the beginning of a quoted key is searched for.
MAX_QUOTED_KEY = 200

# Characters that are not seen: within a name they do not make it another one.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Letters of full width, as ASCII.
FULL_WIDTH = {0xFF01 + at: 0x21 + at for at in range(94)}
# Characters as JavaScript, JSON, Python, URLs and XML write them in ASCII.
ESCAPED = re.compile(
    r"(?<!\\)\\++(?:u(?P<u>[0-9a-f]{4})|u\{(?P<braces>[0-9a-f]{1,6})\}|U(?P<long>[0-9a-f]{8})"
    r"|x(?P<x>[0-9a-f]{2})|(?P<octal>[0-7]{3})|(?P<space>[nrtfv]))"
    r"|%(?P<percent>[0-9a-f]{2})|&#x(?P<xml>[0-9a-f]{1,8});|&#(?P<decimal>\d{1,8});",
    re.IGNORECASE,
)
# What stands for a field that is too large (`jobs.too_large`).
LEFT_OUT = re.compile(r"\[left out: \d++ bytes\]")
JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
# The key of an object, plain or escaped.
JSON_KEY = re.compile(r'"[^"]{1,200}+"\s*+:')
# Where a line of a log comes from, before its text; in JSON no text follows on a list.
TAGS = re.compile(r"\A(?:\[[\w .:/-]{1,60}+\]\s*+)++(?=\w)")
# What may be a name: alone, or as the last or another part of a path.
WORD = re.compile(r"[\w$.-]+")
PARTS = re.compile(r"[^\W]+")
# A string that may name what stands beside it: {"name": "password", "value": "x"}.
NAME = re.compile(r"[\w$.:/\[\]-]{1,100}")

BEGIN = r"(?<![\w$.-])"
QUOTES = "\"'`"
# `password: x`, `"password" = 'x'`, `\"password\": x`, `password => x`, `password 'x'`.
ASSIGNMENT = re.compile(
    rf"{BEGIN}([\w$.-]++)\\*+[{QUOTES}]?\]?(?:\s*+(?:=>|:=|==?|:)|\s++(?=\\*+[{QUOTES}]))"
)
# A quoted key that is more than a word; its beginning is searched for.
QUOTED_ASSIGNMENT = re.compile(rf"([{QUOTES}])\]?\s*+(?:=>|:=|==?|:)")
# `--password x`, `"--password", "x"`.
OPTION = re.compile(rf"{BEGIN}(-[\w$.-]++)\\*+[{QUOTES}]?[\s,]++")
# `<password>`, `<ns:password type="x">`.
TAG = re.compile(r"<(?:[\w.-]++:)?([\w.-]++)")
# `name="password"`, `'password', 'x'`, `<key>password</key>`: the value stands beside it.
NAMED = re.compile(
    rf"(?<!\w)(?:name|key|field|header|param|parameter|property|attribute|label|type|variable|env)"
    rf"\\*+[{QUOTES}]?\s*+[:=]>?\s*+\\*+[{QUOTES}]?([\w$.-]++)",
    re.IGNORECASE,
)
LISTED = re.compile(rf"{BEGIN}([\w$.-]++)\\*+[{QUOTES}]\s*+,")
XML_TEXT = re.compile(r">\s*+([\w$.-]++)\s*+<")
# A class is no key: `JsonWebTokenError: jwt expired`.
ERROR_CLASS = re.compile(r"(?:Error|Exception|Warning)\Z")
# A place in a source file is no assignment: `/app/token.js:12:5`.
SOURCE_FILE = re.compile(r"\.(?:[cm]?[jt]sx?|py|rb|go|java|kt|rs|php|cs|vue)\Z")
SOURCE_LINE = re.compile(r"\d{1,7}(?::\d{1,7})?(?=[)\s]|\Z)")

# Where data may begin within a text.
DATA = re.compile(rf"\{{|[\[(](?=\s{{0,20}}\\{{0,20}}[bBrRuU]?[{QUOTES}\{{\[(])")
BRACKET = re.compile(r"[\[\](){}]")
BRACKET_OR_QUOTE = re.compile(rf"\\.|[\[\](){{}}{QUOTES}]", re.DOTALL)
OPENING = "[({"
# Space, also as a text within a text has it.
SPACE = re.compile(r"(?:\s|(?<!\\)\\++[nrt])*+")
STRING = re.compile(rf"{SPACE.pattern}[bBrRuUfF]{{0,2}}(\\*+)([{QUOTES}])")
CONTINUED = re.compile(rf"\s*+\+?\s*+(?=\\*+[{QUOTES}])")
UNTIL_SPACE = re.compile(r"\S*+")
LINE = re.compile(r"[^\n]*+")


class Redaction:
    """What is hidden, and how."""

    def __init__(self, patterns: Sequence[str] = (), values: Sequence[str] = ()) -> None:
        """`patterns` of keys as of file names (`*token*`), without regard to case; kinds of
        `values`, of VALUE_KINDS.
        """
        joined = "|".join(translate(pattern) for pattern in patterns)
        self._names = re.compile(joined, re.IGNORECASE) if patterns else None
        self._literals = [_longest_literal(pattern) for pattern in patterns]
        self._hide_values = [VALUE_KINDS[kind] for kind in values]
        # What is left for the job at hand; reset by `_begin`.
        self._text_left = self._value_text_left = self._values_left = 0

    @property
    def hides(self) -> bool:
        return self._names is not None or bool(self._hide_values)

    def job(self, job: Job) -> Job:
        """The job without what is hidden. Its name and id stay: it is found by them."""
        if not self.hides:
            return job
        self._begin()
        return self._job(job)

    def _job(self, job: Job) -> Job:
        reason, traces = self._json(job.failed_reason), self._json(job.stacktrace)
        return job._replace(
            failed_reason=reason,
            stacktrace=traces if isinstance(traces, list) else [traces],
            data=self._json(job.data),
            return_value=self._json(job.return_value),
        )

    def detail(self, detail: JobDetail) -> JobDetail:
        """The job in full without what is hidden; all of it shares one allowance."""
        if not self.hides:
            return detail
        self._begin()
        # The job itself first: its children and its log have what it leaves.
        job = self._job(detail.job)
        options, progress = self._json(detail.options), self._json(detail.progress)
        children = detail.children
        if children is not None:
            jobs = tuple(
                child
                if child.now is None
                else child._replace(
                    now=child.now._replace(failed_reason=self._json(child.now.failed_reason))
                )
                for child in children.jobs
            )
            children = replace(children, jobs=jobs)
        return replace(
            detail,
            job=job,
            options=options,
            progress=progress,
            children=children,
            log_lines=tuple(self._json(line) for line in detail.log_lines),
        )

    def value(self, value: Any) -> Any:
        """A JSON value, such as a text, without what is hidden."""
        if not self.hides:
            return value
        self._begin()
        return self._json(value)

    def _begin(self) -> None:
        self._text_left, self._values_left = MAX_TEXT_LENGTH, MAX_VALUES
        self._value_text_left = MAX_VALUE_TEXT_LENGTH

    def _json(self, value: Any) -> Any:
        try:
            return self._value(value)
        except RecursionError:  # JSON within texts within JSON
            return NOT_JSON

    # Keys

    def _is_name(self, name: str) -> bool:
        if self._names is None:
            return False
        if not name.isascii():
            if len(name) > MAX_NORMALIZED_LENGTH:
                return True
            name = unicodedata.normalize("NFKC", name)
        return self._names.match(INVISIBLE.sub("", name).strip()) is not None

    def _is_word(self, word: str) -> bool:
        """Whether a word of a text, or a part of it (`db.password`), is a name."""
        if self._is_name(word.strip("-.$")):
            return True
        parts = PARTS.findall(word)
        return len(parts) > 1 and any(map(self._is_name, parts))

    def _names_in(self, text: str) -> set[str]:
        """The names that stand anywhere in the text."""
        if not self._may_have_name(text):
            return set()
        names = {word for word in set(WORD.findall(text)) if self._is_word(word)}
        quoted = {part.strip("\\") for part in re.split(f"[{QUOTES}]", text)}
        return names | {
            part for part in quoted if len(part) <= MAX_QUOTED_KEY and self._is_name(part)
        }

    def _may_have_name(self, text: str) -> bool:
        """A quick answer for nearly all texts, which hold no name at all."""
        lowered = text.casefold()
        return any(literal in lowered for literal in self._literals)

    # JSON

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._text(value)
        if not isinstance(value, dict | list):
            return value
        if len(value) > self._values_left:
            return TOO_LONG
        self._values_left -= len(value)
        return self._object(value) if isinstance(value, dict) else self._list(value)

    def _object(self, given: dict[str, Any]) -> dict[str, Any]:
        # {"name": "password", "value": "x"}: what names a secret stays, all beside it goes.
        names = {key for key, value in given.items() if self._is_naming(value)}
        result: dict[str, Any] = {}
        repeated: Counter[str] = Counter()
        for key, value in given.items():
            hidden = self._is_name(key) or (names and key not in names)
            shown_key = without_values = self._without_values(key)
            while shown_key in result:  # keys that are secrets themselves look the same
                repeated[without_values] += 1
                shown_key = f"{without_values} ({repeated[without_values] + 1})"
            result[shown_key] = REDACTED if hidden else self._value(value)
        return result

    def _list(self, given: list[Any]) -> list[Any]:
        # ["authorization", "x"]: headers, entries of a Map, arguments of a command.
        behind = [False, *(self._is_naming(value) for value in given[:-1])]
        return [
            REDACTED if hidden and not isinstance(value, dict | list) else self._value(value)
            for value, hidden in zip(given, behind, strict=False)
        ]

    def _is_naming(self, value: Any) -> bool:
        return (
            isinstance(value, str)
            and self._names is not None
            and NAME.fullmatch(value) is not None
            and self._may_have_name(_visible(value))
            and self._is_word(value)
        )

    # Texts

    def _text(self, text: str) -> str:
        if len(text) < 12 and text.isalnum():  # no key and value, and no token
            return NOT_JSON if isinstance(text, NotJson) and self._names is not None else text
        if self._names is not None:
            if isinstance(text, NotJson):
                return str(text) if LEFT_OUT.fullmatch(text) else NOT_JSON
            text = self._without_keys(text)
        return self._without_values(text)

    def _without_values(self, text: str) -> str:
        if not self._hide_values:
            return text
        if len(text) > self._value_text_left:
            return TOO_LONG
        self._value_text_left -= len(text)
        for hide in self._hide_values:
            text = hide(text)
        return text

    def _without_keys(self, text: str) -> str:
        bare = INVISIBLE.sub("", text).strip()
        begin = TAGS.sub("", bare, count=1)[:1]
        if begin and begin in '{["':
            try:
                within = orjson.loads(bare)
            except orjson.JSONDecodeError:
                # Cut off, or something else in brackets.
                if begin != '"' and JSON_KEY.search(bare):
                    return NOT_JSON
            else:
                return self._within_json(text, within)
        visible = _visible(text)
        unescaped = visible
        if escapes := sum(map(visible.count, "\\%&")):  # at most
            if escapes > self._text_left:
                return TOO_LONG
            self._text_left -= escapes
            unescaped = _visible(ESCAPED.sub(_unescaped, visible))
        if not (self._may_have_name(visible) or self._may_have_name(unescaped)):
            return text
        if len(visible) > self._text_left:
            return TOO_LONG
        self._text_left -= len(visible)
        names = self._names_in(visible)
        if self._names_in(unescaped) - names or (names and begin and begin in "[<"):
            # A name that is written in another way; JSON5, repr or XML, where the value of a name
            # may stand before it.
            return NOT_JSON
        return self._without_assignments(visible)

    def _within_json(self, text: str, within: Any) -> str:
        shown = self._value(within)
        try:
            written = orjson.dumps(shown).decode()
        except TypeError:  # orjson reads deeper than it writes
            return NOT_JSON
        # Only the last of repeated keys was looked through, but the text holds them all.
        if shown == within and _count_keys(INVISIBLE.sub("", text)) == _count_keys(written):
            return text
        return written

    def _without_assignments(self, text: str) -> str:
        kept: list[str] = []
        at = 0  # how far the text has been taken over or hidden
        starts = [found.start() for found in DATA.finditer(text)]
        assigned, data = iter(self._assignments(text, starts)), iter(starts)
        next_assigned, next_data = next(assigned, None), next(data, None)
        while next_assigned is not None or next_data is not None:
            if next_data is None or (next_assigned and next_assigned.begin <= next_data):
                assert next_assigned is not None
                if next_assigned.behind >= at:
                    kept += text[at : next_assigned.begin], REDACTED
                    at = next_assigned.end_of(text, next_assigned.behind)
                next_assigned = next(assigned, None)
            else:
                if next_data >= at:
                    end, shown = self._span(text, next_data)
                    kept += text[at:next_data], shown
                    at = end
                next_data = next(data, None)
        return "".join([*kept, text[at:]])

    def _span(self, text: str, begin: int) -> tuple[int, str]:
        """Where data ends that begins there, and what is shown of it."""
        end = _end_of_data(text, begin, BRACKET_OR_QUOTE)
        try:
            within = orjson.loads(text[begin:end])
        except orjson.JSONDecodeError:
            end = max(end, _end_of_data(text, begin, BRACKET))
            span = text[begin:end]
            return end, NOT_JSON if self._names_in(span) else span
        return end, self._within_json(text[begin:end], within)

    def _assignments(self, text: str, starts: Sequence[int]) -> list[_Assignment]:
        """What assigns a value to a name, in order; `starts` are those of data."""
        found: list[_Assignment] = []
        for match in ASSIGNMENT.finditer(text):
            word = match[1]
            if self._is_word(word) and not _is_no_key(text, word, match):
                found.append(_Assignment(match.end(), match.end(), _end_of_value))
        for match in QUOTED_ASSIGNMENT.finditer(text):
            close = match.start()
            open_ = text.rfind(match[1], max(0, close - MAX_QUOTED_KEY), close)
            if open_ >= 0 and self._is_name(text[open_ + 1 : close].strip("\\")):
                found.append(_Assignment(match.end(), match.end(), _end_of_value))
        for pattern, end_of in ((OPTION, _end_of_argument), (TAG, _end_of_element)):
            found += (
                _Assignment(match.end(), match.end(), end_of)
                for match in pattern.finditer(text)
                if self._is_word(match[1])
            )
        # The value may stand before its name, in the same data.
        first = min((start for start in (*starts[:1], text.find("<")) if start >= 0), default=None)
        for pattern in (NAMED, LISTED, XML_TEXT):
            for match in pattern.finditer(text):
                if self._is_word(match[1]) and not SOURCE_FILE.search(match[1]):
                    behind = match.end(1)
                    begin = behind if first is None else min(first, behind)
                    found.append(_Assignment(begin, behind, _end_of_next_line))
        return sorted(found, key=lambda each: each[:2])


class _Assignment(NamedTuple):
    """Where a name's value is: from `begin` to an end that is searched for from `behind` on."""

    begin: int
    behind: int
    end_of: Callable[[str, int], int]


def _longest_literal(pattern: str) -> str:
    """The longest part of a pattern that a name has to have as it is."""
    plain = re.split(r"[*?]|\[[^\]]*+\]?", pattern.casefold())
    return max(plain, key=len)


def _is_no_key(text: str, word: str, assignment: re.Match[str]) -> bool:
    """Whether what looks like a key is a class of errors or a source file."""
    if SOURCE_FILE.search(word):
        return SOURCE_LINE.match(text, assignment.end()) is not None
    return assignment[0] == f"{word}:" and ERROR_CLASS.search(word) is not None


def _count_keys(json: str) -> int:
    """The keys of all objects in JSON, also those that are repeated."""
    return JSON_STRING.sub("", json).count(":")


def _visible(text: str) -> str:
    """The text in the letters that a reader sees."""
    visible = INVISIBLE.sub("", text)
    return visible if visible.isascii() else visible.translate(FULL_WIDTH)


def _unescaped(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    if kind == "space":
        return " "
    code = int(found[kind], {"octal": 8, "decimal": 10}.get(kind, 16))
    return chr(code) if code < 0x110000 else "\ufffd"


def _end_of_data(text: str, begin: int, token: re.Pattern[str]) -> int:
    """Behind the bracket that closes the one at `begin`; the end of the text without one.

    By brackets alone, or without those in quotes: an apostrophe may be either.
    """
    depth = 0
    quote = ""
    for found in token.finditer(text, begin):
        sign = found[0]
        if quote:
            quote = "" if sign == quote else quote
        elif sign in QUOTES:
            quote = sign
        elif sign in OPENING:
            depth += 1
        elif len(sign) == 1:
            depth -= 1
            if not depth:
                return found.end()
    return len(text)


def _end_of_value(text: str, begin: int) -> int:
    """The end of the value behind an assignment."""
    if (string := STRING.match(text, begin)) is not None:
        return _end_of_strings(text, string)
    at = _end_of(SPACE, text, begin)
    if at == len(text):
        return at
    if text[at] in OPENING:
        ends = (_end_of_data(text, at, each) for each in (BRACKET, BRACKET_OR_QUOTE))
        return max(ends)
    if at == begin:
        return _end_of(UNTIL_SPACE, text, at)
    line_begin = text.rfind("\n", begin, at) + 1
    end = _end_of_line(text, at)
    if text[at:end].rstrip() in ("|", ">", "|-", ">-", "|+", ">+"):
        return len(text)  # a block of YAML
    if line_begin:
        # The value stands below its name: so do all lines that are indented as far.
        indent = text[line_begin:at]
        while indent and text.startswith("\n" + indent, end):
            end = _end_of_line(text, end + 1)
    return end


def _end_of_strings(text: str, string: re.Match[str] | None) -> int:
    """The end of a string, and of others that belong to it: `'a' + 'b'`, `'it''s'`."""
    end = 0
    while string is not None:
        end = _end_of_string(text, string.end(), len(string[1]), string[2])
        more = CONTINUED.match(text, end)
        string = STRING.match(text, more.end()) if more else None
    return end


def _end_of_string(text: str, begin: int, slashes: int, quote: str) -> int:
    at = text.find(quote, begin)
    while at >= 0:
        before = at
        while before > begin and text[before - 1] == "\\":
            before -= 1
        # Within a text that is escaped itself, one with more backslashes belongs to the string.
        closes = at - before <= slashes if slashes else (at - before) % 2 == 0
        # An apostrophe may stand within a word of a secret.
        if closes and not text[at + 1 : at + 2].isalnum():
            return at + 1
        at = text.find(quote, at + 1)
    return len(text)


def _end_of(pattern: re.Pattern[str], text: str, begin: int) -> int:
    found = pattern.match(text, begin)
    return found.end() if found else begin


def _end_of_line(text: str, begin: int) -> int:
    return _end_of(LINE, text, begin)


def _end_of_next_line(text: str, begin: int) -> int:
    return _end_of_line(text, min(_end_of_line(text, begin) + 1, len(text)))


def _end_of_argument(text: str, begin: int) -> int:
    if (string := STRING.match(text, begin)) is not None:
        return _end_of_strings(text, string)
    return _end_of(UNTIL_SPACE, text, begin)


def _end_of_element(text: str, begin: int) -> int:
    end = text.find("</", begin)
    return len(text) if end < 0 else end


# Values

# Prefixes by which services mark their tokens, so that leaks are found.
TOKEN_PREFIXES = (
    *("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xoxa-", "xoxb-", "xoxe-"),
    *("xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-", "sk-", "sk_live_", "sk_test_", "rk_live_"),
    *("rk_test_", "pk_live_", "whsec_", "AKIA", "ASIA", "AIza", "ya29.", "GOCSPX-", "SG.", "npm_"),
    *("pypi-", "hf_", "dop_v1_", "hvs.", "shpat_", "lin_api_", "ntn_", "sq0atp-"),
)
TOKEN = re.compile(
    # JSON Web Tokens.
    r"(?<![\w-])eyJ[\w-]{5,}+\.[\w-]++(?:\.[\w-]*+)*+"
    rf"|(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, TOKEN_PREFIXES))})[\w.-]{{12,}}+"
    # In HTTP headers; `Basic` is a word as well.
    r"|(?<![\w-])(?i:bearer|token)\s++(?=[A-Za-z.~+/-]*+[\d_])[\w.~+/=-]{8,}+"
    r"|(?<![\w-])(?i:basic)\s++(?=[a-z+/]*+[A-Z\d=])[A-Za-z0-9+/=]{6,}+"
    # Private keys.
    r"|-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:(?!-----END).)*+-----END[^-]*+-{0,5}"
    r"|.*+)",
    re.DOTALL,
)
MAIL_ADDRESS = re.compile(
    r"(?<![\w.+'-])[\w.+'-]++(?:@|%40|\uff20)(?:[\w-]++\.(?=[\w-]))++[^\W\d_][\w-]++",
    re.IGNORECASE,
)
URL = re.compile(r"://([^\s\"'<>`]++)")
# Parameters by which a URL lets in whoever has it.
URL_SECRET = re.compile(
    r"(?<=[?&;#])((?:access_token|api_?key|auth|code|credential|id_token|key|pass|passwd|password"
    r"|refresh_token|secret|client_secret|sig|signature|token|x-(?:amz|goog)-(?:signature|credential"
    r"|security-token))=)[^\s&;#\"'<>`]++",
    re.IGNORECASE,
)


def _hide_tokens(text: str) -> str:
    return TOKEN.sub(REDACTED, text)


def _hide_mail_addresses(text: str) -> str:
    return MAIL_ADDRESS.sub(REDACTED, text)


def _hide_url_credentials(text: str) -> str:
    return URL_SECRET.sub(rf"\1{REDACTED}", URL.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    return "".join("://" + _host(part) for part in found[1].split("://"))


def _host(rest: str) -> str:
    """What stands behind `://`, without user and password."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if not at:
        # A password may hold what ends the authority elsewhere; a port is a number.
        _, colon, port = authority.partition(":")
        if not colon or port.isdigit():
            return rest
        user, at, _ = rest.rpartition("@")
    return f"{REDACTED}@{rest[len(user) + 1 :]}" if at else rest


VALUE_KINDS: dict[str, Callable[[str], str]] = {
    "tokens": _hide_tokens,
    "mail_addresses": _hide_mail_addresses,
    "url_credentials": _hide_url_credentials,
}

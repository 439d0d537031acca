"""Hides secrets in what applications write into jobs, before anything else is done with it.

By keys (`api.redact`): the value of a key whose name fits a pattern. In JSON that is exact, at any
depth and in JSON within texts. In other texts (reasons, stack traces, logs, what util.inspect or
Python's repr wrote) names are searched for, and when in doubt too much is hidden, not too little.
By values (`api.redact_values`): what looks like a token, a mail address or a URL's credentials.

Whoever can add a job decides what these texts contain, and they are searched in the process that
polls. So the time for each text must grow only linearly with its length, and for each job it is
bounded by the limits below. No expression below backtracks: repetitions are possessive (`*+`), and
do not begin within another one. A repeated group is atomic as well (`(?>…)*+`): Python before
3.11.5 matches other groups with alternatives wrongly, or forever (gh-106052).
"""

from __future__ import annotations

import asyncio
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import translate
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any, NamedTuple

import orjson

from exporter.queues.failure_evidence import JobEvidence, ReasonEvidence
from exporter.queues.failure_reasons import FoldedReason
from exporter.queues.job_detail import Child, JobDetail
from exporter.queues.jobs import Job
from exporter.queues.json_values import NotJson
from exporter.queues.text import text

REDACTED = "[redacted]"
NOT_JSON = "[redacted: not JSON]"
TOO_LONG = "[redacted: too long to look through]"
# The allowances of one job, with its children and the page of its log that an answer shows; a text,
# list or object that would exceed them is hidden as a whole. It takes 1 µs for each character of
# texts that hold a name and for each escape, 0.2 µs for each character of texts that may hold a
# value, and 3 µs for each key or element of JSON; 0.04 µs for each character of all other texts.
MAX_TEXT_LENGTH = 50_000
MAX_VALUE_TEXT_LENGTH = 200_000
MAX_VALUES = 50_000
# Longer keys (characters) that are not ASCII are hidden, because normalizing them takes quadratic
# time.
MAX_NORMALIZED_LENGTH = 200
# Seconds after which other tasks may run. A single text is not divided: it may take 50 ms.
PIECE_SECONDS = 0.002
# How far before its end (characters) the beginning of a quoted key is searched for.
MAX_QUOTED_KEY = 200

# Invisible characters: a name that contains them is still the same name.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e"
    "\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Terminal codes for colours and links, raw, escaped or without their control character: they are
# invisible, and their last letter is not part of a word. For a link only its two ends: its address
# is searched.
TERMINAL_CODE = re.compile(
    r"(?:\x1b|\\(?<!\\\\)\\*+(?:(?i:x1b|u001b)|033|e))"
    r"(?:\[(?:[0-?]++[ -/]*+[A-Za-z]|[mHJK])|\][0-9]{1,4}+;{1,2}+)"
    r"|\x1b\\|\x9b(?:[0-?]++[ -/]*+[A-Za-z]|[mHJK])|\[[0-9][0-9;]{0,20}+m(?!\])"
)
# Most codes end in this letter; searching for it first takes a fifth of the time.
END_OF_COLOUR = re.compile(r"m(?<=[0-9]m)")
INVISIBLE_ASCII = {at: None for at in range(128) if INVISIBLE.match(chr(at))}
# Letters of full width, as ASCII.
FULL_WIDTH = re.compile("[\uff01-\uff5e]++")
ASCII_OF_FULL_WIDTH = {0xFF01 + at: 0x21 + at for at in range(94)}
# Characters as JavaScript, JSON, Python, URLs and XML write them in ASCII.
ESCAPED = re.compile(
    r"\\(?<!\\\\)\\*+(?:u(?P<u>[0-9a-f]{4})|u\{(?P<braces>[0-9a-f]{1,6})\}|U(?P<long>[0-9a-f]{8})"
    r"|x(?P<x>[0-9a-f]{2})|(?P<octal>[0-7]{3})|(?P<space>[nrtfv]))"
    r"|%(?P<percent>[0-9a-f]{2})|&#x(?P<xml>[0-9a-f]{1,8});|&#(?P<decimal>\d{1,8});",
    re.IGNORECASE,
)
# A text without any of these is neither JSON nor escaped and contains nothing invisible, so a
# simple search shows whether it contains a name.
SIGN = re.compile(
    r'[{\["\\%&'
    + INVISIBLE.pattern[1:].partition("\U0001bca0")[0]
    + "\uff01-\uff5e\U00010000-\U0010ffff]"
)
NEVER = "(?!)"
# The placeholder of a field that is too large (`jobs.too_large`).
LEFT_OUT = re.compile(r"\[left out: \d++ bytes\]")
JSON_STRING = re.compile(r'"[^"\\]*+(?>\\.[^"\\]*+)*+"')
# The key of an object, plain or escaped.
JSON_KEY = re.compile(r'"[^"]{1,200}+"\s*+:')
# The source of a log line, before its text; in JSON no text follows a list.
TAGS = re.compile(r"\A(?>\[[\w .:/-]{1,60}+\]\s*+)++(?=\w)")
# A possible name: alone, or as the last or another part of a path.
WORD = re.compile(r"[\w$.-]+")
PARTS = re.compile(r"[^\W]+")
# A string of a list that may name the next one: ["--password", "x"].
LISTED_NAME = re.compile(r"[\w$.\[\]-]{1,100}")

BEGIN = r"(?<![\w$.-])"
QUOTES = "\"'`"
QUOTE = re.compile(f"[{QUOTES}]")
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
# Keys whose value is a name, and keys of the named value: {"fieldName": "password", "oldValue":
# "x"}.
NAMING = "name|key|field|header|param|parameter|property|attribute|label|type|variable|env"
NAMING_ENDS = (*NAMING.split("|"), "path", "option")
VALUE_ENDS = ("value", "values")
VALUE_KEYS = {"val", "content", "contents", "default", "old", "new", "before", "after"}
# `name="password"`, `'password', 'x'`, `<key>password</key>`: the value is next to the name.
NAMED = re.compile(
    rf"(?<!\w)(?:{NAMING})"
    rf"\\*+[{QUOTES}]?\s*+[:=]>?\s*+\\*+[{QUOTES}]?([\w$.-]++)",
    re.IGNORECASE,
)
LISTED = re.compile(rf"{BEGIN}([\w$.-]++)\\*+[{QUOTES}]\s*+,")
XML_TEXT = re.compile(r">\s*+([\w$.-]++)\s*+<")
# A class is not a key: `JsonWebTokenError: jwt expired`.
ERROR_CLASS = re.compile(r"(?:Error|Exception|Warning)\Z")
# A position in a source file is not an assignment: `/app/token.js:12:5`.
SOURCE_FILE = re.compile(r"\.(?:[cm]?[jt]sx?|py|rb|go|java|kt|rs|php|cs|vue)\Z")
SOURCE_LINE = re.compile(r"\d{1,7}(?::\d{1,7})?(?=[)\s]|\Z)")

# Where data may begin within a text.
DATA = re.compile(rf"\{{|[\[(](?=\s{{0,20}}\\{{0,20}}[bBrRuU]?[{QUOTES}\{{\[(])")
BRACKET = re.compile(r"[\[\](){}]")
BRACKET_OR_QUOTE = re.compile(rf"\\.|[\[\](){{}}{QUOTES}]", re.DOTALL)
OPENING = "[({"
# Space, also in escaped form within a text.
SPACE = re.compile(r"(?>\s|(?<!\\)\\++[nrt])*+")
STRING = re.compile(rf"{SPACE.pattern}[bBrRuUfF]{{0,2}}(\\*+)([{QUOTES}])")
CONTINUED = re.compile(rf"\s*+\+?\s*+(?=\\*+[{QUOTES}])")
UNTIL_SPACE = re.compile(r"\S*+")
LINE = re.compile(r"[^\n]*+")


class Redaction:
    """What is hidden, and how."""

    def __init__(self, patterns: Sequence[str] = (), values: Sequence[str] = ()) -> None:
        """`patterns` for keys, like those of file names (`*token*`), case-insensitive; `values` are
        names of VALUE_KINDS.
        """
        self._names = _Names(patterns)
        self._kinds = [VALUE_KINDS[kind] for kind in values]

    @property
    def hides(self) -> bool:
        return bool(self._names or self._kinds)

    async def job(self, job: Job) -> Job:
        """The redacted job. Its name and id stay, because jobs are found by them."""
        return await _Pass(self._names, self._kinds).job(job) if self.hides else job

    async def detail(self, detail: JobDetail) -> JobDetail:
        """The redacted job in full; all of it shares one allowance."""
        return await _Pass(self._names, self._kinds).detail(detail) if self.hides else detail

    async def reason(self, seen: ReasonEvidence) -> ReasonEvidence:
        """The evidence of a reason, redacted by the current settings, which may have changed."""
        if not self.hides:
            return seen
        sources: Counter[str] = Counter()
        for source, number in seen.sources.items():
            sources[await self._source(source)] += number
        return seen._replace(
            reason=FoldedReason(await self.value(seen.reason.text), seen.reason.fingerprint),
            sources=sources,
            jobs=[await self._job_evidence(job) for job in seen.jobs],
        )

    async def _job_evidence(self, job: JobEvidence) -> JobEvidence:
        await asyncio.sleep(0)  # let other requests run
        trace = job.trace and (await self.value(text(job.trace))).encode()
        source = job.source and await self._source(job.source)
        shown = (await self.value(text(job.text))).encode()
        return job._replace(text=shown, trace=trace, source=source)

    async def _source(self, source: str) -> str:
        shown: dict[str, str] = await self.value({"ingestionSourceId": source})
        return next(iter(shown.values()))

    async def value(self, value: Any) -> Any:
        """A redacted JSON value, such as a text."""
        return await _Pass(self._names, self._kinds).json(value) if self.hides else value


class _Names:
    """The names of keys whose values are hidden."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._pattern = re.compile("|".join(map(translate, patterns)) or NEVER, re.IGNORECASE)
        literals = {_longest_literal(pattern) for pattern in patterns}
        self._literal = re.compile("|".join(map(re.escape, literals)) if patterns else NEVER)

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def may_be_in(self, text: str) -> bool:
        """A quick check: nearly all texts contain no name at all."""
        return self._literal.search(text.casefold()) is not None

    def has(self, name: str) -> bool:
        if not name.isascii():
            if len(name) > MAX_NORMALIZED_LENGTH:
                return True
            name = unicodedata.normalize("NFKC", name)
        name = _without_invisible(name)
        return self.may_be_in(name) and self._pattern.match(name.strip()) is not None

    def has_word(self, word: str) -> bool:
        """Whether a word of a text, or a part of it (`db.password`), is a name."""
        if self.has(word.strip("-.$")):
            return True
        parts = PARTS.findall(word)
        return len(parts) > 1 and any(map(self.has, parts))

    def found_in(self, text: str) -> Counter[str]:
        """The names anywhere in the text, as words or in quotes, and how often each occurs."""
        if not self.may_be_in(text):
            return Counter()
        names = Counter(part.strip("\\") for part in QUOTE.split(text))
        for part in list(names):
            if len(part) > MAX_QUOTED_KEY or not self.has(part):
                del names[part]
        return names + self.words_in(text)

    def words_in(self, text: str) -> Counter[str]:
        words = Counter(WORD.findall(text))
        return Counter({word: times for word, times in words.items() if self.has_word(word)})


class _Key(NamedTuple):
    """What a key's name says."""

    shown: str  # without values that are hidden
    is_name: bool  # its value is hidden
    is_naming: bool  # its value may be a name: `key` in {"key": "password", "value": "x"}
    is_value: bool  # its value belongs to such a name


class _Pass:
    """Redacts one job within its own allowance, and yields to other tasks meanwhile."""

    def __init__(self, names: _Names, kinds: Sequence[_Kind]) -> None:
        self._names, self._kinds = names, kinds
        self._text_left, self._values_left = MAX_TEXT_LENGTH, MAX_VALUES
        self._value_text_left = MAX_VALUE_TEXT_LENGTH
        self._keys: dict[str, _Key] = {}  # the same ones recur nearly always
        self._piece_end = monotonic() + PIECE_SECONDS

    async def job(self, job: Job) -> Job:
        reason, traces = await self.json(job.failed_reason), await self.json(job.stacktrace)
        return job._replace(
            failed_reason=reason,
            stacktrace=traces if isinstance(traces, list) else [traces],
            data=await self.json(job.data),
            return_value=await self.json(job.return_value),
        )

    async def detail(self, detail: JobDetail) -> JobDetail:
        # The job itself first: its children and its log get the rest of the allowance.
        job = await self.job(detail.job)
        options, progress = await self.json(detail.options), await self.json(detail.progress)
        children = detail.children
        if children is not None:
            jobs = tuple([await self._child(child) for child in children.jobs])
            children = replace(children, jobs=jobs)
        return replace(
            detail,
            job=job,
            options=options,
            progress=progress,
            children=children,
            log_lines=tuple([await self.json(line) for line in detail.log_lines]),
        )

    async def _child(self, child: Child) -> Child:
        if child.now is None:
            return child
        reason = await self.json(child.now.failed_reason)
        return child._replace(now=child.now._replace(failed_reason=reason))

    async def json(self, value: Any) -> Any:
        try:
            return await self._value(value)
        except RecursionError:  # JSON within texts within JSON
            return NOT_JSON

    async def _yield_to_others(self) -> None:
        if monotonic() > self._piece_end:
            await asyncio.sleep(0)
            self._piece_end = monotonic() + PIECE_SECONDS

    # JSON

    def _is_plain(self, value: Any) -> bool:
        """A quick check: in nearly all values there is nothing to hide."""
        if type(value) is not str:
            return not isinstance(value, (str, dict, list))
        if self._names and (SIGN.search(value) or self._names.may_be_in(value)):
            return False
        if not self._kinds:
            return True
        bare = _without_codes(value)
        return not any([kind.may_be_in(bare) for kind in self._kinds])

    async def _value(self, value: Any) -> Any:
        if self._is_plain(value):
            return value
        if isinstance(value, str):
            return await self._text(value)
        if len(value) > self._values_left:
            return TOO_LONG
        self._values_left -= len(value)
        return await (self._object(value) if isinstance(value, dict) else self._list(value))

    async def _object(self, given: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        repeated: Counter[str] = Counter()
        # {"name": "password", "value": "x"}: whether there is such a name, and the values of it.
        is_named = False
        values: list[str] = []
        for given_key, value in given.items():
            await self._yield_to_others()
            key = self._keys.get(given_key) or await self._add_key(given_key)
            shown_key = key.shown
            while shown_key in result:  # keys that are secrets themselves look the same
                repeated[key.shown] += 1
                shown_key = f"{key.shown} ({repeated[key.shown] + 1})"
            if key.is_name:
                result[shown_key] = REDACTED
            elif self._is_plain(value):
                result[shown_key] = value
            else:
                result[shown_key] = await self._value(value)
                is_named = is_named or (key.is_naming and self._is_whole_name(value))
            if key.is_value:
                values.append(shown_key)
        return result | dict.fromkeys(values, REDACTED) if is_named else result

    async def _list(self, given: list[Any]) -> list[Any]:
        result: list[Any] = []
        # ["authorization", "x"]: headers, entries of a Map, arguments of a command.
        is_named = False
        for value in given:
            await self._yield_to_others()
            if self._is_plain(value):
                result.append(REDACTED if is_named else value)
                is_named = False
                continue
            is_text = isinstance(value, str)
            result.append(REDACTED if is_named and is_text else await self._value(value))
            is_named = is_text and self._is_option(value)
        return result

    async def _add_key(self, key: str) -> _Key:
        lowered = key.casefold()
        added = self._keys[key] = _Key(
            await self._without_values(key),
            self._names.has(key),
            lowered.endswith(NAMING_ENDS),
            lowered.endswith(VALUE_ENDS) or lowered in VALUE_KEYS,
        )
        return added

    def _is_whole_name(self, value: Any) -> bool:
        """Whether it names a secret as a whole: `password`, `--password`, `/user/password`."""
        if not isinstance(value, str) or len(value) > MAX_NORMALIZED_LENGTH:
            return False
        whole = value.strip("-.$/")
        return self._names.has(whole) or self._names.has(re.split("[./]", whole)[-1])

    def _is_option(self, value: str) -> bool:
        return LISTED_NAME.fullmatch(value) is not None and self._names.has_word(value)

    # Texts

    async def _text(self, text: str) -> str:
        if self._names:
            if isinstance(text, NotJson):
                return str(text) if LEFT_OUT.fullmatch(text) else NOT_JSON
            text = await self._without_keys(text)
        return await self._without_values(text)

    async def _without_values(self, text: str) -> str:
        bare = _without_codes(text)
        if not (kinds := [kind for kind in self._kinds if kind.may_be_in(bare)]):
            return text
        if len(text) > self._value_text_left:
            return TOO_LONG
        self._value_text_left -= len(text)
        shown = bare
        for kind in kinds:
            shown = kind.hide(shown)
            await self._yield_to_others()
        return text if shown == bare else shown

    async def _without_keys(self, text: str) -> str:
        whole = _without_invisible(text)
        bare = whole.strip()
        begin = TAGS.sub("", bare, count=1)[:1]
        if begin and begin in '{["':
            try:
                within = orjson.loads(bare)
            except orjson.JSONDecodeError:
                # Cut off, or something else in brackets.
                if begin != '"' and JSON_KEY.search(bare):
                    return NOT_JSON
            else:
                return await self._within_json(text, within)
        visible = unescaped = _in_ascii(whole)
        if escapes := sum(map(visible.count, "\\%&")):  # at most
            if escapes > self._text_left:
                return TOO_LONG
            self._text_left -= escapes
            unescaped = _unescape(visible)
            await self._yield_to_others()
        is_escaped = unescaped != visible and self._names.may_be_in(unescaped)
        if not (is_escaped or self._names.may_be_in(visible)):
            return text
        if len(visible) > self._text_left:
            return TOO_LONG
        self._text_left -= len(visible)
        await self._yield_to_others()
        found = self._names.found_in(visible)
        if is_escaped and self._names.found_in(unescaped) - Counter(
            map(_unescape, found.elements())
        ):
            return NOT_JSON  # a name that is written in another way
        if found and begin and begin in "[<":
            return NOT_JSON  # JSON5, repr or XML: the value of a name may stand before it
        shown = await self._without_assignments(visible)
        return text if shown == visible else shown

    async def _within_json(self, text: str, within: Any) -> str:
        shown = await self._value(within)
        try:
            written = orjson.dumps(shown).decode()
        except TypeError:  # orjson reads deeper than it writes
            return NOT_JSON
        if written == text:
            return text
        # Only the last of repeated keys was redacted, but the text contains all of them.
        if shown == within and _count_keys(_without_invisible(text)) == _count_keys(written):
            return text
        return written

    async def _without_assignments(self, text: str) -> str:
        kept: list[str] = []
        at = 0  # how far the text was copied or hidden
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
                    end, shown = await self._span(text, next_data)
                    kept += text[at:next_data], shown
                    at = end
                next_data = next(data, None)
        return "".join([*kept, text[at:]])

    async def _span(self, text: str, begin: int) -> tuple[int, str]:
        """Where the data that begins there ends, and what is shown of it."""
        end = _end_of_data(text, begin, BRACKET_OR_QUOTE)
        try:
            within = orjson.loads(text[begin:end])
        except orjson.JSONDecodeError:
            end = max(end, _end_of_data(text, begin, BRACKET))
            span = text[begin:end]
            return end, NOT_JSON if self._names.found_in(span) else span
        return end, await self._within_json(text[begin:end], within)

    def _assignments(self, text: str, starts: Sequence[int]) -> list[_Assignment]:
        """The assignments of values to names, in order; `starts` are the beginnings of data."""
        names = self._names.words_in(text)
        found: list[_Assignment] = []
        for match in ASSIGNMENT.finditer(text):
            word = match[1]
            if word in names and not _is_no_key(text, word, match):
                found.append(_Assignment(match.end(), match.end(), _end_of_value))
        for match in QUOTED_ASSIGNMENT.finditer(text):
            close = match.start()
            open_ = text.rfind(match[1], max(0, close - MAX_QUOTED_KEY), close)
            if open_ >= 0 and self._names.has(text[open_ + 1 : close].strip("\\")):
                found.append(_Assignment(match.end(), match.end(), _end_of_value))
        for pattern, end_of in ((OPTION, _end_of_argument), (TAG, _end_of_element)):
            found += (
                _Assignment(match.end(), match.end(), end_of)
                for match in pattern.finditer(text)
                if self._names.has_word(match[1])
            )
        # The value may stand before its name, in the same data.
        first = min((start for start in (*starts[:1], text.find("<")) if start >= 0), default=None)
        for pattern in (NAMED, LISTED, XML_TEXT):
            for match in pattern.finditer(text):
                if match[1] in names and not SOURCE_FILE.search(match[1]):
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
    """The longest literal part of a pattern."""
    # A bracket right after the opening one is one of the characters between the brackets.
    plain = re.split(r"[*?]|\[!?\]?[^\]]*+\]?", pattern.casefold())
    return max(plain, key=len)


def _is_no_key(text: str, word: str, assignment: re.Match[str]) -> bool:
    """Whether what looks like a key is a class of errors or a source file."""
    if SOURCE_FILE.search(word):
        return SOURCE_LINE.match(text, assignment.end()) is not None
    return assignment[0] == f"{word}:" and ERROR_CLASS.search(word) is not None


def _count_keys(json: str) -> int:
    """The keys of all objects in JSON, also those that are repeated."""
    return JSON_STRING.sub("", json).count(":")


def _without_codes(text: str) -> str:
    """The text without terminal codes; the end of a link becomes a space."""
    if not ("\x1b" in text or "\x9b" in text or END_OF_COLOUR.search(text)):
        return text
    return TERMINAL_CODE.sub(lambda found: "" if found[0][-1].isalpha() else " ", text)


def _without_invisible(text: str) -> str:
    text = _without_codes(text)
    if not text.isascii():
        return INVISIBLE.sub("", text)
    return text if text.isprintable() else text.translate(INVISIBLE_ASCII)


def _in_ascii(text: str) -> str:
    """The text with full-width letters as ASCII."""
    if text.isascii():
        return text
    return FULL_WIDTH.sub(lambda found: found[0].translate(ASCII_OF_FULL_WIDTH), text)


def _unescape(text: str) -> str:
    return _in_ascii(_without_invisible(ESCAPED.sub(_unescaped, text)))


def _unescaped(found: re.Match[str]) -> str:
    kind = found.lastgroup or ""
    if kind == "space":
        return " "
    code = int(found[kind], {"octal": 8, "decimal": 10}.get(kind, 16))
    return chr(code) if code < 0x110000 else "\ufffd"


def _end_of_data(text: str, begin: int, token: re.Pattern[str]) -> int:
    """The position after the bracket that closes the one at `begin`, or the end of the text.

    `token` matches only brackets, or quotes as well: an apostrophe may be a quote or not.
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
        # The value is below its name, with all lines that are indented as far.
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


def _prefixed() -> Iterator[str]:
    for first, prefixes in groupby(sorted(TOKEN_PREFIXES), key=itemgetter(0)):
        rest = "|".join(re.escape(prefix[1:]) for prefix in prefixes)
        yield rf"{first}(?<![A-Za-z0-9]{first})(?:{rest})[\w.-]{{12,}}+"


# Each form begins with a literal letter, and only then checks that it begins a word: that way
# nearly all of a text is skipped in a third of the time.
TOKEN = re.compile(
    "|".join(
        (
            # JSON Web Tokens.
            r"e(?<![\w-]e)yJ[\w-]{5,}+\.[\w-]++(?>\.[\w-]*+)*+",
            *_prefixed(),
            # In HTTP headers; `Basic` is a word as well.
            *(
                rf"{first}(?<![\w-]{first})(?i:{rest})\s++"
                r"(?=[A-Za-z.~+/-]*+[\d_])[\w.~+/=-]{8,}+"
                for first, rest in (("b", "earer"), ("B", "earer"), ("t", "oken"), ("T", "oken"))
            ),
            *(
                rf"{first}(?<![\w-]{first})(?i:asic)\s++"
                r"(?=[a-z+/]*+[A-Z\d=])[A-Za-z0-9+/=]{6,}+"
                for first in "bB"
            ),
            # Private keys.
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:(?>(?!-----END).)*+-----END[^-]*+-{0,5}|.*+)",
        )
    ),
    re.DOTALL,
)
MAIL_ADDRESS = re.compile(
    r"(?<![\w.+'-])[\w.+'-]++(?:@|%40|\uff20)(?>[\w-]++\.(?=[\w-]))++[^\W\d_][\w-]++",
    re.IGNORECASE,
)
URL = re.compile(r"://([^\s\"'<>`]++)")
# Parameters that grant access to everybody who has the URL.
URL_SECRET = re.compile(
    r"([?&;#](?=[\w-]{3,25}+=)"
    r"(?:access_token|api_?key|auth|code|credential|id_token|key|pass|passwd|password|refresh_token"
    r"|secret|client_secret|sig|signature|token"
    r"|x-(?:amz|goog)-(?:signature|credential|security-token))=)[^\s&;#\"'<>`]++",
    re.IGNORECASE,
)


def _may_have_token(text: str) -> bool:
    return TOKEN.search(text) is not None


def _may_have_mail_address(text: str) -> bool:
    return "@" in text or "%40" in text or "\uff20" in text


def _may_have_url_credentials(text: str) -> bool:
    return ("://" in text and "@" in text) or URL_SECRET.search(text) is not None


def _hide_tokens(text: str) -> str:
    return TOKEN.sub(REDACTED, text)


def _hide_mail_addresses(text: str) -> str:
    return MAIL_ADDRESS.sub(REDACTED, text)


def _hide_url_credentials(text: str) -> str:
    return URL_SECRET.sub(rf"\1{REDACTED}", URL.sub(_without_user, text))


def _without_user(found: re.Match[str]) -> str:
    return "".join("://" + _host(part) for part in found[1].split("://"))


def _host(rest: str) -> str:
    """The part after `://`, without user and password."""
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, _ = authority.rpartition("@")
    if not at:
        # A password may contain characters that otherwise end the authority; a port is a number.
        _, colon, port = authority.partition(":")
        if not colon or port.isdigit():
            return rest
        user, at, _ = rest.rpartition("@")
    return f"{REDACTED}@{rest[len(user) + 1 :]}" if at else rest


class _Kind(NamedTuple):
    """A kind of values: a quick look for what may hold one, and the text without them."""

    may_be_in: Callable[[str], bool]
    hide: Callable[[str], str]


VALUE_KINDS = {
    "tokens": _Kind(_may_have_token, _hide_tokens),
    "mail_addresses": _Kind(_may_have_mail_address, _hide_mail_addresses),
    "url_credentials": _Kind(_may_have_url_credentials, _hide_url_credentials),
}

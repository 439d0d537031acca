"""Which parts of a reason differ from job to job, decided token by token."""

from __future__ import annotations

import re

from exporter.queues.reason_values import (
    MIN_RANDOM_LENGTH,
    NUMBER,
    folded_address,
    has_digit,
    has_random_part,
    is_file_name,
    is_random,
    is_status_or_code,
    is_token,
    well_known,
)
from exporter.queues.reason_words import (
    CODE_WORDS,
    CURRENCIES,
    ERROR_CODE,
    FILE_ENDINGS,
    ID_WORDS,
    NAME_FOLLOWS,
    NAME_WORDS,
    SENTENCE_WORDS,
    SERVICE_PORTS,
    SHORT_CODE,
    STATUS_WORDS,
    TECHNICAL_WORDS,
)

# Sentences within sentences: a message that quotes the message of another service.
MAX_DEPTH = 3
# No text beyond this is folded (characters); far less of a reason is shown, even after
# `join_values`. It also bounds the time that a reason of 2,000 quotations takes.
MAX_FOLDED_LENGTH = 1200
# How much text before a value is examined to decide what it is (characters).
CONTEXT_LENGTH = 48
LONG_WORD_LENGTH = 16
MAX_NAME_LENGTH = 80

# Every repetition is possessive or of bounded length; a possessive one of a group is atomic too, as
# Python before 3.11.5 needs it. An alternative that fails has read no further than the next
# quotation mark or the end of a word, so that nothing is read more than twice.
_TOKEN = re.compile(
    r"""
    # Words that are values only if their letters are random, several at once, since most of a
    # reason is such words.
    (?P<plain>
      (?<![\w=])
      (?> (?!ENOTFOUND|to\ host\ |[Rr]esolve\ |null|None|true|false|[0-9a-f]{2}\ [0-9a-f]{2}\ )
          [A-Za-z]{1,40}[,.]?\ )++
    )
  | (?P<folded><(?:\*|email|url|path|host)>(?:(?<=<host>):\d{1,5}\b)?)
    # Several words that are one value, or one fault.
  | (?P<host>
      (?P<host_before>
        (?:ENOTFOUND|EAI_AGAIN|UnknownHostException:|[Rr]esolve\ host:|Host:|to\ host)\ )
      [\w.-]++(?P<host_port>:\d{1,5}\b(?!:)|(?::\w{0,4}){2,8})?
    )
  | (?P<mail_reply>[245]\d\d[ -][245]\.\d{1,3}\.\d{1,3}\b)
  | (?P<bytes>(?i:[0-9a-f]{2,4}(?>\ [0-9a-f]{2,4}\b){3,}+)|<Buffer\ [^<>]*+>)
  | (?P<value>=(?:\([^()]*+\)|\{[^{}]*+\}|\[[^\[\]]*+\]))
    # An apostrophe within a word is no quotation mark.
  | (?P<quotation>
      "[^"]*+" | “[^“”]*+” | „[^„“”]*+[“”] | «[^«»]*+» | 「[^「」]*+」 | 『[^『』]*+』
    | `[^`']*+[`'](?!\w) | `[^`]*+`
    | (?:'(?<!\w')|b'(?<!\wb'))(?>[^']|(?<=\w)'(?=\w))*+'(?!\w)
    )
  | (?P<url>
      (?:[a-z]{2,10}:)?[A-Za-z][A-Za-z0-9+.-]*+://[^\s"'`<>“”«»)\]}]*+
    | data:[\w/+.-]++;[^\s"'<>)]*+
    )
  | (?P<ipv6>
      \[(?=[0-9A-Fa-f.]{0,4}:[0-9A-Fa-f.]{0,4}:)[0-9A-Fa-f:.]{2,45}\](?P<ipv6_port>:\d{1,5}\b)?
    )
  | (?P<path>
      (?: (?:~|\.{1,2})?/(?>[^\s"'`“”«»<>|:,;()\[\]{}]|\(\d{1,9}\)|\[\w{0,30}\])*+
        | [A-Za-z]:\\[^\s"'<>|:,;()\[\]{}]*+
        | \\\\[\w.-]++\\[^\s"'<>|:,;()\[\]{}]*+
      )
      # `/mails/My Files/a b.eml`: words up to the next part, or to the ending of a file.
      (?: (?:\ [A-Z0-9(][\w().&+-]{0,40}+){1,3}?
          /[^\s"'<>|:,;()\[\]{}]*+ )?
      (?: (?:\ [\w()&+-]{1,40}){0,2} \ [\w()&+.-]{1,40}\.(?:ENDINGS)\b )?
      (?: :line\ \d{1,9} | :\d{1,9} ){0,2}
    )
  | (?P<message_id><[^\s<>@]++@[^\s<>]++>)
  | (?P<word>
      (?:::(?=\w))?[\wCURRENCIES%+\-./@#~&?*!\\^](?>[\wCURRENCIES%+\-./:@#~&?*!\\^]|(?<=\w)'(?=\w))*+
    )
    """.replace("ENDINGS", "|".join(sorted(FILE_ENDINGS))).replace("CURRENCIES", CURRENCIES),
    re.VERBOSE,
)
_WORD_BEFORE = re.compile(r"[A-Za-z_-]+\Z")
# In `"path": ["customer", "email"]` the word before "email" is `path` too.
_IN_ARRAY = re.compile(r"""(\w+)["']?\s?[:=]\s?\[\s?(?:["'][\w.-]{1,40}["']\s?,\s?){1,8}\Z""")
_AFTER_NUMBER = re.compile(r"\(\d{1,5}, ?\Z")
_EMAIL = re.compile(r"[^@\s]++@[\w-]++(?>\.[\w-]++)*+\.?")
# `redis@5.0` is a version.
_VERSION = re.compile(r"[^@]*@\d++(?:\.\d++){0,2}")
_SEPARATORS = re.compile(r"([/\\.@#&?!*~+%|]+)")
_DIGITS = re.compile(r"\d[\d.,]*")
_PERCENT_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}")
_NAME = re.compile(r"[\w.$@/:<>*()-]{1,80}")
# Parts of a name with digits: `2024_07` of `events_2024_07`.
_NUMBERED = re.compile(r"[A-Za-z]*\d[\dA-Za-z]*(?>[._-]\d++)*+")
# `ER_DUP_ENTRY`, `user_id`, `userId`, `prisma.user.create()`: nobody's data looks like that.
_PROGRAM_NAME = re.compile(
    r"[A-Z][A-Z_]+|[a-z]++(?>_[a-z]++)++|[A-Za-z]*[a-z][A-Z][A-Za-z]+|\w++(?>\.\w++)*+\(\)"
)
# Names of tables and columns are quoted in statements: `select "id" from "mails"`.
_STATEMENT = re.compile(r"\b(?i:select|insert into|update|delete from) [\"`]")
_REQUEST_OR_STATUS = re.compile(r"(?:GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) \S|[1-5]\d\d [A-Z]")
_LONG_WORD = re.compile(rf"[A-Za-z]{{{MIN_RANDOM_LENGTH},}}")
_LETTERS = re.compile(r"[A-Za-z]{4,}")
_LITERALS = frozenset(("null", "nil", "true", "false", "undefined", "None", "True", "False"))
_ENDS_VALUE = re.compile(r" ?(?:[},;)\]]|\Z)")
# The form of most ids: `cus_8812`, `clx3k9f2a0000`.
_LOWER_CASE_ID = re.compile(r"[a-z_-]+\d[a-z\d_-]*")
_LETTERS_AND_SIGNS = re.compile(r"[A-Za-z'&?*!^]+")


def fold_tokens(text: str, depth: int = 0) -> str:
    """One line of text with placeholders for what differs from job to job.

    `<email>`, `<url>`, `<host>` and `<path>` stand for what has that form, `<*>` for all other
    values: a number of one job is an id with letters of the next. `depth` is that of quotations.
    """
    parts: list[str] = []
    length = end = 0
    for found in _TOKEN.finditer(text):
        parts += text[end : found.start()], _fold_token(found, depth)
        length += found.start() - end + len(parts[-1])
        end = found.end()
        if length > MAX_FOLDED_LENGTH:
            return "".join(parts)
    return "".join([*parts, text[end:]])


def _fold_token(found: re.Match[str], depth: int) -> str:
    kind = found.lastgroup or ""
    token = found[0]
    if kind == "plain":
        return token if len(token) <= MIN_RANDOM_LENGTH else _LONG_WORD.sub(_fold_letters, token)
    if kind in ("folded", "mail_reply"):
        return token
    if kind == "word":
        return _fold_word(found)
    if kind == "quotation":
        return _fold_quotation(found, depth)
    if kind == "value":
        return "=<*>"
    if found.string[found.start() - 1 : found.start()] == "=":
        return "<*>"  # `name=value`, of whatever form
    if kind == "path":
        return _fold_path(found)
    if kind == "url":
        return "<url>" + token[len(token.rstrip(".,:;")) :]
    if kind == "host":
        return f"{found['host_before']}<host>{well_known((found['host_port'] or '')[1:])}"
    if kind == "ipv6":
        return f"<host>{well_known((found['ipv6_port'] or '')[1:])}"
    if kind == "message_id":
        return "<email>"
    return "<*>" if has_digit(token) or len(token) > 14 else token  # bytes; `add bad bed fad`


def _word_before(text: str, end: int) -> str:
    """The word that a value at this position belongs to, in lower case: `code` of `"code": 7`."""
    before = text[max(0, end - CONTEXT_LENGTH) : end].rstrip(" :=#([\"'`{>")
    word = _WORD_BEFORE.search(before)
    return word[0].lower() if word else ""


def _sign_before(text: str, end: int) -> str:
    """The last sign before this position that is no blank."""
    return text[max(0, end - 3) : end].rstrip(" ")[-1:]


def _fold_quotation(found: re.Match[str], depth: int) -> str:
    text, start, end = found.string, found.start(), found.end()
    token = found[0].removeprefix("b")
    mark, content, last_mark = token[0], token[1:-1], token[-1]
    sign = _sign_before(text, start)
    is_name = _NAME.fullmatch(content) is not None
    if is_name and sign in ("{", ",", "") and text[end : end + 2].lstrip()[:1] == ":":
        return f'"{_fold_name(content)}"'  # a key of JSON, or of a dictionary of Python
    word = _word_before(text, start)
    if word in CODE_WORDS and SHORT_CODE.fullmatch(content):
        return token
    is_of_error = word.endswith(("error", "exception"))
    is_sentence = (
        word in SENTENCE_WORDS
        or (is_of_error and " " in content)
        or (start == 0 and end == len(text))
        or _REQUEST_OR_STATUS.match(content) is not None
        or _AFTER_NUMBER.search(text, max(0, start - 10), start) is not None
    )
    if is_sentence and depth < MAX_DEPTH:
        return f"{mark}{fold_tokens(content, depth + 1)}{last_mark}"
    if sign == ",":
        array = _IN_ARRAY.search(text[max(0, start - 2 * CONTEXT_LENGTH) : start])
        word = array[1].lower() if array else word
    is_of_program = (
        word in NAME_WORDS
        or is_of_error
        or NAME_FOLLOWS.match(text, end) is not None
        or (word not in ID_WORDS and _PROGRAM_NAME.fullmatch(content) is not None)
        or (mark in ('"', "`") and _STATEMENT.search(text, 0, 200) is not None)
    )
    if is_name and word == "module" and "/" in content and content[0] != "@":
        content = f"<path>/{content.rpartition('/')[2]}"  # where it is installed differs
    # `KeyError: 'cus_8812'`: what was not found is an id as often as a name.
    is_id = is_of_error and has_digit(content)
    if is_name and is_of_program and not is_id and not _is_of_file(content):
        name = _fold_name(content)
        if name != "<*>":
            return f"{mark}{name}{last_mark}"
    # Without marks behind a colon, where the next value may be a number.
    return "<*>" if sign in (":", "=") else "'<*>'"


def _is_of_file(content: str) -> bool:
    return content.startswith(("/", ".")) or content.count("/") > 1 or is_file_name(content)


def _fold_name(name: str) -> str:
    """The name of a part of a program, without numbers and random letters in it."""
    if "<" in name or name.lower() in TECHNICAL_WORDS or ERROR_CODE.fullmatch(name):
        return name
    if len(name) > MAX_NAME_LENGTH or (len(name) >= LONG_WORD_LENGTH and is_token(name)):
        return "<*>"
    return _LETTERS.sub(_fold_letters, _NUMBERED.sub("<*>", name))


def _fold_letters(found: re.Match[str]) -> str:
    return "<*>" if is_random(found[0]) else found[0]


def _fold_path(found: re.Match[str]) -> str:
    whole, before = found[0], _word_before(found.string, found.start())
    if before in ID_WORDS and len(whole) > LONG_WORD_LENGTH:
        return "<*>"  # Base64
    path = whole.rstrip(".?!")
    if len(path) > 1 and path != "//":
        return f"<path>{whole[len(path) :]}"
    return "<path>" if whole == "/" and before in ("url", "path", "get", "post") else whole


def _fold_word(found: re.Match[str]) -> str:
    word, text, start = found[0], found.string, found.start()
    core = word.rstrip(".:?!")
    end = word[len(core) :]
    if text[start - 1 : start] == "=":
        before = _word_before(text, start)
        return (_fold_value(core, before, text, start) if _is_significant(before) else "<*>") + end
    if _LETTERS_AND_SIGNS.fullmatch(core):
        if core in _LITERALS and _sign_before(text, start) == ":":
            return "<*>" if _ENDS_VALUE.match(text, found.end()) else word
        is_value = len(core) >= MIN_RANDOM_LENGTH and is_random(core)
        return f"<*>{end}" if is_value else word
    return _fold_value(core, _word_before(text, start), text, start) + end if core else word


def _is_significant(name: str) -> bool:
    """Whether the value of this name says what failed: `code=7`, not `user=7`."""
    return name == "port" or any(
        name in words for words in (CODE_WORDS, STATUS_WORDS, NAME_WORDS, SENTENCE_WORDS)
    )


def _fold_value(core: str, before: str, text: str, start: int) -> str:
    """What stands for a word with digits or signs in it, which begins at `start` of the text."""
    if core.isdecimal() and core.isascii():
        return core if is_status_or_code(core, before, text, start) else "<*>"
    if _LOWER_CASE_ID.fullmatch(core) and before not in NAME_WORDS:
        return core if core in TECHNICAL_WORDS else "<*>"
    if "@" in core and _EMAIL.fullmatch(core) and not _VERSION.fullmatch(core):
        return "<email>"
    if core.startswith(("arn:", "repeat:")):
        return "<*>"  # names of Amazon's resources; ids of BullMQ's repeated jobs
    if address := folded_address(core, before):
        return address
    if not core.isascii():
        return "<path>" if is_file_name(core) else _DIGITS.sub("<*>", core)
    if NUMBER.fullmatch(core):
        return core if is_status_or_code(core, before, text, start) else "<*>"
    folded = []
    for segment in core.split(":"):
        folded.append(folded_address(segment, "") or _fold_segment(segment, before))
        before = segment.lower()
    return ":".join(folded)


def _fold_segment(core: str, before: str) -> str:
    """A word, or a part of one between colons: `mail` and `12` of `bull:mail:12`."""
    if core.isalpha():
        return "<*>" if len(core) >= MIN_RANDOM_LENGTH and is_random(core) else core
    if core.lower() in TECHNICAL_WORDS or (before != "at" and ERROR_CODE.fullmatch(core)):
        return core
    if before in CODE_WORDS and SHORT_CODE.fullmatch(core):
        return core
    if core.isdigit():
        return core if before == "port" and core in SERVICE_PORTS else "<*>"
    if before in ID_WORDS and has_digit(core):
        return "<*>"
    if is_file_name(core):
        return "<path>"
    if len(core) >= LONG_WORD_LENGTH and is_token(core):
        return "<*>"
    if core.count("/") > 1 and not core.startswith("//"):
        return "<path>"
    if "%" in core and _PERCENT_ENCODED.search(core):
        return "<*>"
    if before in NAME_WORDS:
        return _fold_name(core)
    return "".join(map(_fold_part, _SEPARATORS.split(core)))


def _fold_part(part: str) -> str:
    """A part between dots and the like: `psycopg2`, `errors` and `UniqueViolation`."""
    if part.lower() in TECHNICAL_WORDS or ERROR_CODE.fullmatch(part):
        return part
    is_id = has_digit(part) or (len(part) >= MIN_RANDOM_LENGTH and has_random_part(part))
    return "<*>" if is_id else part

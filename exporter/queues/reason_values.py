"""Classifies single words: an address, a status, a code, a file, or random letters."""

from __future__ import annotations

import re
from functools import lru_cache

from exporter.queues.reason_words import (
    CODE_WORDS,
    COUNTED,
    CURRENCIES,
    DATE_WORDS,
    FAILURE_WORDS,
    FILE_ENDINGS,
    RARE_PAIRS,
    SERVICE_PORTS,
    SHORT_CODE,
    STATUS_FOLLOWS,
    STATUS_WORDS,
    TECHNICAL_WORDS,
    TOP_LEVEL_DOMAINS,
    UNITS,
)

# Shorter words are never taken for random letters: `xhr` and `gzip` are none.
MIN_RANDOM_LENGTH = 8
MAX_EXAMINED_LENGTH = 40

NUMBER = re.compile(
    rf"[+\-~#\u00d7{CURRENCIES}]*\d[\d.,:_'/+-]*(?:{UNITS}|[%{CURRENCIES}])?", re.ASCII
)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}(?::(\d{1,5}))?", re.ASCII)
_IPV6 = re.compile(r"[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,8}")
_HOST_NAME = re.compile(r"(?>[A-Za-z0-9_*-]++\.)++([A-Za-z][A-Za-z0-9-]++)(?::(\d{1,5}))?")
_SHORT_HOST_NAME = re.compile(r"[a-z][\w-]*:(\d{2,5})", re.ASCII)
_FILE_ENDING = re.compile(r"[\w)]\.([A-Za-z0-9]{2,6})(?>:\d++)*+\Z")
_DIGIT = re.compile(r"\d")
_CASES = re.compile(r"[A-Z]+[a-z]*|[a-z]+")
_FOUR_LETTERS = re.compile(r"[A-Za-z]{4,}")
_STATUS_ENDS = re.compile(r"\]?(?::| -)? ?[({<\"A-Z]")


def has_digit(text: str) -> bool:
    return _DIGIT.search(text) is not None


def well_known(port: str | None) -> str:
    """`:993` for a port that identifies a service, otherwise nothing."""
    return f":{port}" if port in SERVICE_PORTS else ""


def folded_address(word: str, before: str) -> str | None:
    """The placeholder of a host or a network address; None for other words."""
    if before != "version" and (found := _IPV4.fullmatch(word)):
        return f"<host>{well_known(found[1])}"
    colons = word.count(":")
    if colons > 1:
        if _IPV6.fullmatch(word) and ("::" in word or colons > 6):
            # Node writes no brackets: in `connect ECONNREFUSED ::1:6379` the port is last.
            port = word.rpartition(":")[2] if before[:1] == "e" else ""
            return f"<host>{well_known(port)}"
        return None
    if found := _HOST_NAME.fullmatch(word):
        domain, port = found[1].lower(), found[2]
        # Two labels of which the last is of two letters are more likely a property: `job.at`.
        if domain in TOP_LEVEL_DOMAINS and (port or len(domain) > 2 or word.count(".") > 1):
            return f"<host>{well_known(port)}"
    if word == "localhost":
        return "<host>"
    if colons and (found := _SHORT_HOST_NAME.fullmatch(word)):
        port = found[1]
        if port in SERVICE_PORTS or word.startswith("localhost") or before in ("tcp", "to", "at"):
            return f"<host>{well_known(port)}"
    return None


def is_status_or_code(number: str, before: str, text: str, start: int) -> bool:
    """Whether a number at this position is part of the fault, as 401 is.

    These are statuses of HTTP, replies of mail servers, codes of errors and well-known ports.
    """
    end = start + len(number)
    if before in CODE_WORDS and SHORT_CODE.fullmatch(number):
        return True
    if not number.isdigit():
        return False
    if before == "port":
        return number in SERVICE_PORTS
    # What drivers of MySQL in Python raise: `(1213, 'Deadlock found …')`.
    if text[start - 1 : start] == "(" and text[end : end + 3] in (", '", ', "'):
        return len(number) < 6
    if text[max(0, start - 9) : start].endswith("000] [") and len(number) < 6:
        return True  # `SQLSTATE[HY000] [2002] Connection refused`
    if len(number) != 3 or number[0] not in "12345":
        return False
    if before in STATUS_WORDS or STATUS_FOLLOWS.match(text, end):
        return True
    behind = text[max(0, start - 2) : start]
    if behind.endswith("(") and text[end : end + 1] == ")":
        return number[0] in "45" and before in FAILURE_WORDS
    begins = not behind or behind in (": ", "| ") or (behind == "[" and start == 1)
    return begins and (end == len(text) or _STATUS_ENDS.match(text, end) is not None)


def is_file_name(word: str) -> bool:
    """`invoice_2024.pdf`, not `index.js`."""
    ending = _FILE_ENDING.search(word)
    return ending is not None and ending[1].lower() in FILE_ENDINGS


def is_token(word: str) -> bool:
    """Whether a long word is a hash, a session, a JSON Web Token or Base64."""
    if word.startswith("eyJ"):
        return True
    if "." in word or "#" in word:
        return False  # each part is looked at
    digits = len(_DIGIT.findall(word))
    if digits > 3:
        return "/" not in word or digits * 6 > len(word) or not word.islower()
    return digits > 0 and "/" not in word and not word.islower()


def has_random_part(word: str) -> bool:
    """Such as `req_zqqxkwvbnh`; also if the part is of only four letters."""
    return any(is_random(part, in_id=True) for part in _FOUR_LETTERS.findall(word))


def is_random(letters: str, *, in_id: bool = False) -> bool:
    """Whether ASCII letters are a word of no language.

    In random letters every second pair is one that is rare in words, in words less than two in
    five: of 14,415 words in Perl's, Python's and BullMQ's sources 16 are taken for random, of 8 to
    14 random letters 71 %. Ids of so many letters without a digit are rare. For a part of what
    looks like an id, three in ten are enough: 48 words, 85 %.
    """
    return _is_random(letters[:MAX_EXAMINED_LENGTH], 3 if in_id and len(letters) > 7 else 4)


@lru_cache(maxsize=4096)  # words recur
def _is_random(letters: str, tenths: int) -> bool:
    if letters.isupper() and len(letters) < 25:
        return False  # constants: `ECONNREFUSED`
    lower = letters.lower()
    if lower in TECHNICAL_WORDS:
        return False
    if len(lower) > 7 and not lower.strip("abcdef"):
        return True  # hexadecimal
    rare = sum(lower[at : at + 2] in RARE_PAIRS for at in range(len(lower) - 1))
    if rare > 1 and rare * 10 >= (len(lower) - 1) * tenths:
        return True
    cases = _CASES.findall(letters)
    return len(cases) > 3 and len(letters) < 2.5 * len(cases)


_UNIT = re.compile(rf"(?> ?(?:[%{CURRENCIES}]|\.\u2013|=++(?![\w<'\"(])|(?:{UNITS})\b))++")
_JOINT = re.compile(r"[,;] | - | and |[ ,.:/_#+&\u00d7-]")
_TUPLES = re.compile(r"\(<\*>\)(?>, ?\(<\*>\))++")
_PLURAL = re.compile(rf"( (?:{COUNTED}))s\b")
_PREFIX_SIGNS = frozenset(CURRENCIES + "#")
_LIST = re.compile(r"((?:\w{1,20}:)?<(?:host|email|url|path)>)(?>, ?\1)++")
_JSON_SPACE = re.compile(r'(?<=[{\[]) | (?=[}\]])|(?<=":) |(?<=[\]}"\d>],) (?=["{\[<])')


def join_values(folded: str) -> str:
    """Replace adjacent values and their units by one: dates, lists, amounts, `1 h 5 min`.

    A noun that is counted loses its plural: `<*> attempt`, be it one or three.
    """
    if '":' in folded:
        folded = _JSON_SPACE.sub("", folded)
    if ">," in folded:
        folded = _LIST.sub(r"\1", folded)
    first, *others = folded.split("<*>")
    if not others:
        return folded
    last = others.pop()
    gaps = [_without_prefix(first)]
    for other in others:
        gap = _without_prefix(_after_value(other))
        if not _JOINT.fullmatch(gap):
            gaps.append(gap)
    joined = "<*>".join([*gaps, _after_value(last)])
    joined = joined.replace("<*> (<*>) <*>", "<*>").replace("<*>(<*>)", "<*>")
    joined = joined.replace("'<*>'...", "'<*>'").replace("<path>:<*>", "<path>")
    return _TUPLES.sub("(<*>)", joined) if "(<*>)," in joined else joined


def _after_value(after: str) -> str:
    """Without the unit of the value, and without the plural of what it counts."""
    if unit := _UNIT.match(after):
        after = after[unit.end() :]
    if plural := _PLURAL.match(after):
        after = plural[1] + after[plural.end() :]
    return after


def _without_prefix(before: str) -> str:
    """Without what is part of the value that follows: `Tue, 24`, `€12`."""
    kept = before.rstrip(" ,")
    if kept[-1:] in _PREFIX_SIGNS:
        return kept[:-1]
    word = kept.rpartition(" ")[2].lstrip("([")
    return kept[: -len(word)] if word in DATE_WORDS else before

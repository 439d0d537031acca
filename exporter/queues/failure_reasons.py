"""Folds failure reasons: reasons of one fault become one text.

A reason says what failed and for what: `Card declined for cus_8812 (req_908zqqx65g)` is
`Card declined for <*> (<*>)` for every customer. One grouping serves counters, API and page: it
depends on the reason alone, since events carry nothing else, and keeps no state, so that processes
and restarts agree.

Four steps, each linear in the reason, of which at most the first and the last 4,000 characters are
read: `reason_lines` takes the sentence out of traces, pages of HTML and details, `reason_tokens`
decides token by token what is a value, with the words of `reason_words` and the forms of
`reason_values`, which finally joins adjacent values.

Only the form of a value and the word before it decide; nothing is learned. Measured on 1,063
reasons of 333 faults (tests/unit/failure_reasons): of the pairs of reasons of one fault 1.0 % get
two fingerprints, and no pair of two faults gets the same one. Drain, a miner of templates (drain3
0.9, with and without its usual masks), splits 20 to 48 % and joins up to 288 pairs; the template of
up to 29 of 644 reasons depends on the order in which they come, so that two processes disagree, and
it has to keep all templates.

What it cannot know: that a word without digits or quotation marks is a value, as in `No such user
anna`. Such a fault has a group for each user.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

from exporter.queues.reason_lines import essence
from exporter.queues.reason_tokens import fold_tokens
from exporter.queues.reason_values import join_values
from exporter.queues.text import shorten

MAX_TEXT_LENGTH = 300
MAX_LABEL_LENGTH = 120
FINGERPRINT_LENGTH = 12
# Reasons often repeat, such as `job stalled more than allowable limit`. At most 1,024 of them are
# cached with their texts, usually 300 bytes each and at most 3 kB.
CACHED_REASONS = 1024
MAX_CACHED_LENGTH = 512


@dataclass(frozen=True, slots=True)
class FoldedReason:
    """What the reasons of one fault have in common; equal if the fingerprints are."""

    # At most 300 characters, all printable; what was folded is `<*>`, `<email>`, `<url>`, `<host>`
    # or `<path>`.
    text: str
    # 12 hexadecimal digits that depend on the text alone.
    fingerprint: str

    @classmethod
    def of(cls, text: str) -> FoldedReason:
        """The folded text with its fingerprint."""
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
        return cls(text, digest[:FINGERPRINT_LENGTH])

    @property
    def label(self) -> str:
        """The text as a label value: at most 120 characters, cut between words, and at most 200
        bytes.
        """
        return shorten(_cut(self.text, MAX_LABEL_LENGTH))


def fold(reason: str) -> FoldedReason:
    """Return what this reason, any text, has in common with others of the same fault."""
    return _fold_cached(reason) if len(reason) <= MAX_CACHED_LENGTH else _fold(reason)


def _fold(reason: str) -> FoldedReason:
    text = join_values(fold_tokens(essence(reason)))
    # Some versions of a library end its messages with a full stop.
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1]
    return FoldedReason.of(_cut(text, MAX_TEXT_LENGTH))


_fold_cached = lru_cache(CACHED_REASONS)(_fold)


def _cut(text: str, length: int) -> str:
    if len(text) <= length:
        return text
    cut = text[: length - 3]
    # Not `…`, which normalization turns into three dots.
    return (cut.rpartition(" ")[0] if " " in cut[-60:] else cut) + "..."

"""Texts of applications: shown anywhere, and no longer than labels and memory bear."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.queues.text import (
    MAX_ID_BYTES,
    MAX_LABEL_BYTES,
    label_text,
    remembered_id,
    shorten,
    spellings,
    text,
)


@given(st.binary())
def test_what_is_shown_leads_back_to_the_bytes(raw: bytes) -> None:
    assert raw in spellings(text(raw).encode())


def test_bytes_that_look_like_an_escape_are_found_as_well() -> None:
    assert text(b"caf\xe9") == r"caf\xe9"
    assert spellings(rb"caf\xe9") == [rb"caf\xe9", b"caf\xe9"]
    # ASCII is never shown like that, so it is not meant.
    assert spellings(rb"\x41 \xE9 \xg0") == [rb"\x41 \xE9 \xg0"]
    assert spellings("né".encode()) == ["né".encode()]


@given(st.text(alphabet=st.characters(exclude_categories=())))
def test_a_label_has_at_most_so_many_bytes_and_a_short_one_is_whole(value: str) -> None:
    shown = shorten(value)
    encoded = value.encode("utf-8", "backslashreplace")
    assert len(shown.encode("utf-8", "backslashreplace")) <= MAX_LABEL_BYTES
    assert (shown == value) == (len(encoded) <= MAX_LABEL_BYTES)


@pytest.mark.parametrize("character", ["a", "é", "€", "😀"])
def test_a_label_is_never_cut_within_a_character(character: str) -> None:
    size = len(character.encode())
    longest = character * (MAX_LABEL_BYTES // size)
    assert shorten(longest) == longest
    cut = shorten(longest + character)
    kept, _, digits = cut.rpartition("~")
    assert kept == character * len(kept)
    assert len(digits) == 8
    assert MAX_LABEL_BYTES - size < len(cut.encode()) <= MAX_LABEL_BYTES


def test_labels_and_ids_with_the_same_beginning_stay_apart() -> None:
    assert shorten("a" * 300) != shorten("a" * 301)
    # The same in every process, or series would begin anew with each restart.
    assert shorten("a" * 300) == "a" * 191 + "~9835fa6b"
    assert label_text(b"\xff" * 300) != label_text(b"\xff" * 301)
    ids = {remembered_id(b"j" * size) for size in range(MAX_ID_BYTES - 2, MAX_ID_BYTES + 5)}
    assert len(ids) == 7
    assert {len(each) for each in ids} == {MAX_ID_BYTES - 2, MAX_ID_BYTES - 1, MAX_ID_BYTES}


@given(st.binary(max_size=2 * MAX_ID_BYTES))
def test_an_id_is_remembered_whole_if_it_is_short(job_id: bytes) -> None:
    remembered = remembered_id(job_id)
    assert len(remembered) <= MAX_ID_BYTES
    assert (remembered == job_id) == (len(job_id) <= MAX_ID_BYTES)

"""Words that a file can hold are what they were; others say which bytes they have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lsgm.files.names import spelt


@given(st.text())
def test_a_text_stays_as_it_is(word: str) -> None:
    assert spelt(word) == word


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_word_can_be_written(word: str) -> None:
    assert spelt(word).encode().decode() == spelt(word)


def test_bytes_that_are_no_utf8_and_halves_of_characters_are_spelt_out() -> None:
    assert spelt("caf\udce9 é") == r"caf\xe9 é"
    assert spelt("\ud800\n") == "\\ud800\n"

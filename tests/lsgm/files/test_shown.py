"""Whatever text is shown prints on one line and gives a terminal no orders."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsgm.files.names import shown


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("Fréchet 距離", "Fréchet 距離"),
        ("a\x1b[2Jb", r"a\x1b[2Jb"),
        ("a\r\nb", r"a\r\nb"),
        ("evil\u202etxt.exe", r"evil\u202etxt.exe"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("half \ud800", r"half \ud800"),
        ("half \ud800 and a byte \udce9", r"half \ud800 and a byte \udce9"),
    ],
)
def test_what_a_terminal_would_obey_is_spelt_out(text: str, printed: str) -> None:
    assert shown(text) == printed


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_text_prints_and_stays_as_it_is_once_shown(text: str) -> None:
    once = shown(text)
    assert once.isprintable()
    assert once.encode().decode() == once
    assert shown(once) == once

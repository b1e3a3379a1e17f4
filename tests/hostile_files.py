"""Texts, values and places that somebody else may have prepared."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from lsgm.errors import UserError

__all__ = ["ONE_SENTENCE", "SPECIAL", "json_values", "outcome", "place_special", "says"]

ONE_SENTENCE = 4000
"""Characters of a sentence at most, before the command line clips it."""

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
"""Whatever a JSON file may say, NaN and infinities included, which Python reads."""

SPECIAL = ["pipe", "device", "folder"]
"""What may lie in the place of a file."""


def place_special(path: Path, kind: str) -> Path:
    """Put something that is no file at a path."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


@contextmanager
def says(*words: str, error: type[UserError] = UserError) -> Iterator[None]:
    """Expect an error for the user of one line and of a readable length that has these words."""
    with pytest.raises(error) as caught:
        yield
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < ONE_SENTENCE
    for word in words:
        assert word in sentence


def outcome(call: Callable[[], Any]) -> tuple[Any, str]:
    """Return what a call gives, or None and the sentence that it raises for the user."""
    try:
        return call(), ""
    except UserError as error:
        sentence = str(error)
        assert sentence and "\n" not in sentence  # noqa: PT018
        return None, sentence

"""Networks of one recipe are sketched once: of a sketch nothing but shapes is ever looked at."""

from __future__ import annotations

from functools import cache

import pytest

from lsgm.interop.nvlabs import convert
from lsgm.model.lsgm import sketch

once = cache(sketch)


@pytest.fixture(autouse=True)
def sketched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "sketch", once)

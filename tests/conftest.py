"""What all tests share: how many examples hypothesis draws, how it judges time, sentences, and the glyphs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lsgm.logs import speaking

# Where other tests run too, seconds say nothing of a strategy or an example; and the first text drawn in a
# fresh clone takes one for the tables of Unicode alone. What was ever found is an `@example` of its test;
# `pytest --hypothesis-profile thorough` looks for more.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("busy", max_examples=50, **CALM)
settings.register_profile("thorough", max_examples=1000, **CALM)
settings.load_profile("busy")


@pytest.fixture(scope="session", autouse=True)
def _sentences() -> Iterator[None]:
    """Have standard error say what a command would say there, whichever function a test calls."""
    with speaking():
        yield


@pytest.fixture(scope="session")
def glyphs_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a cache in which the glyphs are rendered once for all workers."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "glyphs-cache"

"""What all tests share: how many examples hypothesis draws, how it judges time, sentences, and the glyphs."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tyro._docstrings
from hypothesis import HealthCheck, settings

from lsgm.logs import speaking

# Where other tests run too, seconds say nothing of a strategy or an example; and the first text drawn in a
# fresh clone takes one for the tables of Unicode alone. What was ever found is an `@example` of its test;
# `pytest --hypothesis-profile thorough` looks for more.
CALM = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("busy", max_examples=50, **CALM)
settings.register_profile("thorough", max_examples=1000, **CALM)
settings.load_profile("busy")


# The source of a class of options stays as it is while tests run; tyro reads it anew for every command line.
# What does so is its own affair, and in another version of another name.
_options = getattr(tyro._docstrings, "_ClassTokenization", None)
if hasattr(_options, "make"):
    _options.make = staticmethod(functools.cache(_options.make))


@pytest.fixture(scope="session", autouse=True)
def _unplugged() -> Iterator[None]:
    """Leave out the waiting for the disk: what tests kill are processes, and never the system."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


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


def pytest_collection_finish() -> None:
    """Keep what importing and collecting made out of every later search for garbage."""
    gc.collect()
    gc.freeze()

"""A world small enough to know, a cache of its own for every test, and no progress bars."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from bernoulli import BernoulliModel, ink

from lsgm.data import ImageSet, sha256_of


@pytest.fixture
def bernoulli() -> Callable[..., BernoulliModel]:
    return BernoulliModel


@pytest.fixture
def bars() -> ImageSet:
    splits = {"train": ink(600, 1), "val": ink(50, 2), "test": ink(300, 3)}
    return ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep features computed by tests out of the user's cache, and progress bars out of the log."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("LSGM_CACHE", str(folder))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    return folder

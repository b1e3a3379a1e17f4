"""Every test has a data cache of its own; the rendered glyphs are made once for all workers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lsgm.data import ImageSet, load


@pytest.fixture(autouse=True)
def private_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.delenv("LSGM_DATA", raising=False)


@pytest.fixture(scope="session")
def glyph_set(glyphs_cache: Path) -> Iterator[ImageSet]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSGM_CACHE", str(glyphs_cache))
        yield load("glyphs")


@pytest.fixture(scope="session")
def shared_mirror() -> Callable[[str], Path]:
    """Return the root of the reference mirrors, or skip where a mirror is not there."""
    repository = Path(__file__).resolve().parents[3]
    root = Path(os.environ.get("LSGM_SHARED", repository.parent / "shared")) / "data"

    def find(folder: str) -> Path:
        if not (root / folder / "manifest.json").is_file():
            pytest.skip(
                f"no mirror at {root / folder}; set LSGM_SHARED to the folder that holds data/{folder}"
            )
        return root

    return find

"""Code is part of what a number depends on: a changed, added or renamed source is another version."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lsgm_eval.cache import code_version


@pytest.mark.parametrize(
    "edit",
    [
        lambda package: (package / "deep" / "a.py").write_text("x = 2\n"),
        lambda package: (package / "b.py").write_text(""),
        lambda package: (package / "deep" / "a.py").rename(package / "deep" / "c.py"),
    ],
    ids=["changed", "added", "renamed"],
)
def test_any_edit_of_the_sources_is_another_version(
    edit: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "versioned_package"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "deep" / "a.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_version.__wrapped__("versioned_package")
    assert code_version.__wrapped__("versioned_package") == before
    edit(package)
    assert code_version.__wrapped__("versioned_package") != before


def test_data_files_are_not_code_and_order_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "quiet_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = code_version.__wrapped__("quiet_package", "lsgm.errors")
    (package / "notes.txt").write_text("n")
    assert code_version.__wrapped__("lsgm.errors", "quiet_package") == before

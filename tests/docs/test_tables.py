"""Tables in the documentation are those of the rows that are kept beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lsgm_reports.pages import refresh

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page
    for page in [*ROOT.glob("docs/results/*.md"), ROOT / "README.md"]
    if page.is_file() and "\n<!-- lsgm report " in page.read_text(encoding="utf-8")
)


def test_there_are_such_pages() -> None:
    assert PAGES or not (ROOT / "docs").is_dir()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_says_what_its_rows_say(page: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs" / "results" / "rows", tmp_path / "docs" / "results" / "rows")
    copy = tmp_path / page.relative_to(ROOT)
    shutil.copyfile(page, copy)
    assert not refresh(copy), f"`lsgm report --refresh {page.relative_to(ROOT)}` changes it"

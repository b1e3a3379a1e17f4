"""What the pages under docs/ name is there: files, tests, other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
HOMES = ("", "tests", "tests/lsgm", "tests/lsgm/data", "tests/eval", "eval/lsgm_eval", "lsgm/data")
"""Where a page may leave out the folder of a file, having said once which one it means."""


def named(page: Path, pattern: str) -> set[str]:
    return set(re.findall(pattern, page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_calls_a_proof_exists(page: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert not named(page, r"`(test_\w+)`") - set(re.findall(r"def (test_\w+)\(", sources))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_this_repository_that_a_page_names_exists(page: Path) -> None:
    for name in named(page, r"`((?:lsgm|eval|baselines|reports|tests)/[\w./-]*|[\w./-]+\.py)`"):
        assert any((ROOT / home / name).exists() for home in HOMES), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in named(page, r"\]\((?!https?:)([^)#]+)"):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_formulas_survive_markdown(page: Path) -> None:
    """GitHub reads a backslash before punctuation as an escape, inside of formulas too."""
    # The dollars of shells are none of formulas.
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    formulas = re.findall(r"\$\$?[^$]+\$\$?", prose)
    assert not [formula for formula in formulas if re.search(r"\\[,;:!{}_#|]", formula)]

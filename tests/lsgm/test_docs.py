"""What the pages for readers name is there: files, tests, other pages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
]
KEPT = [
    f"/{path.relative_to(ROOT).as_posix()}"
    for home in ("lsgm", "eval", "baselines", "reports", "tests")
    for path in [ROOT / home, *(ROOT / home).rglob("*")]
    if "__pycache__" not in path.parts
]
"""Every file and folder of code, with a slash before it: a page may name one by the end of its path."""


def named(page: Path, pattern: str) -> set[str]:
    return set(re.findall(pattern, page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_calls_a_proof_exists(page: Path) -> None:
    sources = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert not named(page, r"`(test_\w+)`") - set(re.findall(r"def (test_\w+)\(", sources))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_of_this_repository_that_a_page_names_exists(page: Path) -> None:
    for name in named(page, r"`((?:lsgm|eval|baselines|reports|tests)/[\w./-]*|[\w./-]+\.py)`"):
        assert any(path.endswith(f"/{name.rstrip('/')}") for path in KEPT), name


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

"""What the pages for readers name is there: files, tests, other pages."""

from __future__ import annotations

import ast
import contextlib
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest

from lsgm.cli import main
from lsgm.discovery import offers

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


def named(page: Path, pattern: str) -> set[Any]:
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
def test_every_place_in_a_page_that_a_link_names_exists(page: Path) -> None:
    for path, anchor in named(page, r"\]\((?!https?:)([^)#]*)#([^)]+)"):
        target = page.parent / path if path else page
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert anchor in slugs, f"{path}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_a_page_can_be_read(page: Path) -> None:
    for block in named(page, r"```python\n((?:.*\n)*?)```"):
        ast.parse(f"if True:\n{textwrap.indent(block, '    ')}")


def test_commands_of_pages_and_their_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    calls = re.compile(
        r"^\$ (?:torchrun .*? -m )?lsgm ((?:bench |import |data )?[a-z][a-z-]*)(.*?)(?:  +#.*)?$", re.M
    )
    wanted: dict[str, set[str]] = {}
    for page in PAGES:
        # A line that ends with a backslash goes on with the next one.
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        for name, words in calls.findall(text):
            wanted.setdefault(name, set()).update(re.findall(r"(?<=\s)--[a-z][\w.-]*", words))
    assert {name.split()[0] for name in wanted} <= set(offers("lsgm.commands"))
    for name, options in wanted.items():
        if options - {"--help"}:
            with contextlib.suppress(SystemExit):
                main([*name.split(), "--help"])
            shown = capsys.readouterr().out
            assert not [option for option in options if option not in shown], name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_formulas_survive_markdown(page: Path) -> None:
    """GitHub reads a backslash before punctuation as an escape, inside of formulas too."""
    # The dollars of shells are none of formulas.
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    formulas = re.findall(r"\$\$?[^$]+\$\$?", prose)
    assert not [formula for formula in formulas if re.search(r"\\[,;:!{}_#|]", formula)]

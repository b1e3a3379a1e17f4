"""The Python and the commands of pages run as they stand, from an empty folder, in their order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from lsgm.cli import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
ALL_OF_IT = ("tutorials/measure.md",)
"""Pages whose commands are run too."""
PYTHON = ("index.md", "api/lsgm.md", "api/lsgm_reports.md", "howto/recipes.md", "howto/compare.md")


@pytest.mark.parametrize("page", [*ALL_OF_IT, *PYTHON])
def test_a_page_runs_as_it_stands(
    page: str, tmp_path: Path, glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(glyphs_cache))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    known: dict[str, object] = {}
    blocks = re.findall(
        r"^```(python|console)\n(.*?)^```", (DOCS / page).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert blocks
    for language, text in blocks:
        if language == "python":
            exec(text, known)
        elif page in ALL_OF_IT:
            # A reader has the minute that the page says; a test has not.
            fewer = re.sub(r"(--stage\d\.steps) \d+", r"\1 8", text)
            for line in re.findall(r"^\$ lsgm (.*)$", fewer, re.MULTILINE):
                assert main(shlex.split(line, comments=True)) == 0, line
    if page == "tutorials/measure.md":
        assert (tmp_path / "results" / "mine" / "report.html").is_file()

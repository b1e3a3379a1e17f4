"""By what a page sorts, and that both themes can be read."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest

from lsgm_reports.blocks import Cell, Column, Table
from lsgm_reports.render.html_tables import Anchors, said, sort_key, table_html

STYLE = files("lsgm_reports.render").joinpath("style.css").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("cell", "key"),
    [
        (Cell("1.5 ± 0.1", sort=1.4999), "1.4999"),
        (Cell("above 2", sort=2.0), "2.0"),
        (Cell("unlimited", sort=float("inf")), None),
        (Cell("3d model"), None),
        (Cell("n/a"), ""),
        (Cell(""), ""),
    ],
)
def test_a_cell_with_a_number_sorts_by_it_and_a_gap_comes_last(cell: Cell, key: str | None) -> None:
    assert sort_key(cell) == key


def test_a_long_table_scrolls_within_its_box_and_lines_between_rules_stay_together() -> None:
    def drawn(lines: int, rules: list[int]) -> str:
        grid = [[Cell(str(line))] for line in range(lines)]
        return table_html(Table("t", [Column("a")], grid, rules=rules), Anchors(), {})

    assert "scroll tall" in drawn(100, [])
    assert "scroll tall" not in drawn(5, [])
    assert [drawn(4, rules).count("<tbody>") for rules in ([], [2], [1, 3], [0], [4])] == [1, 2, 3, 1, 1]


def test_marked_up_text_is_all_the_markup_there_is() -> None:
    assert said("**a** `b < **c**` <i>d</i> **") == (
        "<strong>a</strong> <code>b &lt; **c**</code> &lt;i&gt;d&lt;/i&gt; **"
    )


def colours() -> dict[str, tuple[str, str]]:
    found = re.findall(r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", STYLE)
    return {name: (light, dark) for name, light, dark in found}


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2.2."""
    parts = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_words_have_the_contrast_of_wcag_aa_on_every_ground(theme: int) -> None:
    """4.5 for words, 3 for what draws."""
    known = colours()
    words = ["ink", "muted", "accent", "fig-ink", *(name for name in known if name.startswith("fig-text-"))]
    assert len(words) == 4 + 7
    for word in words:
        grounds = ["page"] if word.startswith("fig") else ["page", "raised", "best", "target"]
        for ground in grounds:
            assert contrast(known[word][theme], known[ground][theme]) >= 4.5, (word, ground)
    assert contrast(known["strong-line"][theme], known["page"][theme]) >= 3

"""Figures within a page: their words are words, their colours the page's, their points links, and no more."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from reports.fake_rows import fake_rows
from reports.render.fake_report import EVIL, read
from reports.render.reader import read_page

from lsgm.results.row import Row, row_from, row_id
from lsgm_reports.blocks import Picture, Report, Section
from lsgm_reports.figures.cost import cost_figure, save
from lsgm_reports.figures.style import PALETTE
from lsgm_reports.render.html import inline_svg, to_html

STRANGE = f"{EVIL} $\\frac$"


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found = [row_from(mapping) for mapping in fake_rows()]
    distances = [row for row in found if row.group == "curve" and row.metric == "frechet_glyphs"]
    return [replace(row, model=STRANGE if row.model == "sgm" else row.model) for row in distances]


@pytest.fixture(scope="module")
def file(rows: list[Row], tmp_path_factory: pytest.TempPathFactory) -> Path:
    figure = cost_figure(rows)
    assert figure is not None
    return save(figure, tmp_path_factory.mktemp("figures") / "nfe")[0]


@pytest.fixture(scope="module")
def svg(rows: list[Row], file: Path) -> str:
    return inline_svg(
        file.with_suffix(".svg").read_text(encoding="utf-8"), "d1-", "what it shows", {row_id(rows[0]): "it"}
    )


def test_names_are_words_whatever_they_are_made_of(svg: str) -> None:
    drawn = ElementTree.fromstring(svg)
    assert EVIL in "".join(drawn.itertext())
    assert f"{STRANGE[:25]}…" in drawn.itertext()
    assert "network evaluations per image (NFE)" in drawn.itertext()
    assert drawn.get("aria-label") == "what it shows"


def test_the_colours_are_the_pages(svg: str) -> None:
    style = (Path(inline_svg.__code__.co_filename).parent / "style.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", svg))
    assert {"--fig-ink", "--fig-grid", "--fig-0", "--fig-1", "--fig-text-0", "--fig-text-1"} <= used
    assert all(f"{name}:" in style for name in used)
    assert not any(colour.lower() in svg.lower() for colour in PALETTE)


def test_points_of_known_rows_alone_are_links(svg: str, rows: list[Row]) -> None:
    page = read_page(svg)
    (link,) = {link["href"] for link in page.all("a")}
    assert link == f"#row-{row_id(rows[0])}"
    assert "it" in ElementTree.fromstring(svg).itertext()


def test_every_point_of_the_curves_leads_to_its_record_on_a_page(rows: list[Row], file: Path) -> None:
    text = to_html(Report("R", [Section("S", [Picture(file, "c")] * 2)]), read(rows), file.parent)
    page = read_page(text)
    assert page.faults == []
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    drawing = text[text.index("<svg") : text.index("</svg>")]
    assert {link["href"] for link in read_page(drawing).all("a")} == {f"#row-{row_id(row)}" for row in rows}
    assert page.all("img") == []


def test_what_does_not_draw_stays_out() -> None:
    given = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" onload="x()"><script>x()</script>'
        '<style>* {color: red}</style><foreignObject/><!-- c --><image href="http://a/b.png"/>'
        '<a href="http://a"><path d="M 0.123456 1\nL 2 3" onclick="x()"/></a></svg>'
    )
    drawn = ElementTree.fromstring(inline_svg(given, "d-", "label", {}))
    names = [element.tag.rpartition("}")[2] for element in drawn.iter()]
    assert names == ["svg", "g", "path"]
    assert [dict(element.attrib) for element in drawn] == [{}]
    assert dict(drawn[0][0].attrib) == {"d": "M 0.12 1 L 2 3"}


@pytest.mark.parametrize("text", ["", "<svg", "<p/>", '<svg xmlns="http://www.w3.org/2000/svg"/>'])
def test_what_is_no_svg_is_said_and_the_image_shown_instead(text: str, file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"."):
        inline_svg(text, "", "", {})
    (tmp_path / "nfe.png").write_bytes(file.read_bytes())
    (tmp_path / "nfe.svg").write_text(text)
    page = read_page(
        to_html(Report("R", [Section("S", [Picture(tmp_path / "nfe.png", "c")])]), read([]), tmp_path)
    )
    assert len(page.all("img")) == 1

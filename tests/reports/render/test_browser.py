"""The page in a browser: no errors, tables that sort, numbers that open, both themes, a phone's width."""

from __future__ import annotations

from typing import Any

import pytest
from reports.fake_quality import fake_quality
from reports.fake_rows import fake_rows as curve_rows
from reports.render.chromium import CHROME, findings
from reports.render.fake_report import EVIL, QUOTED, fake_report, fake_rows, read

from lsgm.results.row import row_from
from lsgm_reports.blocks import Picture, Report, Section
from lsgm_reports.figures.cost import cost_figure, save
from lsgm_reports.render.html import to_html
from lsgm_reports.tables.headline import headline

pytestmark = pytest.mark.skipif(CHROME is None, reason="no Chromium on the path; name one in LSGM_CHROME")

PHONE = 360


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    rows = [*fake_rows(), *(row for row in map(row_from, curve_rows()) if row.group == "curve")]
    report = fake_report(folder)
    figure = cost_figure(rows)
    assert figure is not None
    drawing = Picture(save(figure, folder / "figures" / "nfe")[0], "Quality against cost")
    quality = headline([row_from(each) for each in fake_quality("inception", "inception-clean")], "cifar10")
    more = [Section("Cost", [drawing]), Section("Quality", [quality])]
    report = Report(report.title, [*report.sections, *more])
    return to_html(report, read(rows, folder / "results.jsonl"), folder)


@pytest.fixture(scope="module", params=[PHONE, 1280])
def found(
    request: pytest.FixtureRequest, page: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return findings(page, tmp_path_factory.mktemp("browser"), request.param)


def test_nothing_goes_wrong_and_nothing_is_asked_for(found: dict[str, Any]) -> None:
    assert found["faults"] == []
    assert found["requests"] == []


def test_tables_sort_numbers_by_size_and_words_by_letters_with_gaps_last(found: dict[str, Any]) -> None:
    model, distance, bound, count, how = found["sorts"]
    for each in found["sorts"]:
        assert (each["up"]["aria"], each["down"]["aria"]) == ("ascending", "descending")
        assert (each["keys"], each["others"]) == (0, 1)
    measured, published = distance["up"]["cells"]
    assert measured == ["−10.5 ± 0.3", "0.0000200 ± 0.0000010", "9.0 ± 0.4", "1230 ± 40", "n/aa"]
    assert published == ["2.5", "3.5"]
    down = distance["down"]["cells"][0]
    assert down == [*measured[3::-1], "n/aa"]
    assert bound["up"]["cells"][1] == ["n/a", "n/a"]
    assert model["up"]["cells"][0] == [EVIL, QUOTED, "gone", "plain", "tiny"]
    assert model["down"]["cells"][0] == model["up"]["cells"][0][::-1]
    assert count["up"]["cells"][0] == ["1,024"] * 5
    assert how["up"]["cells"][0] == [*["ddim"] * 4, "heun"]


def test_every_number_opens_its_record_and_closing_leads_back(found: dict[str, Any]) -> None:
    assert len(found["records"]) == 20
    for record in found["records"]:
        assert all(record[key] for key in ("open", "labelled", "unique", "inside", "closed", "back"))
        assert "lsgm reproduce 'results.jsonl#" in record["text"]
        assert "1f" * 32 in record["text"]
    assert any("-10.5" in record["text"] and EVIL in record["text"] for record in found["records"])


def test_a_point_of_a_figure_opens_its_record_too(found: dict[str, Any]) -> None:
    name, value = found["point"]["said"].rsplit(": ", 1)
    assert name in found["point"]["text"]
    assert value in found["point"]["text"]


def test_a_link_from_elsewhere_unfolds_a_record(found: dict[str, Any]) -> None:
    assert found["unfolded"]


def test_commands_are_copied_or_where_that_is_not_allowed_selected(found: dict[str, Any]) -> None:
    assert found["copied"] in ("Copied", "Selected")


def test_both_themes_and_the_choice_is_remembered(found: dict[str, Any]) -> None:
    assert {theme["theme"] for theme in found["themes"]} == {"light", "dark"}
    for theme in found["themes"]:
        assert theme["kept"] == theme["theme"]
        light = theme["theme"] == "light"
        assert (brightness(theme["page"]) > 200) == light
        assert (brightness(theme["ink"]) < 60) == light
    assert found["remembered"] == "dark"


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


def test_images_load_and_figures_have_a_height(found: dict[str, Any]) -> None:
    assert len(found["images"]) == 3
    assert all(width == 2 for width in found["images"])
    assert found["drawings"]
    assert all(height > 150 for height in found["drawings"])


def test_a_phone_scrolls_tables_and_not_the_page(found: dict[str, Any]) -> None:
    assert found["overflow"] == 0
    if found["width"] == PHONE:
        assert found["wide"]
        assert found["sticky"] < 1


def test_the_headline_fits_a_window_of_1280_pixels(found: dict[str, Any]) -> None:
    assert found["heads"] == ["FID ↓", "FID (clean-fid) ↓", "KID ↓", "KID (clean-fid) ↓", "Inception Score ↑"]
    if found["width"] == 1280:
        assert found["headline"] <= 0


def test_bounds_are_shown_in_one_unit_or_the_other(found: dict[str, Any]) -> None:
    usual, other = found["units"]
    assert usual == {"pressed": ["bits/dim"], "head": "NELBO (bits/dim) ↓", "cell": "4.31 ± 0.02"}
    assert other == {"pressed": ["nats"], "head": "NELBO (nats) ↓", "cell": "9180 ± 40"}

"""Sample quality: FID only where it is FID, a narrow headline, details and differences beside it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from reports.fake_quality import NO_WEIGHTS, fake_quality, fake_run

from lsgm.cli import main
from lsgm.results.metrics import families, family_of, metric_name, metric_of, named
from lsgm.results.row import Row, row_from
from lsgm_reports.figures.cost import cost_figure
from lsgm_reports.render.text import to_latex, to_markdown
from lsgm_reports.tables.headline import (
    detail_explanations,
    detail_table,
    difference_table,
    explanations,
    headline,
    paired_table,
    quality_tables,
)
from lsgm_reports.tables.points import curve_table

GOLDEN = Path(__file__).parents[1] / "golden"
BOTH = ("inception", "inception-clean")
PROXY = "cifar10-resnet56"


def rows_of(*names: str, closed: bool = False) -> list[Row]:
    return [row_from(row) for row in fake_quality(*names, closed=closed)]


def heads(rows: list[Row]) -> list[str]:
    return [column.head for column in headline(rows, "t").columns]


def row(metric: str) -> Row:
    return row_from({"task": "t@1", "model": "a", "metric": metric, "value": 1.0})


@pytest.mark.parametrize("space", [*BOTH, PROXY, "glyphs", "infinity", "inception-unofficial"])
@pytest.mark.parametrize("family", families())
def test_a_name_says_its_family_and_space_whatever_the_space_is_called(family: str, space: str) -> None:
    metric = metric_name(family, space)
    found = named(metric)
    assert found is not None
    assert (found.family, found.space) == (family, space)
    assert family_of(metric) == family
    shown = metric_of(row(metric))
    assert shown.label not in (metric, metric.replace("_", " "))
    assert "{" not in shown.meaning
    assert f"'{space}'" in shown.meaning or "Inception-v3" in shown.meaning or found.official


@pytest.mark.parametrize("family", families())
@pytest.mark.parametrize("space", [PROXY, "inception-unofficial", "inception-v3"])
def test_a_proxy_bears_no_published_name(family: str, space: str) -> None:
    shown = metric_of(row(f"{family}_{space}"))
    for word in ("FID", "KID", "Inception"):
        assert word not in shown.label
    for other in ("paired_", ""):
        assert "FID" not in metric_of(row(f"{other}{family}_{space}")).label


def test_the_longest_family_wins() -> None:
    labels = [metric_of(row(f"{family}_x")).label for family in ("frechet", "frechet_infinity")]
    assert labels == ["Fréchet", "Fréchet∞"]
    assert "'x'" in metric_of(row("frechet_infinity_x")).meaning
    assert named("nelbo_bpd") is None
    assert named("precisionx") is None


def test_both_protocols_stand_side_by_side_and_say_whose_they_are() -> None:
    rows = rows_of(*BOTH)
    columns = ["FID ↓", "FID (clean-fid) ↓", "KID ↓", "KID (clean-fid) ↓", "Inception Score ↑"]
    assert heads(rows)[2:7] == columns
    lines = explanations(rows)
    assert "by torch-fidelity's protocol" in lines[0]
    assert "by clean-fid's protocol" in lines[1]
    assert "do not compare" in lines[1]


def test_the_headline_has_no_details_and_the_details_have_nothing_else() -> None:
    rows = rows_of("inception")
    details = detail_table(rows)
    assert details is not None
    kept = ["Precision ↑", "Recall ↑", "Density ↑", "Coverage ↑", "FID∞ ↓", "sFID ↓", "Memorised"]
    assert [column.head for column in details.columns][2:] == kept
    assert not set(heads(rows)) & set(kept)
    assert len(detail_explanations(rows)) == len(kept)
    assert not any("**Recall" in line for line in explanations(rows))
    # A share of copies is a fact, not an achievement; an exact tie of precision has no winner either.
    best = [column.head for column, cell in zip(details.columns, details.lines[0], strict=True) if cell.best]
    assert best == ["Recall ↑", "Density ↑", "Coverage ↑", "FID∞ ↓", "sFID ↓"]
    assert detail_table(rows_of("inception-clean")) is None


def test_metrics_of_several_spaces_say_which() -> None:
    rows = rows_of(PROXY, "glyphs")
    assert heads(rows)[2:4] == [f"Fréchet ({PROXY}) ↓", "Fréchet (glyphs) ↓"]
    assert heads(rows_of(PROXY))[2:5] == ["Fréchet ↓", "Kernel ↓", "Class score ↑"]


def test_what_cannot_be_measured_names_the_missing_file_once() -> None:
    page = to_markdown(headline(rows_of(PROXY, closed=True), "t"))
    assert page.count("n/a<sup>a</sup>") == 4
    assert page.count(NO_WEIGHTS) == 1


def test_a_difference_is_real_where_its_interval_excludes_0() -> None:
    table = difference_table(rows_of("inception"))
    assert table is not None
    cells = [[cell.text for cell in line] for line in table.lines]
    assert cells == [
        ["lsgm - sgm", "FID", "−4.16 ± 0.19", "yes", "5,000"],
        ["lsgm - sgm", "KID", "−0.0003 ± 0.0004", "no: contains 0", "5,000"],
    ]
    assert "1 of 20" in table.caption
    proxy = difference_table(rows_of(PROXY))
    assert proxy is not None
    assert proxy.lines[0][1].text == f"Fréchet ({PROXY})"
    biased = replace(rows_of("inception")[0], metric="paired_fid", value=-1.0, ci_low=-1.1, ci_high=-0.9)
    told = [difference_table([replace(biased, bias=bias)]) for bias in (None, -0.7, -0.8, 5.0)]
    words = [table.lines[0][3].text for table in told if table is not None]
    assert words == ["yes", "yes", "no verdict: may be bias", "yes"]
    bare = difference_table([row("paired_fid")])
    assert bare is not None
    assert bare.lines[0][3].text == "unknown"


def test_differences_of_quality_and_of_bounds_do_not_mix() -> None:
    bound = row_from({"task": "t@1", "model": "a − b", "metric": "paired_nelbo_nats", "value": -1.0})
    rows = [*rows_of("inception"), bound]
    assert paired_table(rows_of("inception")) is None
    for table, count in ((difference_table(rows), 2), (paired_table(rows), 1)):
        assert table is not None
        assert len(table.lines) == count


def test_a_curve_in_two_spaces_has_a_panel_and_a_column_for_each() -> None:
    def point(found: Row, nfe: float) -> Row:
        value = None if found.value is None else found.value + 10 / nfe
        return replace(found, group="curve", nfe_mean=nfe, value=value, sampler=f"heun(steps={nfe:.0f})")

    chosen = [found for found in rows_of(PROXY, "glyphs") if found.metric.startswith("frechet_")]
    chosen = [found for found in chosen if "infinity" not in found.metric]
    points = [point(found, nfe) for nfe in (5.0, 9.0, 19.0) for found in chosen]
    figure, table = cost_figure(points), curve_table(points)
    assert figure is not None
    assert table is not None
    assert [axes.get_ylabel() for axes in figure.axes] == [
        f"Fréchet ({name}) distance, lower is better" for name in (PROXY, "glyphs")
    ]
    assert [column.head for column in table.columns][3:] == [f"Fréchet ({PROXY}) ↓", "Fréchet (glyphs) ↓"]


@pytest.mark.parametrize(("name", "chosen"), [("quality", BOTH), ("quality-proxy", (PROXY,))])
def test_golden(name: str, chosen: tuple[str, ...]) -> None:
    """Set LSGM_WRITE_GOLDEN=1 to write the files anew, then look at them."""
    rows = rows_of(*chosen, closed=chosen == (PROXY,))
    tables = [headline(rows, "cifar10@1/quick"), *quality_tables(rows)]
    lines = [*explanations(rows), *detail_explanations(rows), ""]
    pages = {
        f"{name}.md": "\n".join([*(to_markdown(table) for table in tables), *lines]),
        f"{name}.tex": "\n".join(to_latex(table) for table in tables),
    }
    for file, text in pages.items():
        if os.environ.get("LSGM_WRITE_GOLDEN"):
            (GOLDEN / file).write_text(text, encoding="utf-8")
        assert text == (GOLDEN / file).read_text(encoding="utf-8")


def test_the_report_shows_tables_and_pictures_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fake_run(tmp_path / "run", fake_quality(*BOTH))
    assert main(["report", str(folder)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("Sample quality in detail", "1 of 20"):
        assert words in printed
    page = (folder / "report.md").read_text(encoding="utf-8")
    sections = [line.lstrip("# ") for line in page.splitlines() if line.startswith("##")]
    order = [
        "What came out",
        "Samples",
        "What the columns mean",
        "Sample quality in detail",
        "Differences in sample quality",
        "Bounds on the likelihood",
        "Generative performance on CIFAR-10",
        "Sampling time and network evaluations on CIFAR-10",
        "Nearest training images",
        "Provenance",
    ]
    assert [section for section in sections if section in order] == order
    links = [part.split(")")[0] for part in page.split("](")[1:]]
    assert links == [
        *(f"samples/{name}.png" for name in ("data", "lsgm", "sgm")),
        *(f"neighbours/{name}.png" for name in ("lsgm", "sgm")),
    ]
    assert "each above the training image nearest to it" in page
    assert "Published FID is of 50,000 samples" in page
    tex = (folder / "tables.tex").read_text(encoding="utf-8")
    assert r"FID$\infty$" in tex


def test_the_command_shows_recalled_numbers_on_request(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", fake_quality("inception"))
    for options, expected in (([], False), (["--recalled"], True)):
        assert main(["report", str(folder), "--format", "md,tex", *options]) == 0
        for name in ("report.md", "tables.tex"):
            page = (folder / name).read_text(encoding="utf-8")
            assert ("about 43.2" in page) is expected
            assert "2.10" in page


def test_pictures_that_are_not_there_leave_no_heading(tmp_path: Path) -> None:
    folder = fake_run(tmp_path / "run", fake_quality(PROXY))
    for picture in (folder / "neighbours").iterdir():
        with Image.open(picture) as image:
            assert image.size == (8, 8)
        picture.unlink()
    assert main(["report", str(folder), "--format", "md"]) == 0
    assert "Nearest training images" not in (folder / "report.md").read_text(encoding="utf-8")

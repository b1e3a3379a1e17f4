"""The paper's tables: measured above the rule, published below, and nothing ranked across it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from reports.fake_bounds import estimate, fake_bounds
from reports.fake_quality import fake_quality
from reports.fake_rows import fake_rows

from lsgm.results.row import Row, row_from
from lsgm_reports import published
from lsgm_reports.blocks import Cell, Table
from lsgm_reports.paper.tables import paper_tables
from lsgm_reports.published import DATASETS, edition_of
from lsgm_reports.render.text import to_latex, to_markdown, to_terminal

GOLDEN = Path(__file__).parent.parent / "golden"
MARKS = {"†", "‡"}
GENERATIVE, SAMPLING = (
    "Generative performance on CIFAR-10",
    "Sampling time and network evaluations on CIFAR-10",
)


@pytest.fixture(autouse=True)
def uncalibrated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No table here must change when a calibration is measured."""
    (tmp_path / "none.toml").touch()
    monkeypatch.setattr(published, "FILE_CALIBRATION", tmp_path / "none.toml")


def samples(*spaces: str, dataset: str = "cifar10", **options: Any) -> list[Row]:
    return [row_from(row | {"dataset": f"{dataset}@1@00"}) for row in fake_quality(*spaces, **options)]


def bounds(dataset: str = "mnist", **rest: Any) -> list[Row]:
    return [row_from(row) for row in fake_bounds(dataset=f"{dataset}@1@00", **rest)]


def tables_of(rows: list[Row], *, recalled: bool = False) -> dict[str, Table]:
    return {table.title: table for table in paper_tables(rows, [], recalled=recalled)}


def halves(table: Table) -> tuple[list[list[Cell]], list[list[Cell]]]:
    """The lines above and below the rule."""
    (rule,) = table.rules
    return table.lines[:rule], table.lines[rule:]


def texts(lines: list[list[Cell]], columns: int | None = None) -> dict[str, list[str]]:
    return {line[0].text: [cell.text for cell in line[1:columns]] for line in lines}


EVERY = [
    (dataset, table)
    for dataset in (*DATASETS, "omniglot-lake28", "mnist-fixed")
    for rows in [samples("inception", dataset=dataset) + bounds(dataset)]
    for recalled in (False, True)
    for table in paper_tables(rows, [], recalled=recalled)
]


@pytest.mark.parametrize(
    ("dataset", "table"), EVERY, ids=lambda value: value if isinstance(value, str) else ""
)
def test_measured_and_published_are_apart_and_only_measured_is_ranked(dataset: str, table: Table) -> None:
    above, below = halves(table)
    assert above
    assert below
    assert any(cell.row is not None for line in above for cell in line)
    assert not any(cell.mark in MARKS for line in above for cell in line)
    assert not any(cell.best or cell.row is not None for line in below for cell in line)
    assert all(any(cell.mark in MARKS for cell in line) for line in below)
    assert {line[1].text for line in above} == {"measured here"}
    assert "measured here" not in {line[1].text for line in below}
    assert {letter for letter, _ in table.notes} >= {cell.mark for line in table.lines for cell in line} - {
        ""
    }
    assert "nothing is ranked across the rule" in table.caption
    assert (edition_of(dataset) != dataset) == ("which is other data" in table.title)


@pytest.mark.parametrize(
    ("dataset", "table"), EVERY, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_view_renders_and_has_every_line(dataset: str, table: Table) -> None:
    for view in (to_markdown, to_latex, to_terminal):
        page = view(table)
        assert page.count("measured here") >= table.rules[0]
        assert DATASETS[edition_of(dataset)] in page.splitlines()[0] or view is not to_terminal


def test_by_default_nothing_is_from_memory() -> None:
    for rows in (samples("inception"), samples(dataset="celebahq256"), bounds(), bounds("omniglot")):
        for table in tables_of(rows).values():
            assert "‡" not in to_markdown(table)
            assert not any(cell.text.startswith("about") for line in table.lines for cell in line)
    shown = texts(halves(tables_of(bounds(), recalled=True)["Likelihood on MNIST"])[1], 3)
    assert shown["LSGM"] == ["score model of latents", "≤ 78.47"]
    assert shown["NVAE"] == ["VAE", "about 78.0"]


def test_cifar_has_the_columns_of_table_2_and_those_measured_beside_them() -> None:
    table = tables_of(samples("inception"))[GENERATIVE]
    heads = [column.head for column in table.columns]
    assert heads[:4] == ["Model", "Kind", "NLL (bits/dim) ↓", "FID ↓"]
    assert heads[4:] == ["Inception Score ↑", "Recall ↑", "Measured with, or source"]
    above, below = halves(table)
    assert [line[3].text for line in above] == ["9.87 ± 0.12", "14.03 ± 0.17"]
    assert [[cell.best for cell in line[2:4]] for line in above] == [[False, True], [True, False]]
    shown = texts(below, 6)
    assert shown["LSGM (best NLL)"][1:] == ["≤ 2.87", "6.89", "–", "–"]
    assert shown["LSGM (best FID), measured again"][1:] == ["–", "2.10", "9.87", "0.61"]
    assert "VAEBM" not in shown  # recalled
    assert not any("steps" in model for model in shown)  # samplers are compared by their cost
    proxy = tables_of(samples("cifar10-resnet56"))[GENERATIVE]
    assert [column.head for column in proxy.columns][4:] == ["Measured with, or source"]


def test_a_distance_in_another_space_is_no_fid() -> None:
    table = tables_of(samples("cifar10-resnet56"))[GENERATIVE]
    above, _ = halves(table)
    assert [line[3].text for line in above] == ["n/a", "n/a"]
    assert "no FID was measured" in dict(table.notes)[above[0][3].mark]
    closed = tables_of(samples("cifar10-resnet56", closed=True))[GENERATIVE]
    assert "clean-fid's network" in dict(closed.notes)[halves(closed)[0][0][3].mark]


def test_clean_fid_stands_in_where_there_is_no_other_and_says_so() -> None:
    table = tables_of(samples("inception-clean"))[GENERATIVE]
    cell = halves(table)[0][0][3]
    assert cell.text == "10.27 ± 0.12"
    assert dict(table.notes)[cell.mark] == "by clean-fid's protocol"


def test_two_protocols_are_not_ranked_against_each_other() -> None:
    ours = [row for row in samples("inception") if row.model == "lsgm"]
    theirs = [row for row in samples("inception-clean") if row.model == "sgm"]
    above, _ = halves(tables_of([*ours, *theirs])[GENERATIVE])
    assert [line[3].text for line in above] == ["9.87 ± 0.12", "14.59 ± 0.17"]
    assert not any(line[3].best for line in above)


def test_the_bound_by_the_flow_is_taken_and_kinds_of_bounds_are_not_ranked() -> None:
    about = {"dataset": "cifar10@1@00", "task": "cifar10@1/quick"}
    a = estimate("a", "nelbo", "nelbo(times=1)", 5000.0, 1.0) + estimate("a", "ode_nll", "ode", 4000.0, 1.0)
    b = estimate("b", "nelbo", "nelbo(times=1)", 6000.0, 1.0)
    table = tables_of([row_from(row | about) for row in a + b])[GENERATIVE]
    above, _ = halves(table)
    notes = dict(table.notes)
    assert [notes[line[2].mark] for line in above] == ["ODE NLL: ode", "NELBO: 1 time"]
    assert [line[2].row.metric for line in above if line[2].row] == ["ode_nll_bpd", "nelbo_bpd"]
    assert not any(line[2].best for line in above)


def test_seconds_are_of_sixteen_images_as_the_paper_counts_them() -> None:
    rows = samples("inception", dataset="celebahq256")
    table = tables_of(rows)["Sampling time and network evaluations on CelebA-HQ-256"]
    above, below = halves(table)
    # 88 +- 2.64 and 402 +- 12.06 seconds per 1,000 images
    assert [line[3].sort for line in above] == [pytest.approx(16 * 0.088), pytest.approx(16 * 0.402)]
    assert [line[3].text for line in above] == ["1.41 ± 0.04", "6.43 ± 0.19"]
    shown = texts(below)
    assert shown["LSGM"][1:4] == ["23", "4.15", "7.22"]
    assert shown["NCSN++ VE, predictor-corrector"][1:4] == ["4000", "2676", "7.23"]
    assert "one Titan V" in shown["LSGM"][-1]
    assert "Seconds measured here are of 16 images" in table.caption
    assert set(shown) == {"LSGM", "NCSN++ VE, predictor-corrector"}


def test_of_a_curve_the_point_of_the_lowest_distance_stands_for_the_model() -> None:
    (found,) = [row for row in samples("inception") if (row.model, row.metric) == ("lsgm", "fid")]
    fid = replace(found, ci_low=None, ci_high=None)
    points = [
        replace(
            fid, group="curve", sampler=f"heun(steps={k})", nfe_mean=2.0 * k, value=value, seconds=k, n=32
        )
        for k, value in ((5, 9.0), (10, 4.0), (20, 6.0))
    ]
    above, _ = halves(tables_of(points)[SAMPLING])
    assert [cell.text for cell in above[0][2:]] == [
        "20",
        "5",
        "4",
        "heun, 10 steps: the lowest FID of its curve",
    ]
    assert GENERATIVE not in tables_of(points)


def test_a_model_with_settled_samplers_is_not_shown_by_its_curve_too() -> None:
    rows = samples("inception")
    curve = [replace(row, group="curve") for row in rows if row.metric == "fid"]
    assert [line[0].text for line in halves(tables_of(rows + curve)[SAMPLING])[0]] == ["lsgm", "sgm"]


def test_binary_images_have_every_bound_with_its_estimator() -> None:
    above, below = halves(tables_of(bounds())["Likelihood on MNIST"])
    assert [line[2].text for line in above][:2] == ["81.5 ± 0.4", "80.1 ± 0.4"]
    assert above[1][3].text == "IW bound, K = 10, dopri5, tol 1e-5, 4 probes; n = 10,000"
    assert [line[2].text for line in above if line[2].best] == ["81.5 ± 0.4"]
    assert texts(below) == {
        "LSGM": [
            "score model of latents",
            "≤ 78.47",
            "arXiv:2106.05931, table 5; NELBO, prior by probability flow",
        ]
    }


def test_another_edition_and_a_mirror_say_so() -> None:
    (table,) = tables_of(bounds("omniglot-lake28")).values()
    assert table.title == "Likelihood on omniglot-lake28, and published on OMNIGLOT, which is other data"
    assert "of another data set" in table.caption
    assert "mirror" not in table.caption
    rows = [replace(row, dataset=f"cifar10@mirror-1234@{'0' * 64}") for row in samples("inception")]
    for table in tables_of(rows).values():
        assert "a mirror's, `cifar10@mirror-1234`" in table.caption


def test_there_is_nothing_without_literature_or_measurements() -> None:
    assert paper_tables([row_from(row) for row in fake_rows()], []) == []
    assert paper_tables([], []) == []
    assert tables_of([row for row in samples("inception") if row.group == "terms"]) == {}


def test_tasks_are_not_mixed_and_several_are_named() -> None:
    rows = samples("inception")
    other = [replace(row, task="cifar10@1/full") for row in rows]
    tables = tables_of([*rows, *other])
    assert [title for title in tables if title.startswith(GENERATIVE)] == [
        f"{GENERATIVE} (cifar10@1/quick)",
        f"{GENERATIVE} (cifar10@1/full)",
    ]
    assert all(len(halves(table)[0]) == 2 for table in tables.values())


@pytest.mark.parametrize("value", [1.7e308, 5e-324, 0.0, None])
def test_extreme_numbers_and_gaps_have_tables_too(value: float | None) -> None:
    for rows in (samples("inception"), bounds()):
        extreme = [
            replace(row, value=value, ci_low=None, ci_high=None, seconds=value, nfe_mean=value, note="gone")
            for row in rows
        ]
        points = [replace(row, group="curve", n=1) for row in extreme if row.metric == "fid"]
        for table in paper_tables([*extreme, *points], []):
            assert halves(table)[0]
            assert "measured here" in to_markdown(table)


@pytest.mark.parametrize("name", ["paper.md", "paper.tex"])
def test_golden(name: str) -> None:
    """Set LSGM_WRITE_GOLDEN=1 to write the files anew, then look at them."""
    rows = [
        samples("inception", "inception-clean"),
        samples("cifar10-resnet56", dataset="celebahq256"),
        bounds(),
    ]
    tables = [table for each in rows for table in paper_tables(each, [], recalled=each is rows[-1])]
    view = to_markdown if name.endswith("md") else to_latex
    text = "\n".join(view(table) for table in tables)
    if os.environ.get("LSGM_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")

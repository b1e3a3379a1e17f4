"""Quality against cost: fronts, tables and sentences say what the rows say, whichever model it favours."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.fake_reach import EVALUATION, fake_curves, fake_reach
from reports.fake_rows import write_rows

from lsgm.cli import main
from lsgm.results.labels import curve_name, is_adaptive
from lsgm.results.row import Row, row_from
from lsgm_reports.blocks import Table
from lsgm_reports.figures.cost import cost_figure, curve_rows, envelopes_of, levels_of
from lsgm_reports.tables.points import (
    COSTS,
    costs_of,
    curve_table,
    front_of,
    front_tables,
    reach_table,
    speedup_sentences,
    speedup_table,
    target_label,
)

NFE, SECONDS, FLOPS = COSTS


@pytest.fixture
def points() -> list[Row]:
    return [row_from(mapping) for mapping in fake_curves()]


@pytest.fixture
def reached() -> list[Row]:
    return [row_from(mapping) for mapping in fake_reach()]


def texts(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in line] for line in table.lines]


def point(cost: float, value: float, higher: bool) -> Row:
    return Row("t", "a", "m", value, nfe_mean=cost, higher_is_better=higher, group="curve")


def beats(a: Row, b: Row, higher: bool) -> bool:
    """Say whether a is at least as cheap and as good as b, and in one of the two truly so."""
    sign = -1 if higher else 1
    first, second = ((row.nfe_mean or 0.0, sign * (row.value or 0.0)) for row in (a, b))
    return first != second and all(x <= y for x, y in zip(first, second, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-9, 9)), max_size=12), st.booleans())
def test_the_front_is_what_nothing_beats(places: Sequence[tuple[int, int]], higher: bool) -> None:
    rows = [point(float(cost), float(value), higher) for cost, value in places]
    wanted = {
        (row.nfe_mean, row.value) for row in rows if not any(beats(other, row, higher) for other in rows)
    }
    front = front_of(rows, NFE)
    assert {(row.nfe_mean, row.value) for row in front} == wanted
    assert len(front) == len(wanted)
    assert all((a.nfe_mean or 0) < (b.nfe_mean or 0) for a, b in itertools.pairwise(front))


def test_points_of_unknown_cost_or_quality_are_on_no_front(points: list[Row]) -> None:
    assert front_of([Row("t", "a", "m", None, nfe_mean=1.0), Row("t", "a", "m", 1.0)], NFE) == []


def test_an_envelope_is_the_best_of_a_models_samplers_at_each_cost(points: list[Row]) -> None:
    for cost in COSTS:
        for best in envelopes_of(points, cost):
            assert best.costs == sorted(best.costs)
            assert best.values == sorted(best.values, reverse=True)
            mine = [row for row in curve_rows(points) if row.model == best.model]
            for row in mine:
                cheaper = [
                    v for at, v in zip(best.costs, best.values, strict=True) if at <= (cost.of(row) or 0)
                ]
                assert min(cheaper) <= (row.value or 0.0)


def test_currencies_are_those_that_tell_points_apart(points: list[Row]) -> None:
    assert [cost.key for cost in costs_of(points)] == ["nfe", "seconds", "flops"]
    old = [
        row_from({k: v for k, v in row.items() if "flops" not in k} | {"seconds": 9.0})
        for row in fake_curves()
    ]
    assert [cost.key for cost in costs_of(old)] == ["nfe"]
    assert row_from(fake_curves()[0] | {"n": None}).seconds_per_image is None


def test_the_table_of_points_tells_the_decoders_share(points: list[Row]) -> None:
    table = curve_table(points)
    assert table is not None
    heads = [column.head for column in table.columns]
    assert heads[2:] == [
        "NFE",
        "ms / image",
        "Decoder's time",
        "FLOPs / image",
        "Decoder's FLOPs",
        "Fréchet ↓",
    ]
    lines = texts(table)
    share = 5e6 / (6 * EVALUATION["lsgm"] + 5e6)
    assert lines[0][:7] == ["lsgm", "heun, 3 steps", "6", "3.4", f"{share:.1%}", "1.7e+07", f"{share:.1%}"]
    assert "61.40 (max 70.40)" in {line[2] for line in lines}
    assert lines[-1][0] == "vae"


def test_the_front_has_a_part_for_each_currency_over_all_models(points: list[Row]) -> None:
    (table,) = front_tables(points)
    lines = texts(table)
    assert list(dict.fromkeys(line[0] for line in lines)) == ["evaluations", "seconds", "FLOPs"]
    # Without evaluations the VAE is on each of them; the data-space model is beaten everywhere.
    assert [line[2] for line in lines].count("vae") == 3
    assert "sgm" not in {line[2] for line in lines}


def test_a_model_without_evaluations_has_a_cost_in_seconds_and_none_in_evaluations(points: list[Row]) -> None:
    assert [level.cost for level in levels_of(points)] == [None]
    assert [level.cost for level in levels_of(points, SECONDS)] == [1e-3]
    assert [level.cost for level in levels_of(points, FLOPS)] == [5e6]


def test_the_figure_has_a_panel_for_each_currency(points: list[Row]) -> None:
    figure = cost_figure(points)
    assert figure is not None
    assert [axes.get_xlabel() for axes in figure.axes] == [cost.axis for cost in COSTS]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    (legend,) = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["heun", "euler", "ancestral", "dopri5", "best sampler of a model", "Pareto front"]


def test_to_reach_a_quality_is_a_line_per_model_in_every_currency(reached: list[Row]) -> None:
    table = reach_table(reached)
    first, second = texts(table)
    assert first == [
        *("Fréchet ≤ 12.3", "lsgm", "6.8 ± 0.7", "0.0041 ± 0.0003", "(1.9 ± 0.2)e7", "heun, 3 steps")
    ]
    assert second[2:5] == ["61 +22 −9", "0.97 +0.36 −0.14", "n/a"]
    assert table is not None
    assert table.notes == [("a", "not reached")]


def test_a_ratio_is_a_verdict_only_where_its_interval_leaves_out_1(reached: list[Row]) -> None:
    verdicts = [line[-1] for line in texts(speedup_table(reached))]
    assert verdicts == ["yes", "undecided: contains 1", "no", "unknown", "unknown"]


def test_sentences_say_what_came_out_also_where_it_does_not_favour_the_first(reached: list[Row]) -> None:
    ahead, open_, behind, missing, bare = speedup_sentences(reached)
    assert ahead.endswith("lsgm needs 8.97 (7.5 to 12.2) times fewer evaluations than sgm.")
    assert "undecided" in open_
    assert "contains 1" in open_
    assert behind.endswith("sgm is not ahead: it needs 10 (5 to 20) times as many evaluations as lsgm.")
    assert missing.endswith("cannot be compared in FLOPs: sgm does not reach it.")
    assert "without an interval" in bare
    assert "the reference procedure" in bare


@pytest.mark.parametrize(
    ("low", "high", "shown", "verdict", "said"),
    [
        (3.9, None, "above 3.9", "yes", "needs 5 (above 3.9) times fewer"),
        (0.7, None, "above 0.7", "undecided: contains 1", "above 0.7, contains 1"),
        (None, 0.8, "below 0.8", "no", "(above 1.25) times as many"),
        (None, 1.8, "below 1.8", "undecided: contains 1", "below 1.8, contains 1"),
    ],
)
def test_one_known_end_is_enough_for_a_verdict(
    reached: list[Row], low: float | None, high: float | None, shown: str, verdict: str, said: str
) -> None:
    value = 5.0 if low else 0.2
    row = replace(next(row for row in reached if row.metric == "speedup_nfe"), value=value)
    row = replace(row, ci_low=low, ci_high=high)
    assert texts(speedup_table([row]))[0][-2:] == [shown, verdict]
    assert said in speedup_sentences([row])[0]


def test_no_rows_no_tables(points: list[Row]) -> None:
    assert reach_table(points) is None
    assert speedup_table(points) is None
    assert curve_table([]) is None
    assert front_tables([]) == []


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("fid<=10", "FID ≤ 10"),
        ("inception_score>=8", "Inception Score ≥ 8"),
        (None, "not stated"),
        ("x", "x"),
    ],
)
def test_a_target_is_shown_by_its_label(target: str | None, shown: str) -> None:
    assert target_label(target) == shown


def test_options_tell_curves_apart_and_budgets_do_not() -> None:
    assert curve_name("ddim(steps=20, eta=1.0)") == "ddim, eta=1.0"
    assert curve_name("dopri5(rtol=0.1, atol=0.1)") == "dopri5"
    assert curve_name(None) == "none"
    assert is_adaptive("dopri5(rtol=0.1, atol=0.1)")
    assert not is_adaptive("heun(steps=3)")


def test_a_report_of_costs_alone_opens_with_what_they_amount_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(tmp_path / "results.jsonl", fake_curves() + fake_reach())
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("glyphs@1/quick: Speed-ups at equal quality")
    page = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert [line for line in page.splitlines() if line.startswith("##")] == [
        "## What came out",
        "## glyphs@1/quick",
        "### Quality against cost",
        "#### Speed-ups at equal quality",
        "#### What a quality costs",
        "#### Pareto front: Fréchet",
        "#### Quality against cost, point by point",
        "## Provenance",
        "### Every row",
    ]
    # Ratios are no models: they have no checkpoint of their own.
    assert "| lsgm / sgm |" not in page[page.index("## Provenance") : page.index("### Every row")]
    assert r"$\leq$" in (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert "flops_per_image" in (tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()[0]

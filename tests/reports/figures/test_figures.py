"""Figures show what the rows say; their pixels are for the eye, their contents for these tests."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.fake_rows import fake_rows

from lsgm.errors import DataError
from lsgm.results.row import Row, row_from
from lsgm_reports.figures.cost import cost_figure, curves_of, levels_of, save
from lsgm_reports.figures.style import _apart, _inside
from lsgm_reports.figures.training import read_training, training_figure


@pytest.fixture
def rows() -> list[Row]:
    return [row_from(mapping) for mapping in fake_rows()]


def test_a_curve_is_a_model_with_one_family_of_samplers_by_ascending_nfe(rows: list[Row]) -> None:
    curves = curves_of(list(reversed(rows)))
    sizes = {(curve.model, curve.sampler): len(curve.costs) for curve in curves}
    assert sizes == {
        ("lsgm", "heun"): 5,
        ("lsgm", "euler"): 5,
        ("lsgm", "dopri5"): 2,
        ("sgm", "heun"): 5,
        ("sgm", "ancestral"): 5,
    }
    assert {curve.rows[0].metric for curve in curves} == {"frechet_glyphs", "kernel_glyphs"}
    assert all(curve.costs == sorted(curve.costs) for curve in curves)


def test_a_model_without_network_evaluations_is_a_level(rows: list[Row]) -> None:
    (level,) = levels_of([row for row in rows if row.metric == "frechet_glyphs"])
    assert (level.row.model, level.cost) == ("vae", None)


def test_the_figure_names_every_line_and_both_axes(rows: list[Row]) -> None:
    figure = cost_figure(rows)
    assert figure is not None
    names = {"lsgm", "sgm", "vae"}
    for axes in figure.axes:
        assert {text.get_text() for text in axes.texts} == names
        assert axes.get_xscale() == "log"
        assert "NFE" in axes.get_xlabel()
        assert "lower is better" in axes.get_ylabel()
    # Unbiased estimates reach below 0, where a logarithm ends.
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "symlog"]


def test_ticks_are_numbers_on_every_scale(rows: list[Row]) -> None:
    figure = cost_figure(rows)
    assert figure is not None
    for axes in figure.axes:
        for tick in axes.get_xticklabels() + axes.get_yticklabels():
            # Formulas are off in these figures: one would be printed as its source.
            float(tick.get_text().replace("−", "-"))


def test_a_single_measurement_of_an_adaptive_solver_is_a_point_with_its_interval(rows: list[Row]) -> None:
    kept = [row for row in rows if row.group != "curve" or row.model == "sgm"]
    levels = levels_of([row for row in kept if row.metric == "frechet_glyphs"])
    assert [(level.label, level.cost) for level in levels] == [("lsgm · heun", 39.0), ("vae", None)]
    figure = cost_figure(kept)
    assert figure is not None
    assert "lsgm · heun" in {text.get_text() for text in figure.axes[0].texts}


def test_no_curve_no_figure(rows: list[Row]) -> None:
    assert cost_figure([row for row in rows if row.group != "curve"]) is None
    assert training_figure([]) is None


def test_the_same_rows_give_the_same_bytes(rows: list[Row], tmp_path: Path) -> None:
    distances = [row for row in rows if row.metric == "frechet_glyphs"]
    written = []
    for name in ("a", "b"):
        figure = cost_figure(distances)
        assert figure is not None
        written.append(save(figure, tmp_path / name))
    for first, second in zip(*written, strict=True):
        assert first.read_bytes() == second.read_bytes()


@settings(deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.3))
def test_labels_are_moved_apart_no_further_than_needed(wanted: list[float], gap: float) -> None:
    wanted.sort()
    placed = _apart(wanted, gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(placed))
    if all(b - a >= gap for a, b in pairwise(wanted)):
        assert placed == pytest.approx(wanted)
    inside = _inside(placed, gap)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(inside))
    assert min(inside) >= -1e-9
    assert max(inside) <= max(1.0, (len(inside) - 1) * gap) + 1e-9
    # Labels that push one another keep the mean of where they wanted to be.
    assert sum(placed) == pytest.approx(sum(wanted))


def log(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def metrics(stage: str, seconds: float, **rest: float) -> str:
    return json.dumps({"step": 1, "stage": stage, "seconds": seconds, "total": 9.0 - seconds} | rest)


def test_the_clock_of_the_second_stage_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    file = log(
        tmp_path / "mine" / "metrics.jsonl",
        [metrics("one", 1.0), metrics("one", 5.0, val_nelbo=3.0), metrics("two", 2.0), '{"step": 4, "sta'],
    )
    run = read_training(file)
    assert run is not None
    assert run.name == "mine"
    assert list(run.columns["total"][0]) == [1.0, 5.0, 7.0]
    assert [list(column) for column in run.columns["val_nelbo"]] == [[5.0], [3.0]]
    assert run.boundaries == [5.0]
    figure = training_figure([run])
    assert figure is not None
    assert [axes.get_ylabel() for axes in figure.axes][1] == "validation NELBO"


def test_a_torn_last_line_is_forgiven_and_a_torn_line_within_is_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 1 is not a row of metrics"):
        read_training(log(tmp_path / "metrics.jsonl", ['{"step"', metrics("one", 1.0)]))


@pytest.mark.parametrize(("models", "samplers"), [(40, 1), (1, 60)])
def test_a_figure_has_room_for_many_names(models: int, samplers: int) -> None:
    about = {"task": "t@1/quick", "metric": "frechet_glyphs", "group": "curve", "higher_is_better": False}
    places = [(a, b, nfe) for a in range(models) for b in range(samplers) for nfe in (1.0, 8.0)]
    rows = [
        row_from(
            {
                **about,
                "model": f"m{a}",
                "sampler": f"s{b}(steps={nfe})",
                "nfe_mean": nfe,
                "value": 9.0 - nfe + a,
            }
        )
        for a, b, nfe in places
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where a panel has no room left
        figure = cost_figure(rows)
        assert figure is not None
        figure.canvas.draw()
    (axes,) = figure.axes
    tops = [text.get_position()[1] for text in axes.texts]
    assert len(tops) == models
    assert max(tops) <= 1.0 + 1e-9


def test_names_of_models_are_no_formulas(tmp_path: Path) -> None:
    rows = [replace(row_from(mapping), model="$\\frac$ <b>") for mapping in fake_rows()]
    figure = cost_figure([row for row in rows if row.group == "curve" and row.metric == "frechet_glyphs"])
    assert figure is not None
    files = save(figure, tmp_path / "nfe")
    assert [file.suffix for file in files] == [".png", ".pdf", ".svg"]
    assert "$\\frac$ &lt;b&gt;" in files[2].read_text(encoding="utf-8")

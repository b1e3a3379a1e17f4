"""Tables: golden files for every format, winners only where there are winners, no silent gaps."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reports.fake_rows import fake_rows

from lsgm.results.files import to_csv
from lsgm.results.labels import sampler_label
from lsgm.results.row import Row, row_from
from lsgm_reports.blocks import Table, transposed
from lsgm_reports.digits import best_of
from lsgm_reports.render.text import to_latex, to_markdown, to_terminal
from lsgm_reports.tables.headline import explanations, headline, lines_of, paired_table, provenance_table
from lsgm_reports.tables.points import curve_table

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture
def rows() -> list[Row]:
    return [row_from(mapping) for mapping in fake_rows()]


def tables(rows: list[Row]) -> list[Table]:
    found = [headline(rows, "glyphs@1/quick"), paired_table(rows), curve_table(rows), provenance_table(rows)]
    return [table for table in found if table is not None]


@pytest.mark.parametrize("name", ["tables.md", "results.csv", "tables.tex", "terminal.txt"])
def test_golden(name: str, rows: list[Row]) -> None:
    """Set LSGM_WRITE_GOLDEN=1 to write the files anew, then look at them."""
    text = {
        "tables.md": lambda: "\n".join([*(to_markdown(t) for t in tables(rows)), *explanations(rows), ""]),
        "results.csv": lambda: to_csv(rows),
        "tables.tex": lambda: "\n".join(to_latex(t) for t in tables(rows)),
        "terminal.txt": lambda: "\n".join(
            to_terminal(t) for t in [*tables(rows), transposed(tables(rows)[0])]
        ),
    }[name]()
    if os.environ.get("LSGM_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_the_csv_keeps_every_digit(rows: list[Row]) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [float(line["value"]) if line["value"] else None for line in read] == [row.value for row in rows]


def row(model: str, value: float | None, half: float | None = None, **rest: Any) -> Row:
    ends = {} if half is None or value is None else {"ci_low": value - half, "ci_high": value + half}
    about = {"higher_is_better": False, "group": "quality", "metric": "frechet_glyphs"}
    return row_from({"task": "t@1/quick", "model": model, "value": value} | ends | about | rest)


def test_the_best_must_lead_by_more_than_the_error_of_the_lead() -> None:
    # sqrt(3^2 + 4^2) = 5: a lead of 5 is a tie, one of 5.01 is not.
    assert best_of([row("a", 10.0, 3.0), row("b", 15.0, 4.0)]) is None
    winner = row("a", 9.99, 3.0)
    assert best_of([row("b", 15.0, 4.0), winner]) is winner


def test_the_best_must_beat_all_others_not_the_next_alone() -> None:
    # c is further away, and so uncertain that it may be the best.
    assert best_of([row("a", 1.0, 0.1), row("b", 2.0, 0.1), row("c", 3.0, 5.0)]) is None


def test_higher_can_be_better() -> None:
    high = row("b", 2.0, 0.1, higher_is_better=True)
    assert best_of([row("a", 1.0, 0.1, higher_is_better=True), high]) is high


def test_no_winner_among_one_or_without_interval_direction_or_common_ground() -> None:
    assert best_of([row("a", 1.0, 0.1)]) is None
    assert best_of([row("a", 1.0), row("b", 2.0)]) is None
    assert (
        best_of([row("a", 1.0, 0.1, higher_is_better=None), row("b", 2.0, 0.1, higher_is_better=None)])
        is None
    )
    assert best_of([row("a", 1.0, 0.1, dataset="x@1@0"), row("b", 2.0, 0.1, dataset="x@2@0")]) is None


def test_of_lopsided_intervals_the_arms_that_face_each_other_count() -> None:
    # Between 10 and 15 lie 3 above the one and 4 below the other: their far arms are of no concern.
    for far in (0.0, 100.0):
        low, high = (
            row("a", 10.0, ci_low=9.99 - far, ci_high=13.0),
            row("b", 15.0, ci_low=11.0, ci_high=15 + far),
        )
        assert best_of([low, high]) is None
        closer = row("a", 9.99, ci_low=9.98 - far, ci_high=12.99)
        assert best_of([high, closer]) is closer


def test_of_higher_is_better_the_facing_arms_are_the_others() -> None:
    high = row("b", 15.01, ci_low=12.01, ci_high=99.0, higher_is_better=True)
    low = row("a", 10.0, ci_low=-99.0, ci_high=14.0, higher_is_better=True)
    assert best_of([low, high]) is high
    assert best_of([low, row("b", 15.0, ci_low=12.0, ci_high=99.0, higher_is_better=True)]) is None


def test_an_estimate_outside_of_its_interval_must_lead_by_its_bias_too() -> None:
    biased = row("a", 10.0, ci_low=12.0, ci_high=14.0)
    assert best_of([biased, row("b", 14.0, 0.0)]) is None
    assert best_of([biased, row("b", 14.01, 0.0)]) is biased


def test_a_lead_within_what_biases_may_make_of_it_is_none() -> None:
    # 1.25 times the biases' difference of 0.6 is 0.75: a lead of 1 is 0.25 without it, and its error 0.14.
    ahead, behind = row("a", 1.0, 0.1, bias=0.2), row("b", 2.0, 0.1, bias=0.8)
    assert best_of([ahead, behind]) is ahead
    assert best_of([ahead, replace(behind, bias=0.9)]) is None
    # What leads in spite of the larger bias leads by more.
    biased = replace(ahead, bias=9.0)
    assert best_of([biased, behind]) is biased


def test_biases_of_older_rows_are_read_from_their_notes() -> None:
    said = "upward bias at this n about {}, not subtracted; of 10,000 of the 50,000 images"
    ahead, behind = (row(name, value, 0.1) for name, value in (("a", 1.0), ("b", 2.0)))
    assert best_of([ahead, behind]) is ahead
    noted = [replace(ahead, note=said.format("2e-01")), replace(behind, note=said.format("0.9"))]
    assert [each.upward_bias for each in noted] == [0.2, 0.9]
    assert best_of(noted) is None


def test_a_gap_keeps_no_one_from_winning_and_one_without_interval_keeps_all() -> None:
    winner, loser = row("a", 1.0, 0.1), row("b", 2.0, 0.1)
    assert best_of([winner, loser, row("c", None, note="no flow")]) is winner
    assert best_of([winner, row("c", None)]) is None
    assert best_of([winner, loser, row("c", 9.0)]) is None
    assert best_of([winner, row("b", 2.0, ci_low=1.9)]) is None  # half an interval is none


def test_unknown_metrics_win_only_where_their_rows_say_which_way() -> None:
    mine = [row(name, value, 0.1, metric="novel_score") for name, value in (("a", 1.0), ("b", 2.0))]
    assert best_of(mine) is mine[0]
    assert best_of([replace(each, higher_is_better=None) for each in mine]) is None


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(-40, 40), st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=4)
)
def test_the_best_is_nowhere_beaten_and_does_not_depend_on_order_or_sign(
    given_rows: list[tuple[int, int, int]],
) -> None:
    # Quarters are exact, so that mirroring is.
    rows = [
        row(str(k), v / 4, ci_low=(v - down) / 4, ci_high=(v + up) / 4)
        for k, (v, down, up) in enumerate(given_rows)
    ]
    best = best_of(rows)
    assert best_of(rows[::-1]) is best
    assert best is None or all(best.value < other.value for other in rows if other is not best)
    mirrored = [
        replace(each, value=-each.value, ci_low=-each.ci_high, ci_high=-each.ci_low, higher_is_better=True)
        for each in rows
    ]
    again = best_of(mirrored)
    assert (again and again.model) == (best and best.model)


def test_counts_are_exact_and_equal_counts_tie() -> None:
    few = row("a", 10.0, metric="nfe", group="cost")
    assert best_of([few, row("b", 20.0, metric="nfe", group="cost")]) is few
    assert best_of([few, row("b", 10.0, metric="nfe", group="cost")]) is None


def test_a_missing_number_is_explained_and_the_same_reason_has_one_letter() -> None:
    page = to_markdown(
        headline([row("a", 1.0, 0.1), row("b", None, note="no flow"), row("c", None, note="no flow")], "t")
    )
    assert page.count("n/a<sup>a</sup>") == 2
    assert page.count("<sup>a</sup> no flow") == 1


def test_a_metric_that_one_model_lacks_altogether_says_so() -> None:
    page = to_markdown(headline([row("a", 1.0, 0.1), row("b", 2.0, 0.1, metric="kernel_glyphs")], "t"))
    assert "<sup>a</sup> not measured" in page
    assert "| |" not in page.replace("  ", "")


def test_numbers_of_different_data_are_shown_without_a_winner_and_with_a_warning() -> None:
    page = to_markdown(
        headline([row("a", 1.0, 0.1, dataset="x@1@0"), row("b", 2.0, 0.1, dataset="x@2@0")], "t")
    )
    assert "**" not in page
    assert "measured against different data" in page


def test_checkpoints_and_samplers_of_one_name_get_lines_of_their_own() -> None:
    two = lines_of([row("a", 1.0, checkpoint_sha256="1" * 64), row("a", 2.0, checkpoint_sha256="2" * 64)])
    assert [line.label for line in two] == ["a (11111111)", "a (22222222)"]
    bound = row("a", 90.0, metric="nelbo_nats", group="likelihood")
    lines = lines_of([row("a", 1.0, sampler="heun"), row("a", 2.0, sampler="euler"), bound])
    assert [line.sampler for line in lines] == ["heun", "euler"]
    assert all(line.rows["nelbo_nats"] is bound for line in lines)


def test_a_shared_remark_stands_once_and_others_after_their_model() -> None:
    lines = explanations([row("a", 1.0, note="floor 3; bias 1"), row("b", 2.0, note="floor 3; bias 2")])
    assert len(lines) == 1
    assert lines[0].endswith("Floor 3. a: bias 1; b: bias 2.")


def test_of_many_remarks_the_number_is_said() -> None:
    (line,) = explanations([row(f"m{k}", float(k), note=f"floor 3; bias {k}") for k in range(19)])
    assert line.endswith("Floor 3. 19 rows have remarks of their own, which stand with them in results.csv.")


def test_hostile_names_stay_inside_their_cells() -> None:
    table = headline([row("a|b_c & 50%", 1.0, 0.1), row("d", 2.0, 0.1)], "t_1")
    assert "a\\|b_c & 50%" in to_markdown(table)
    assert r"a|b\_c \& 50\%" in to_latex(table)
    assert r"\caption{t\_1." in to_latex(table)


@pytest.mark.parametrize(
    ("sampler", "shown"),
    [
        (None, "none"),
        ("heun(steps=20)", "heun, 20 steps"),
        ("heun(steps=1)", "heun, 1 step"),
        ("heun(steps=10)", "heun, 10 steps"),
        ("dopri5(rtol=0.001, atol=0.001)", "dopri5, tol 0.001"),
        ("dopri5(rtol=0.001, atol=1e-05)", "dopri5, rtol=0.001, atol=1e-05"),
        ("heun(steps=20, temperature=0.8)", "heun, 20 steps, temperature=0.8"),
        ("mine", "mine"),
    ],
)
def test_a_sampler_is_shown_with_its_settings(sampler: str | None, shown: str) -> None:
    assert sampler_label(sampler) == shown

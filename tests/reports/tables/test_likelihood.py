"""The likelihood table: a line per estimate, winners among like and like, terms that add up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from reports.fake_bounds import BITS, NO_FLOW, estimate, fake_bounds, term_rows
from reports.fake_rows import fake_rows

from lsgm.results.files import to_csv
from lsgm.results.labels import estimator_label
from lsgm.results.metrics import metric_of
from lsgm.results.row import Row, row_from
from lsgm_reports import published
from lsgm_reports.blocks import COARSE, Table
from lsgm_reports.document import main_table
from lsgm_reports.render.text import to_latex, to_markdown, to_terminal
from lsgm_reports.tables.headline import explanations, headline, paired_table, provenance_table
from lsgm_reports.tables.likelihood import (
    bound_explanations,
    decomposition_table,
    estimates_of,
    group_table,
    likelihood_table,
    likelihood_tables,
    only_bounds,
    term_explanations,
)

GOLDEN = Path(__file__).parents[1] / "golden"


def rows_of(*parts: list[dict[str, Any]]) -> list[Row]:
    return [row_from(mapping) for part in parts for mapping in part]


@pytest.fixture
def rows() -> list[Row]:
    return rows_of(fake_bounds())


def table_of(*parts: list[dict[str, Any]]) -> Table:
    table = likelihood_table(rows_of(*parts), "t@1")
    assert table is not None
    return table


def column(table: Table, head: str) -> list[str]:
    index = next(i for i, column in enumerate(table.columns) if column.head.startswith(head))
    return [line[index].text for line in table.lines]


def winners(table: Table) -> list[tuple[str, str]]:
    """Model and estimator of the lines with a winner."""
    return [(line[0].text, line[2].text) for line in table.lines if any(cell.best for cell in line)]


@pytest.mark.parametrize("name", ["likelihood.md", "likelihood.tex", "likelihood.txt"])
def test_golden(name: str, rows: list[Row], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Set LSGM_WRITE_GOLDEN=1 to write the files anew, then look at them."""
    (tmp_path / "none.toml").touch()  # the page must not change when a calibration is measured
    monkeypatch.setattr(published, "FILE_CALIBRATION", tmp_path / "none.toml")
    tables = [*likelihood_tables(rows, "mnist@1/full"), paired_table(rows), provenance_table(rows)]
    shown = [table for table in tables if table is not None]
    lines = [*bound_explanations(rows), *term_explanations(rows), ""]
    text = {
        "likelihood.md": lambda: "\n".join([*(to_markdown(t) for t in shown), *lines]),
        "likelihood.tex": lambda: "\n".join(to_latex(t) for t in shown),
        "likelihood.txt": lambda: to_terminal(main_table(rows, "mnist@1/full")),
    }[name]()
    if os.environ.get("LSGM_WRITE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("estimator", "shown"),
    [
        ("nelbo(times=16)", "16 times"),
        ("nelbo(times=1, samples=4)", "1 time, 4 draws"),
        ("nelbo(times=8, control_variate=off)", "8 times, no control variate"),
        ("iw(samples=1000)", "K = 1,000"),
        (
            "iw(samples=10, solver=dopri5, rtol=1e-05, atol=1e-05, probes=1)",
            "K = 10, dopri5, tol 1e-5, 1 probe",
        ),
        ("ode(solver=dopri5, rtol=0.001, atol=1e-10, probes=4)", "dopri5, rtol 1e-3, atol 1e-10, 4 probes"),
        ("ode(solver=rk4, steps=20, divergence=exact)", "rk4, 20 steps, exact trace"),
        (
            "ode(solver=dopri5, rtol=0.001, atol=0.001, step_control=density, probes=1)",
            "dopri5, tol 1e-3, log-density in the step control, 1 probe",
        ),
        (
            "ode(solver=heun, steps=5, probes=1, dequantise=uniform, samples=4)",
            "heun, 5 steps, 1 probe, uniform dequantisation, 4 draws",
        ),
        ("nelbo(times=2, dequantise=noise)", "2 times, dequantised by the first noise"),
        ("ode(rtol=tight, mine=7)", "rtol tight, mine=7"),
        ("mine", "mine"),
        (None, "not stated"),
    ],
)
def test_an_estimator_is_said_in_words(estimator: str | None, shown: str) -> None:
    assert estimator_label(estimator) == shown


def test_nats_and_bits_of_one_estimate_share_a_line_and_bounds_have_an_order() -> None:
    table = table_of(
        estimate("a", "ode_nll", "ode(steps=2)", 3.0, 0.1),
        estimate("b", "nelbo", "nelbo(times=1)", 5.0, 0.1),
        estimate("a", "iw", "iw(samples=2)", 2.0, 0.1),
        estimate("a", "nelbo", "nelbo(times=1)", 4.0, 0.1),
    )
    assert list(zip(column(table, "Model"), column(table, "Bound"), strict=True)) == [
        ("a", "NELBO"),
        ("a", "IW bound"),
        ("a", "ODE NLL"),
        ("b", "NELBO"),
    ]
    assert column(table, "nats") == ["4.00 ± 0.10", "2.00 ± 0.10", "3.00 ± 0.10", "5.00 ± 0.10"]


def test_the_same_estimate_measured_again_replaces_the_first_and_another_tolerance_does_not() -> None:
    table = table_of(
        estimate("a", "ode_nll", "ode(rtol=0.1, atol=0.1)", 9.0, 0.1),
        estimate("a", "ode_nll", "ode(rtol=0.1, atol=0.1)", 8.0, 0.1),
        estimate("a", "ode_nll", "ode(rtol=0.01, atol=0.01)", 7.0, 0.1),
    )
    assert column(table, "nats") == ["8.00 ± 0.10", "7.00 ± 0.10"]


def test_a_bound_is_shown_in_the_unit_of_its_literature_and_on_a_page_in_the_other_too(
    rows: list[Row],
) -> None:
    def order(table: Table) -> list[str]:
        (column,) = (column for column in table.columns if column.head.endswith("↓"))
        assert column.other is not None
        assert all(line[3].other is not None for line in table.lines)
        return [column.head[:4], column.other.head[:4]]

    assert order(table_of(fake_bounds())) == ["nats", "bits"]
    assert order(table_of(fake_bounds(dataset="cifar10@1@00", task="cifar10@1/full"))) == ["bits", "nats"]
    assert order(table_of(fake_bounds(dataset=None, task="omniglot@1/full"))) == ["nats", "bits"]


def test_the_last_estimate_of_each_model_competes() -> None:
    loose, tight = "ode(rtol=0.1, atol=0.1)", "ode(rtol=0.01, atol=0.01)"
    other = estimate("b", "ode_nll", tight, 8.0, 0.1)
    first = table_of(
        estimate("a", "ode_nll", tight, 9.0, 0.1), estimate("a", "ode_nll", loose, 7.0, 0.1), other
    )
    assert winners(first) == [("a", "tol 1e-1")]
    second = table_of(
        estimate("a", "ode_nll", loose, 7.0, 0.1), estimate("a", "ode_nll", tight, 9.0, 0.1), other
    )
    assert winners(second) == [("b", "tol 1e-2")]


def test_a_tie_has_no_winner_and_neither_has_one_model_with_two_estimates() -> None:
    # sqrt(0.3^2 + 0.4^2) = 0.5 is the error of the lead.
    assert not winners(
        table_of(estimate("a", "nelbo", "nelbo", 80.0, 0.3), estimate("b", "nelbo", "nelbo", 80.5, 0.4))
    )
    assert not winners(
        table_of(
            estimate("a", "nelbo", "nelbo(times=1)", 80.0, 0.3), estimate("a", "nelbo", "nelbo", 99.0, 0.4)
        )
    )


def test_bounds_of_different_k_do_not_compete() -> None:
    few, many = "iw(samples=10, solver=dopri5)", "iw(samples=1000)"
    a, b = estimate("a", "iw", few, 80.0, 0.1), estimate("b", "iw", many, 70.0, 0.1)
    assert not winners(table_of(a, b))
    assert winners(table_of(a, b, estimate("c", "iw", "iw(samples=10)", 90.0, 0.1))) == [
        ("a", "K = 10, dopri5")
    ]


def test_different_bits_are_not_ranked_and_the_reader_is_told() -> None:
    a = estimate("a", "nelbo", "nelbo", 80.0, 0.1)
    b = estimate("b", "nelbo", "nelbo", 70.0, 0.1, levels_sha256="b2" * 32)
    table = table_of(a, b)
    assert not winners(table)
    assert table.notes == [
        ("a", "not recorded"),  # evaluations and seconds
        ("b", "NELBO: the models were scored on different images or bits, none is marked"),
    ]


def test_a_bound_that_a_model_lacks_is_explained_once(rows: list[Row]) -> None:
    table = table_of(fake_bounds())
    assert table.notes == [("a", NO_FLOW)]
    line = next(line for line in table.lines if line[0].text == "vae" and line[1].text == "ODE NLL")
    assert [(cell.text, cell.mark) for cell in line[2:]] == [("n/a", "a")] * 5
    half = table_of(estimate("a", "nelbo", "nelbo", 80.0, 0.1)[:1])
    assert half.notes == [("a", "not recorded")]


def test_no_number_is_hidden_where_one_estimate_has_the_other_unit_alone() -> None:
    one, other = estimate("a", "nelbo", "nelbo", 80.0, 0.1), estimate("b", "nelbo", "nelbo", 90.0, 0.1)
    table = table_of(one, other[1:])
    assert [column.head for column in table.columns[3:5]] == ["nats/image ↓", "bits/dim ↓"]
    assert "not measured" in dict(table.notes).values()


def test_a_narrow_column_is_a_table_still() -> None:
    page = to_markdown(table_of(estimate("a", "nelbo", "nelbo", 80.0, 0.1, n=8)))
    assert "|   8 |" in page
    assert "| --: |" in page


def test_seconds_and_evaluations_are_per_image() -> None:
    slow = estimate(
        "a", "ode_nll", "ode(rtol=1, atol=1)", 1.0, 0.1, seconds=3120.0, nfe_mean=137.4, nfe_max=218.0
    )
    table = table_of(slow)
    assert column(table, "s/image") == ["0.31"]
    assert column(table, "NFE") == ["137.4 (max 218)"]


def test_checkpoints_of_one_name_get_lines_of_their_own() -> None:
    two = [estimate("a", "nelbo", "nelbo", 1.0, 0.1, checkpoint_sha256=sha * 64) for sha in "12"]
    assert [each.model for each in estimates_of(rows_of(*two))] == ["a (11111111)", "a (22222222)"]
    parts = [
        row | {"checkpoint_sha256": s * 64} for s in "12" for row in term_rows("a", "iw", "iw", {"x": 1.0})
    ]
    table = decomposition_table(rows_of(parts))
    assert table is not None
    assert column(table, "Model") == ["a (11111111)", "a (22222222)"]


def test_bounds_alone_have_no_headline_and_quality_keeps_it(rows: list[Row]) -> None:
    assert only_bounds(rows)
    assert main_table(rows, "t").columns[1].head == "Bound"
    both = [*rows_of(fake_rows()), *rows]
    assert not only_bounds(both)
    assert main_table(both, "t").columns[1].head == "Sampler"


def test_a_headline_shows_the_last_estimate_and_no_terms() -> None:
    quality = [{"task": "t@1", "model": "lsgm", "metric": "frechet_x", "value": 3.0, "group": "quality"}]
    page = to_markdown(headline(rows_of(quality, fake_bounds(task="t@1", checkpoint_sha256=None)), "t@1"))
    assert "81.4 ± 0.5" in page  # the flow at the tighter tolerance
    assert "81.7" not in page
    assert "IW bound (nats) ↓" in page
    assert "econstruction" not in page


def test_remarks_stand_with_their_model_and_where_it_has_several_with_their_estimator() -> None:
    lines = bound_explanations(
        rows_of(
            estimate("a", "nelbo", "nelbo(times=1)", 1.0, 0.1, note="upper bound; rough"),
            estimate("a", "nelbo", "nelbo(times=9)", 1.0, 0.1, note="upper bound; fine"),
            estimate("b", "nelbo", "nelbo(times=1)", 1.0, 0.1, note="upper bound"),
        )
    )
    assert len(lines) == 1
    assert lines[0].endswith("n = 10,000 (split test). Upper bound. a, 1 time: rough; a, 9 times: fine.")


def test_the_headlines_explanations_are_of_the_estimates_it_shows() -> None:
    (line,) = [
        line
        for line in explanations(
            rows_of(
                estimate("a", "iw", "iw(samples=2)", 2.0, 0.1, note="two"),
                estimate("a", "iw", "iw(samples=9)", 1.0, 0.1, note="nine"),
            )
        )
        if "(nats)" in line
    ]
    assert "Nine" in line
    assert "two" not in line.lower().partition("n = ")[2]


def test_terms_add_up_with_the_error_of_their_bound(rows: list[Row]) -> None:
    table = decomposition_table(rows)
    assert table is not None
    heads = [column.head for column in table.columns]
    assert heads[3:] == [
        "Reconstruction",
        "Negative entropy",
        "Cross entropy",
        "Terminal",
        "Tail",
        "Importance gain",
        "Sum",
    ]
    # 54.00 - 100.50 + 127.97 + 0.03 + 0.02 = 81.52, the bound.
    assert [line[-1].text for line in table.lines] == ["81.5 ± 0.4", "85.0 ± 0.5"]
    assert [line[heads.index("Terminal")].text for line in table.lines] == ["0.03 ± 0.10", "–"]
    assert [line[heads.index("Tail")].text for line in table.lines] == ["0.02 ± 0.10", "–"]
    assert not any(cell.best for line in table.lines for cell in line)


def test_a_bound_from_before_there_was_a_tail_has_none() -> None:
    older, newer = (
        term_rows(model, "nelbo", "nelbo(times=2)", {"terminal": 0.5} | tail)
        for model, tail in (("older", {}), ("newer", {"tail": 0.25}))
    )
    both, alone = (decomposition_table(rows_of(*parts)) for parts in ((older, newer), (older,)))
    assert both is not None
    assert alone is not None
    assert [[cell.text for cell in line[4:]] for line in both.lines] == [
        ["–", "0.5000"],
        ["0.25 ± 0.10", "0.7500"],
    ]
    assert [column.head for column in alone.columns[3:]] == ["Terminal", "Sum"]


def test_a_tail_by_groups_stands_in_their_lines_and_every_term_is_explained() -> None:
    rows = rows_of(term_rows("a", "nelbo", "nelbo", {"tail": 0.3, "tail/0": 0.1, "tail/1": 0.2}))
    table = group_table(rows)
    assert table is not None
    assert [[cell.text for cell in line[3:]] for line in table.lines] == [
        ["0", "0.10 ± 0.10"],
        ["1", "0.20 ± 0.10"],
    ]
    (line,) = term_explanations(rows)
    assert line.startswith("- **Tail**: the lower end of time in the score-matching bound")
    assert metric_of(rows[1]).label == "NELBO: tail, group 0"


def test_a_sum_of_terms_without_their_bound_has_no_error() -> None:
    table = decomposition_table(
        rows_of(term_rows("a", "nelbo", "nelbo", {"reconstruction": 3.5, "mine": 1.0}))
    )
    assert table is not None
    assert [column.head for column in table.columns[3:]] == ["Reconstruction", "Mine", "Sum"]
    assert table.lines[0][-1].text == "4.500"


def test_groups_are_lines_and_what_is_of_the_top_scale_stands_apart(rows: list[Row]) -> None:
    table = group_table(rows)
    assert table is not None
    assert [[cell.text for cell in line[3:]] for line in table.lines] == [
        ["0", "−70.00 ± 0.10", "–"],
        ["1", "−30.50 ± 0.10", "–"],
        ["top", "–", "128.00 ± 0.10"],
    ]


def test_the_calibration_rests_on_recalled_numbers_and_comes_when_asked_for(rows: list[Row]) -> None:
    plain, asked = ([t.title for t in likelihood_tables(rows, "t", recalled=each)] for each in (False, True))
    assert [title for title in asked if title not in plain] == ["Calibration against the literature"]
    assert set(plain) <= set(asked)


def test_every_measured_number_leads_to_its_row(rows: list[Row]) -> None:
    for table in likelihood_tables(rows, "t")[:1]:
        for line in table.lines:
            for head, cell in zip(table.columns, line, strict=True):
                number = head.align == "right" and head.head != "n" and cell.text != "n/a"
                assert (cell.row is not None and cell.sort is not None) == number


def test_costs_that_no_clock_could_have_measured_are_gaps() -> None:
    for seconds, n in ((0.0, 10), (5e-324, 10000)):
        table = table_of(estimate("a", "nelbo", "nelbo", 1.0, 0.1, seconds=seconds, n=n))
        assert column(table, "s/image") == ["n/a"]


def test_without_terms_or_bounds_there_are_no_such_tables() -> None:
    quality = rows_of([row for row in fake_rows() if row["group"] == "quality"])
    assert likelihood_tables(quality, "t") == []
    assert decomposition_table(quality) is None
    assert group_table(quality) is None
    assert bound_explanations(quality) == term_explanations(quality) == []


def test_terms_know_their_names() -> None:
    split, whole = rows_of(
        term_rows("a", "iw", "iw(samples=2)", {"negative_entropy/3": 1.0, "terminal": 0.0})
    )
    assert metric_of(split).head == "IW bound: negative entropy, group 3 (nats)"
    assert metric_of(whole).label == "IW bound: terminal"


def test_a_difference_says_where_the_two_were_not_estimated_alike(rows: list[Row]) -> None:
    page = to_markdown(paired_table(rows) or pytest.fail("there are pairs"))
    assert "IW bound (nats)" in page
    assert "<sup>" not in page
    noted = [row | {"note": "by iw(samples=10) and iw(samples=9)"} for row in fake_bounds()]
    page = to_markdown(paired_table(rows_of(noted)) or pytest.fail("there are pairs"))
    assert page.count("<sup>a</sup>") == 3
    assert "<sup>a</sup> by iw(samples=10) and iw(samples=9)" in page


def test_the_bits_that_were_scored_are_named(rows: list[Row]) -> None:
    assert "Bits scored sha256" in to_markdown(provenance_table(rows))
    assert BITS[:12] in to_markdown(provenance_table(rows))
    assert BITS in to_csv(rows)
    assert "Bits scored" not in to_markdown(provenance_table(rows_of(fake_rows())))


FLOW = "ode(solver=dopri5, rtol=0.001, atol=0.001, probes=1)"


def test_the_solvers_error_of_a_flow_stands_beside_its_bound() -> None:
    solved = {"solver_error": -0.31, "solver_error_margin": 0.04}
    table = table_of(
        estimate("a", "ode_nll", FLOW, 90.2, 0.5, **solved),
        estimate("b", "nelbo", "nelbo(times=4)", 91.0, 0.5),
        estimate("c", "ode_nll", FLOW, 92.0, 0.5),
    )
    assert column(table, "Solver error (nats/image)") == ["−0.31 ± 0.04", "n/a", "n/a"]
    assert {text for _, text in table.notes} == {"no flow is solved for it", "not recorded"}
    assert "below 0 where it is too low" in table.caption
    assert column(table, "nats/image") == ["90.2 ± 0.5", "91.0 ± 0.5", "92.0 ± 0.5"]


def test_a_bound_that_its_solver_may_have_made_is_marked_and_never_the_best() -> None:
    def rows_with(error: float) -> Table:
        solved = {"solver_error": error, "solver_error_margin": 0.2}
        return table_of(
            estimate("a", "ode_nll", FLOW, 80.0, 0.5, **solved), estimate("b", "ode_nll", FLOW, 92.0, 0.5)
        )

    rough = rows_with(-12.0)
    assert not winners(rough)
    assert ("a", COARSE) in rough.notes
    assert rough.lines[0][3].mark == "a"
    assert winners(rows_with(-0.2)) == [("a", "dopri5, tol 1e-3, 1 probe")]


def test_without_any_solver_error_the_table_has_no_column_for_it() -> None:
    table = table_of(estimate("a", "ode_nll", FLOW, 90.2, 0.5))
    assert not any(head.head.startswith("Solver error") for head in table.columns)


def test_a_difference_within_the_solvers_error_gets_no_verdict() -> None:
    def verdict(error: float) -> str:
        pair: dict[str, Any] = {
            "task": "t@1",
            "model": "a - b",
            "metric": "paired_ode_nll_nats",
            "value": -25.0,
        }
        pair |= {"ci_low": -35.0, "ci_high": -15.0, "n": 8, "group": "likelihood"}
        pair |= {"solver_error": error, "solver_error_margin": 1.6}
        table = paired_table([row_from(pair)])
        assert table is not None
        return column(table, "95 % interval")[0]

    assert verdict(-13.7) == "below the solver's error"
    assert verdict(-0.7) == "excludes 0"

"""What a report says first: who is best, by how much, and whether the lead exceeds its error."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from reports.any_rows import any_rows

from lsgm.results.row import Row, row_from
from lsgm_reports.verdict import verdict


def row(model: str, value: float | None, half: float | None = None, **rest: Any) -> Row:
    ends = {} if half is None or value is None else {"ci_low": value - half, "ci_high": value + half}
    about = {"higher_is_better": False, "group": "quality", "metric": "fid"}
    return row_from({"task": "cifar10@1/quick", "model": model, "value": value} | ends | about | rest)


def test_the_best_its_lead_and_that_it_exceeds_its_error() -> None:
    rows = [row("b", 15.0, 0.4), row("a", 10.0, 0.3), row("c", 20.0, 1.0)]
    (said,) = verdict(rows)
    assert said.startswith("**a** has the lowest FID, 10.0 ± 0.3, before b with 15.0 ± 0.4.")
    assert said.endswith("The lead of 5.0 ± 0.5 exceeds its error.")
    assert verdict(rows[::-1]) == [said]


def test_a_lead_within_its_error_tells_no_two_apart() -> None:
    (said,) = verdict([row("a", 10.0, 3.0), row("b", 15.0, 4.0)])
    assert said.endswith("The lead of 5 ± 5 does not exceed its error: the two are not told apart.")
    (said,) = verdict([row("a", 10.0, 0.3), row("b", 15.0, 0.4, bias=9.0)])
    assert said.endswith("The lead of 5.0 ± 0.5 may be bias: the two are not told apart.")


def test_one_that_is_further_away_and_less_certain_is_named_too() -> None:
    (said,) = verdict([row("a", 1.0, 0.1), row("b", 2.0, 0.1), row("c", 3.0, 5.0)])
    assert said.endswith("The lead over b is 1.00 ± 0.14; not told apart from the best: c.")


def test_a_lead_measured_in_pairs_is_the_one_that_counts() -> None:
    rows = [row("a", 10.0, 3.0), row("b", 15.0, 4.0)]
    for model, value in (("a - b", -4.8), ("b - a", 4.8)):
        (said,) = verdict([*rows, row(model, value, 0.2, metric="paired_fid")])
        assert said.endswith("The lead of 4.8 ± 0.2 exceeds its error.")
    (said,) = verdict([*rows, row("a - b", -4.8, 0.2, metric="paired_fid", bias=-9.0)])
    assert "may be bias" in said


def test_higher_can_be_better() -> None:
    rows = [
        row(name, value, 0.1, metric="inception_score", higher_is_better=True)
        for name, value in (("a", 8.0), ("b", 9.0))
    ]
    pair = row("a - b", -0.9, 0.1, metric="paired_inception_score", higher_is_better=True)
    for more in ([], [pair]):
        (said,) = verdict([*rows, *more])
        assert said.startswith(
            "**b** has the highest Inception Score, 9.00 ± 0.10, before a with 8.00 ± 0.10."
        )
        assert said.endswith("exceeds its error.")


def test_one_model_is_told_without_a_rank_and_a_number_without_interval_without_a_lead() -> None:
    assert verdict([row("a", 10.0, 0.3)]) == ["FID of **a** is 10.0 ± 0.3."]
    (said,) = verdict([row("a", 10.0, 0.3), row("b", 11.0)])
    assert "nothing says whether the lead is more than chance" in said
    (said,) = verdict([row("a", 1.0, 0.1, dataset="x@1@0"), row("b", 2.0, 0.1, dataset="x@2@0")])
    assert "measured against different data" in said
    assert verdict([row("a", None)]) == []


def test_a_bound_in_the_unit_of_its_literature_and_the_best_sampler_of_a_model() -> None:
    bounds = {"group": "likelihood", "unit": None}
    rows = [
        *(row("a", 9.0 + k, 0.1, metric="frechet_glyphs", sampler=f"heun(steps={k})") for k in (2, 1)),
        *(row(name, 80.0 + k, 0.1, metric="nelbo_nats", **bounds) for k, name in enumerate("ab")),
        *(row(name, 1.1 + k, 0.1, metric="nelbo_bpd", **bounds) for k, name in enumerate("ab")),
    ]
    quality, likelihood = verdict(rows)
    assert quality == "Fréchet distance (features: glyphs) of **a** is 10.00 ± 0.10."
    assert likelihood.startswith(
        "**a** has the lowest NELBO, 1.10 ± 0.10 bits/dim, before b with 2.10 ± 0.10."
    )


def test_of_ratios_of_costs_the_first_that_is_decided_speaks() -> None:
    def ratio(metric: str, low: float) -> Row:
        about = {"group": "reach", "target": "fid<=5", "higher_is_better": True}
        return row("a / b", 2.0, ci_low=low, ci_high=3.0, metric=metric, **about)

    operations = ratio("speedup_flops", 1.5)
    (said,) = verdict([ratio("speedup_nfe", 0.5), operations])
    assert said == "At FID ≤ 5 a needs 2 (1.5 to 3) times fewer FLOPs than b."
    (said,) = verdict([operations, ratio("speedup_nfe", 1.5)])
    assert said == "At FID ≤ 5 a needs 2 (1.5 to 3) times fewer evaluations than b."
    (said,) = verdict([ratio("speedup_nfe", 0.5)])
    assert "it is undecided" in said


@settings(deadline=None, max_examples=25)
@given(any_rows())
def test_any_rows_have_a_verdict_of_a_few_sentences(rows: list[Row]) -> None:
    said = verdict(rows)
    assert len(said) <= 3
    assert all(sentence.endswith(".") for sentence in said)

"""What is refused before rows stand in one table: other protocols, contradictions; and what is only said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from reports.any_rows import any_rows

from lsgm.errors import DataError
from lsgm.results.row import Row, row_from
from lsgm_reports.read import Placed, distinct, one_protocol, unknown_metrics

FILE = Path("results.jsonl")


def row(task: str = "glyphs@1/quick", value: float | None = 1.0, **rest: Any) -> Row:
    return row_from({"task": task, "model": "a", "metric": "fid", "value": value} | rest)


def placed(*rows: Row) -> list[Placed]:
    return [Placed(each, FILE, number) for number, each in enumerate(rows, start=1)]


def kept(*rows: Row, keep_last: bool = False) -> list[Row]:
    return [each.row for each in distinct(placed(*rows), keep_last=keep_last)[0]]


@pytest.mark.parametrize("other", ["glyphs@2/quick", "glyphs@1/smoke", "glyphs@1/full-limit-10"])
def test_versions_and_tiers_of_one_task_are_refused_with_both_places(other: str) -> None:
    with pytest.raises(DataError) as caught:
        one_protocol(placed(row(), row("mnist@1/full"), row(other)))
    for words in ("glyphs@1/quick (results.jsonl line 1)", "(results.jsonl line 3)", "--separate"):
        assert words in str(caught.value)
    assert str(caught.value).count("\n") == 0


def test_fewer_images_and_other_samplers_are_of_the_same_protocol() -> None:
    tasks = (
        "glyphs@1/quick",
        "glyphs@1/quick-limit-500",
        "glyphs@1/quick-limit-5-custom",
        "glyphs@1/quick-custom",
    )
    one_protocol(placed(*(row(task) for task in tasks), row("mnist@2/smoke")))


def test_equal_rows_count_once() -> None:
    rows, said = distinct(placed(row(), row(), row(metric="kid"), row()))
    assert [each.row.metric for each in rows] == ["fid", "kid"]
    assert said == ["2 rows were found more than once, and counted once"]


def test_the_same_outcome_of_another_call_is_one_measurement() -> None:
    rows, said = distinct(placed(row(run_id="1"), row(run_id="2")))
    assert [each.row.run_id for each in rows] == ["2"]
    assert said == ["1 row was measured again with the same outcome; the last stands"]


@pytest.mark.parametrize(
    "other", [{"value": 2.0}, {"value": None}, {"ci_low": 0.5, "ci_high": 1.5}, {"value": 1.0 + 2**-52}]
)
def test_a_contradiction_names_both_places(other: dict[str, Any]) -> None:
    second = row(**other)
    with pytest.raises(DataError, match=r"results\.jsonl line 1 and .* results\.jsonl line 2.*--keep-last"):
        kept(row(), second)
    assert kept(row(), second, keep_last=True) == [second]


@pytest.mark.parametrize(
    "other",
    [
        *(
            {key: "x"}
            for key in ("model", "metric", "sampler", "split", "target", "checkpoint_sha256", "seeds")
        ),
        {"n": 3},
        {"group": "curve"},
        {"task": "glyphs@1/quick-limit-5"},
    ],
)
def test_what_measures_something_else_contradicts_nothing(other: dict[str, Any]) -> None:
    assert len(kept(row(), row(value=2.0, **{"task": "glyphs@1/quick"} | other))) == 2


@settings(deadline=None, max_examples=20)
@given(any_rows())
def test_dropping_repetitions_again_drops_nothing(rows: list[Row]) -> None:
    once = kept(*rows, *rows, keep_last=True)
    assert kept(*once) == once
    assert set(once) <= set(rows)


def test_an_unknown_metric_is_named_once_with_the_nearest_known() -> None:
    names = ("fid", "frechte_glyphs", "frechte_glyphs", "recall_glyphs", "zzz", "speedup_nfe", "paired_fid")
    assert unknown_metrics([row(metric=name) for name in (*names, "iw_term_cross_entropy/0_nats")]) == [
        "the metric 'frechte_glyphs' is unknown to this version; did you mean 'frechet_glyphs'?",
        "the metric 'zzz' is unknown to this version",
    ]

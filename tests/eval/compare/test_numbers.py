"""Numbers of two folders: paired over images where both kept them, else by intervals, judged all together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval.compare.result_rows import bound, folder, row
from numpy.typing import NDArray

from lsgm.results import Row
from lsgm.results.metrics import families
from lsgm_eval.compare.numbers import NumberLine, column_of, compare_numbers
from lsgm_eval.compare.sides import open_side

N = 200
DIMS = 784


def compared(a: Path, b: Path) -> dict[str, NumberLine]:
    models = [("lsgm", "lsgm")]
    return {line.metric: line for line in compare_numbers(open_side(a), open_side(b), models)}


@pytest.fixture
def nats() -> tuple[NDArray[Any], NDArray[Any]]:
    """Bounds of two models, the second worse by half a nat, of images that differ by a hundred times that."""
    rng = np.random.default_rng(0)
    hard = 100 + 50 * rng.normal(size=N)
    return hard + rng.normal(size=N), hard + 0.5 + rng.normal(size=N)


def ends(value: float, margin: float) -> dict[str, Any]:
    return {"value": value, "ci_low": value - margin, "ci_high": value + margin}


def test_bounds_of_the_same_images_are_paired(tmp_path: Path, nats: tuple[NDArray[Any], ...]) -> None:
    places = [folder(tmp_path / name, bound(tmp_path / name, x)) for name, x in zip("ab", nats, strict=True)]
    line = compared(*places)["nelbo_nats"]
    assert line.how == f"paired over {N} images"
    assert line.verdict == "worse"
    gap = line.difference
    assert gap is not None
    assert gap.low is not None
    assert gap.low < 0.5 < (gap.high or 0)
    for place in places:
        (place / "per-image" / "lsgm-nelbo.npz").unlink()
    alone = compared(*places)["nelbo_nats"]
    assert alone.how == "unpaired: the numbers of single images of A are gone"
    assert alone.verdict == "not told apart"
    assert alone.difference is not None
    assert alone.difference.value == pytest.approx(gap.value)


def test_pairs_are_of_the_images_that_both_scored(tmp_path: Path, nats: tuple[NDArray[Any], ...]) -> None:
    a, b = nats
    order = np.random.default_rng(1).permutation(N)[:150]
    first = folder(tmp_path / "a", bound(tmp_path / "a", a))
    second = folder(tmp_path / "b", bound(tmp_path / "b", b[order], rows=order))
    line = compared(first, second)["nelbo_nats"]
    assert line.how == "paired over 150 images"
    assert line.difference is not None
    assert line.difference.value == pytest.approx(float((b - a)[order].mean()))


@pytest.mark.parametrize(
    ("changed", "how"),
    [
        ({"value": 77.0}, "unpaired: the numbers of single images of B give another value than its row"),
        ({"task": "glyphs@1/quick-limit-9"}, "another task: glyphs@1/quick and glyphs@1/quick-limit-9"),
        ({"levels_sha256": "f" * 64}, "other bits scored: eeeeeeeeeeee and ffffffffffff"),
    ],
)
def test_numbers_that_are_not_those_behind_a_row_are_not_paired(
    tmp_path: Path, nats: tuple[NDArray[Any], ...], changed: dict[str, Any], how: str
) -> None:
    a = folder(tmp_path / "a", bound(tmp_path / "a", nats[0]))
    b = folder(tmp_path / "b", replace(bound(tmp_path / "b", nats[1]), **changed))
    line = compared(a, b)["nelbo_nats"]
    assert line.how == how
    assert (line.difference is None) == (not how.startswith("unpaired"))


def test_bits_per_dimension_are_paired_nats_and_count_once(
    tmp_path: Path, nats: tuple[NDArray[Any], ...]
) -> None:
    def in_bits(made: Row) -> Row:
        scale = 1 / (DIMS * np.log(2))
        ends = {key: made[key] * scale for key in ("value", "ci_low", "ci_high")}
        return replace(made, metric="nelbo_bpd", **ends)

    places = []
    for name, x in zip("ab", nats, strict=True):
        made = bound(tmp_path / name, x)
        places.append(folder(tmp_path / name, made, in_bits(made)))
    found = compared(*places)
    first, bits = found["nelbo_nats"], found["nelbo_bpd"]
    assert bits.how == first.how == f"paired over {N} images"
    assert first.difference is not None
    assert bits.difference is not None
    assert bits.difference.value == pytest.approx(first.difference.value / (DIMS * np.log(2)))
    # One hypothesis: Holm changes nothing.
    assert first.p_holm == bits.p_holm == pytest.approx(first.difference.p)
    assert bits.verdict == "worse"


@pytest.mark.parametrize(
    ("metric", "column"),
    [
        ("nelbo_nats", ("nelbo", "nats")),
        ("ode_nll_bpd", ("ode", "nats")),
        ("iw_term_importance_gain_nats", ("iw", "term_importance_gain")),
        ("nelbo_term_negative_entropy/0_nats", ("nelbo", "group_negative_entropy/0")),
        ("nelbo_term_cross_entropy/top_nats", ("nelbo", "group_cross_entropy/top")),
        ("nfe", None),
    ],
)
def test_a_metric_names_its_array(metric: str, column: tuple[str, str] | None) -> None:
    assert column_of(metric) == column


@pytest.mark.parametrize(
    ("metric", "b", "verdict"),
    [
        ("precision_glyphs", ends(0.9, 0.01), "better"),
        ("precision_glyphs", ends(0.7, 0.01), "worse"),
        ("frechet_glyphs", ends(0.7, 0.01), "better"),
        ("frechet_glyphs", ends(0.8, 0.01), "not told apart"),
        ("frechet_glyphs", ends(0.7, 0.01) | {"bias": -0.02}, "better"),
        ("frechet_glyphs", ends(0.7, 0.01) | {"bias": -0.09}, "may be bias"),
        ("frechet_glyphs", ends(0.7, 0.01) | {"note": "upward bias at this n about -9e-02"}, "may be bias"),
        ("frechet_glyphs", ends(0.7, 0.01) | {"bias": 0.09}, "better"),
        ("frechet_glyphs", ends(0.8, 0.01) | {"bias": 0.09}, "not told apart"),
        ("memorised_glyphs", ends(0.9, 0.01), "higher"),
        ("seconds_per_1000", ends(0.9, 0.01), "not judged"),
        ("parameters", {"value": 0.9}, "higher"),
        ("parameters", {"value": 0.8}, "same"),
        ("nfe", {"value": 0.9}, ""),
    ],
)
def test_verdicts_know_which_side_is_better(
    tmp_path: Path, metric: str, b: dict[str, Any], verdict: str
) -> None:
    first = folder(tmp_path / "a", row(metric, 0.8, bias=0.0, **ends(0.8, 0.01)))
    second = folder(tmp_path / "b", row(metric, 0.8, **{"checkpoint_sha256": "b" * 64} | b))
    (line,) = compared(first, second).values()
    assert line.verdict == verdict


def test_a_lead_that_is_clear_alone_only_leans_among_many(tmp_path: Path) -> None:
    # 2.5 standard errors apart: p = 0.012, and ten times that among ten.
    names = [f"{family}_glyphs" for family in families()][:9]
    a = [row(name, 1.0, **ends(1.0, 0.1)) for name in names]
    b = [row(name, 1.0, checkpoint_sha256="b" * 64, **ends(1.0, 0.1)) for name in names]
    margin = 0.1 * 2**0.5 * 2.5 / 1.96
    one = row("nfe", 1.0, **ends(1.0, 0.1)), row("nfe", 1.0, **ends(1.0 + margin, 0.1))
    alone = compared(folder(tmp_path / "a", one[0]), folder(tmp_path / "b", one[1]))
    many = compared(folder(tmp_path / "c", *a, one[0]), folder(tmp_path / "d", *b, one[1]))
    assert alone["nfe"].verdict == "worse"
    assert many["nfe"].verdict == "leans worse"


def test_the_same_weights_that_gave_the_same_value_leave_nothing_open(tmp_path: Path) -> None:
    made = row("recall_glyphs", 0.5, **ends(0.5, 0.1))
    (line,) = compared(folder(tmp_path / "a", made), folder(tmp_path / "b", made)).values()
    assert line.verdict == "same"
    assert line.how == "the same weights gave the same value"
    assert line.difference is not None
    assert (line.difference.low, line.difference.high) == (0.0, 0.0)

"""Ratios of costs at equal quality: what distances are too large by is no speed-up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lsgm.results import Row
from lsgm_eval.cost_curve.reach import derived_rows
from lsgm_eval.rows import Context

CONTEXTS = [Context("t@3/quick", name, "a" * 64, "d@1@b", "run") for name in ("wide", "narrow")]


def curve(context: Context, bias: float | None, factor: float = 1.0) -> list[Row]:
    """Distances 1 + 32 / NFE with an error of a hundredth, of Heun's method at five budgets."""
    rows = []
    for nfe in (4, 8, 16, 32, 64):
        value = factor * (1 + 32 / nfe)
        about = {"ci_low": value * 0.98, "ci_high": value * 1.02, "n": 100, "group": "curve", "bias": bias}
        row = context.row("frechet_glyphs", value, sampler=f"heun(steps={nfe})", **about)
        rows.append(replace(row, nfe_mean=float(nfe)))
    return rows


def speedup(*biases: float | None, factor: float = 1.0) -> Row:
    wide, narrow = curve(CONTEXTS[0], biases[0]), curve(CONTEXTS[1], biases[1], factor)
    rows = derived_rows(CONTEXTS, wide + narrow, [2.5])
    (found,) = [row for row in rows if row["metric"] == "speedup_nfe"]
    return found


@pytest.mark.parametrize("biases", [(None, None), (0.5, 0.5), (0.0, None)])
def test_equal_biases_change_nothing(biases: tuple[float | None, float | None]) -> None:
    found = speedup(*biases)
    assert found["value"] == 1
    assert found["ci_low"] > 0.9
    assert found["ci_high"] < 1.1
    assert not found["note"]


def test_a_speed_up_that_biases_may_make_is_within_its_interval() -> None:
    """Taken at equal distances the narrow model is 1.3 times cheaper; at equal quality it is not."""
    plain, less = speedup(0.2, 0.2, factor=0.8), speedup(0.7, 0.2, factor=0.8)
    assert plain["value"] == less["value"] < 0.8
    assert plain["ci_high"] < 1 < less["ci_high"]
    assert less["ci_low"] == plain["ci_low"]
    assert "biases at this n may differ by -0.62" in less["note"]


def test_what_equal_quality_does_not_reach_has_no_upper_end() -> None:
    found = speedup(2.0, 0.2)
    assert found["value"] == 1
    assert found["ci_high"] is None
    assert found["ci_low"] is not None

"""Paired differences: two models on the same images, and never on different ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lsgm_eval.likelihood.bound import paired_rows
from lsgm_eval.likelihood.scores import Scores, save_scores
from lsgm_eval.likelihood.store import scores_file
from lsgm_eval.rows import Context

TASK = "glyphs@1/quick"


def save(
    out: Path, model: str, nats: Tensor, rows: Tensor | None = None, method: str = "nelbo", **about: str
) -> Context:
    rows = torch.arange(len(nats)) if rows is None else rows
    scores = Scores({"rows": rows.numpy(), "nats": nats.double().numpy()})
    save_scores(scores_file(out, model, method), scores, **about)
    return Context(TASK, model, "abc", "glyphs@1@def", "run")


def test_what_images_have_in_common_cancels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    hard = 100 * torch.randn(500, dtype=torch.float64)
    contexts = [
        save(tmp_path, "a", hard + torch.randn(500)),
        save(tmp_path, "b", hard + 3 + torch.randn(500)),
    ]
    (row,) = paired_rows(contexts, tmp_path, "test")
    assert row["model"] == "a - b"
    assert row["metric"] == "paired_nelbo_nats"
    assert row["n"] == 500
    assert row["ci_low"] < -3 < row["ci_high"] < 0
    # The spread of the difference is sqrt(2) nats, that of either model 100.
    assert row["ci_high"] - row["ci_low"] == pytest.approx(2 * 1.96 * 2**0.5 / 500**0.5, rel=0.15)


def test_every_pair_of_three_models_is_compared(tmp_path: Path) -> None:
    contexts = [save(tmp_path, name, torch.randn(10).double()) for name in "abc"]
    assert [row["model"] for row in paired_rows(contexts, tmp_path, "test")] == ["a - b", "a - c", "b - c"]


@pytest.mark.parametrize(
    ("method", "metric"),
    [("nelbo", "paired_nelbo_nats"), ("iw", "paired_iw_nats"), ("ode", "paired_ode_nll_nats")],
)
def test_every_bound_has_its_difference(tmp_path: Path, method: str, metric: str) -> None:
    contexts = [save(tmp_path, name, torch.randn(10).double(), method=method) for name in "ab"]
    assert [row["metric"] for row in paired_rows(contexts, tmp_path, "test")] == [metric]
    others = [name for name in ("nelbo", "iw", "ode") if name != method]
    assert paired_rows(contexts, tmp_path, "test", methods=others) == []


def test_the_difference_is_over_the_images_that_both_have(tmp_path: Path) -> None:
    a, b = torch.randn(2, 10).double()
    contexts = [
        save(tmp_path, "a", a),
        save(tmp_path, "b", b[:6], torch.tensor([9, 8, 12, 2, 1, 0])),
        save(tmp_path, "c", b, torch.arange(10) + 9),
        Context(TASK, "absent", "abc", "glyphs@1@def", "run"),
    ]
    (row, *rest) = paired_rows(contexts, tmp_path, "test")
    assert row["n"] == 5
    assert row["value"] == pytest.approx(float((a[[9, 8, 2, 1, 0]] - b[[0, 1, 3, 4, 5]]).mean()))
    assert row["note"] == "over the 5 images that both have"
    # a and c share image 9 alone, b and c two.
    assert [(other["model"], other["n"]) for other in rest] == [("b - c", 2)]


@pytest.mark.parametrize(
    ("left_over", "paired"),
    [
        ({"task": TASK, "levels_sha256": "e"}, True),
        ({"task": "glyphs@1/full", "levels_sha256": "e"}, False),
        ({"task": TASK, "levels_sha256": "f"}, False),
    ],
)
def test_scores_of_another_task_or_of_other_bits_are_not_compared(
    tmp_path: Path, left_over: dict[str, str], paired: bool
) -> None:
    contexts = [
        save(tmp_path, "a", torch.randn(10).double(), task=TASK, levels_sha256="e"),
        save(tmp_path, "b", torch.randn(10).double(), **left_over),
    ]
    assert bool(paired_rows(contexts, tmp_path, "test")) == paired


def test_a_difference_between_two_estimators_says_so(tmp_path: Path) -> None:
    contexts = [
        save(tmp_path, name, torch.randn(10).double(), estimator=f"iw(samples={count})")
        for name, count in {"a": 50, "b": 5}.items()
    ]
    (row,) = paired_rows(contexts, tmp_path, "test")
    assert row["note"] == "by iw(samples=50) and iw(samples=5)"

"""Schedules are closed forms of progress; optimisers are the textbook's; clipping returns the norm before."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lsgm.config import OptimConfig
from lsgm.train.optim import ParamGroup, build_optimizer, clip_gradients, freeze_all_but, learning_rate

shares = st.floats(0.0, 1.0)
warmups = st.floats(0.0, 0.9)


@settings(deadline=None)
@given(shares, shares, warmups)
def test_the_rate_rises_then_falls_between_its_bounds(p: float, q: float, warmup: float) -> None:
    config = OptimConfig(lr=1e-2, lr_min=1e-4)
    early, late = sorted((p, q))
    a, b = learning_rate(config, warmup, early), learning_rate(config, warmup, late)
    slack = 1e-12  # a few float64 roundings of numbers of 1e-2
    if late < warmup:
        assert 0 <= a <= b + slack
    elif early >= warmup:
        assert config.lr_min - slack <= b <= a + slack <= config.lr + 2 * slack


@settings(deadline=None)
@given(warmups)
def test_the_rate_at_the_landmarks(warmup: float) -> None:
    config = OptimConfig(lr=1e-2, lr_min=1e-4)
    assert learning_rate(config, warmup, warmup) == pytest.approx(1e-2)
    assert learning_rate(config, warmup, 1.0) == pytest.approx(1e-4)
    assert learning_rate(config, warmup, (1 + warmup) / 2) == pytest.approx((1e-2 + 1e-4) / 2)
    if warmup > 1e-9:
        assert learning_rate(config, warmup, warmup / 2) == pytest.approx(5e-3)
    assert learning_rate(config, warmup, 7.0) == learning_rate(config, warmup, 1.0)


def one_step(config: OptimConfig, weight: float, gradient: float) -> float:
    parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    optimizer = build_optimizer(ParamGroup("g", [parameter], config))
    parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    optimizer.step()
    return float(parameter.item())


def test_first_steps_are_the_textbooks() -> None:
    # In the first step the bias-corrected moments are g and g^2.
    lr, eps, decay, w, g = 0.1, 0.5, 0.2, 2.0, 3.0
    coupled = g + decay * w
    settings_ = {"lr": lr, "eps": eps, "weight_decay": decay}
    assert one_step(OptimConfig(name="adam", **settings_), w, g) == pytest.approx(
        w - lr * coupled / (coupled + eps)
    )
    assert one_step(OptimConfig(name="adamw", **settings_), w, g) == pytest.approx(
        w * (1 - lr * decay) - lr * g / (g + eps)
    )
    # Adamax divides by max(beta2 * 0, |g| + eps): eps inside the maximum.
    assert one_step(OptimConfig(name="adamax", **settings_), w, g) == pytest.approx(
        w - lr * coupled / (coupled + eps)
    )


@pytest.mark.parametrize("largest", [0.0, 1.0, 100.0])
def test_clipping_bounds_the_joint_norm_and_returns_it_as_it_was(largest: float) -> None:
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    params[0].grad, params[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    assert float(clip_gradients(params, largest)) == pytest.approx(5.0)
    after = math.hypot(*params[0].grad.tolist(), *params[1].grad.tolist())
    # clip_grad_norm_ divides by norm + 1e-6.
    assert after == pytest.approx(1.0 if largest == 1.0 else 5.0, rel=1e-6)


def test_what_is_in_no_group_is_frozen() -> None:
    module = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    freeze_all_but(module, [ParamGroup("a", list(module["a"].parameters()), OptimConfig())])
    assert [p.requires_grad for p in module.parameters()] == [True, True, False, False]


def test_wrong_groups_are_the_authors_error() -> None:
    module = nn.Linear(2, 2)
    group = ParamGroup("a", list(module.parameters()), OptimConfig())
    with pytest.raises(ValueError, match="in two groups"):
        freeze_all_but(module, [group, group])
    with pytest.raises(ValueError, match="not the stage's module's"):
        freeze_all_but(nn.Linear(2, 2), [group])
    with pytest.raises(ValueError, match="'empty' is empty"):
        build_optimizer(ParamGroup("empty", [], OptimConfig()))

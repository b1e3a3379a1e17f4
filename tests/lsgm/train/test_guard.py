"""NaN and infinity stop training with the step and the cause named; what was good stays."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from train_toy import CONFIG, Toy, run_toy, two_stages, weights

from lsgm.config import StageConfig
from lsgm.rng import StepNoise
from lsgm.train.optim import ParamGroup
from lsgm.train.signals import FiniteGuard, TrainingError
from lsgm.train.stage import Losses, StageSpec


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_step_and_the_term_are_named_and_the_checkpoint_before_is_kept(
    tmp_path: Path, bad: float
) -> None:
    run_toy(tmp_path, max_steps=4)
    before = weights(tmp_path)
    stages = two_stages(hook=lambda call: bad if call == 7 else 1.0)
    with pytest.raises(TrainingError, match=r"at step 7 the term 'error' became (nan|inf)") as caught:
        run_toy(tmp_path, stages)
    assert "step-0000004 is untouched" in str(caught.value)
    assert weights(tmp_path) == before
    assert run_toy(tmp_path).finished


def test_no_weight_moves_in_the_bad_step(tmp_path: Path) -> None:
    good, spoiled = two_stages()[0], two_stages(hook=lambda call: math.nan if call == 7 else 1.0)[0]
    stage = spoiled.build()
    with pytest.raises(TrainingError, match="no checkpoint had been written"):
        run_toy(tmp_path / "bad", [replace(spoiled, build=lambda: stage)])
    reference = good.build()
    run_toy(tmp_path / "good", [replace(good, build=lambda: reference)], max_steps=6)
    for key, value in reference.module.parts.state_dict().items():
        assert torch.equal(value, stage.module.parts.state_dict()[key])


class Root(nn.Module):
    """A finite loss with an infinite gradient: the square root at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.root = nn.Parameter(torch.ones(2)), nn.Parameter(torch.zeros(2))

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        return Losses(self.fine.sum() + self.root.sqrt().sum(), {})


class RootStage(Toy):
    def groups(self) -> list[ParamGroup]:
        return [ParamGroup(name, [getattr(self.module, name)], self.optim) for name in ("fine", "root")]


def test_a_gradient_that_is_not_finite_names_its_group(tmp_path: Path) -> None:
    spec = StageSpec("root", CONFIG, lambda: RootStage("root", CONFIG, Root(), ("",)))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match=r"at step 1 the gradient norm of 'root' became (nan|inf)"):
        run_toy(tmp_path, [spec])


class Arrived:
    """Stands in for the event after which a GPU's numbers are on the host."""

    def synchronize(self) -> None:
        pass


def test_on_a_gpu_the_verdict_is_on_the_step_before_unless_it_is_waited_for() -> None:
    guard = FiniteGuard(["g"])
    losses = Losses(torch.tensor(1.0), {"error": torch.tensor(1.0)})
    for step, error in ((1, 1.0), (2, math.nan), (3, math.nan)):
        guard.watch(step, losses._replace(terms={"error": torch.tensor(error)}), [torch.tensor(0.0)])
        number, values, _ = guard._pending.pop()
        guard._pending.append((number, values, Arrived()))  # type: ignore[arg-type]
        assert guard.bad() == (step == 3)
        if step == 2:
            assert len(guard._pending) == 1
    assert guard.bad(wait=True)
    assert guard.verdict == (2, 0, "at step 2 the term 'error' became nan")


class Overflow(Root):
    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        return Losses(self.fine.sum() * math.inf, {"fine": self.fine.sum()})


def test_a_total_that_is_not_finite_over_finite_terms_is_called_total(tmp_path: Path) -> None:
    config = StageConfig(steps=3, batch_size=8)
    spec = StageSpec("root", config, lambda: RootStage("root", config, Overflow(), ("",)))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="at step 1 the loss 'total' became inf"):
        run_toy(tmp_path, [spec])

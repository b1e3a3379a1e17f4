"""How steps are computed changes no result: in parts, in float16, compiled, in another order of memory."""

from __future__ import annotations

import json
import math
import traceback
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from modes import RISING, recipe
from test_guard import Root, RootStage
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from train_toy import CONFIG, run_toy, timeless, two_stages, weights

from lsgm.config import StageConfig
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.lsgm import LSGM, build_lsgm
from lsgm.nets import compiled
from lsgm.nets.compiled import compile_blocks
from lsgm.nets.layers import BatchNorm, in_micro_batches
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import find_checkpoint, read_state
from lsgm.train import computing
from lsgm.train.computing import lay_out, low_precision
from lsgm.train.engine import StageRunner
from lsgm.train.loop import train_recipe
from lsgm.train.losses import JointLoss
from lsgm.train.signals import TrainingError
from lsgm.train.stage import StageSpec
from lsgm.train.stages import second_step

PIXELS = Pixels(1, 8, 8, "binary", 1)
LEVELS = (torch.arange(8 * 64) * 37 % 5 < 2).to(torch.uint8).reshape(8, 1, 8, 8)


def joint(changes: dict[str, Any]) -> JointLoss:
    """Return a joint loss in training, every parameter away from where a mistake would not show."""
    asked = tiny.recipe(changes)
    torch.manual_seed(2)
    networks = build_lsgm(asked, PIXELS)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    step = second_step(networks.vae, networks.prior, asked.prior.objective, asked.stage2)
    return step.module.double().train()


def gradients(loss: JointLoss, parts: int) -> dict[str, Tensor]:
    in_micro_batches(loss, parts)
    for part in range(parts):
        rows = slice(part * 8 // parts, (part + 1) * 8 // parts)
        noise = StepNoise(1, 0, global_batch=8, rows=rows)
        (loss(LEVELS[rows], noise, 0.5).total / parts).backward()
    found = {name: p.grad.clone() for name, p in loss.named_parameters() if p.grad is not None}
    loss.zero_grad()
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"prior": {"objective": {"weighting": "re"}}, "stage2": {"prior_penalty": {"spectral": 1e-2}}},
        {"stage2": {"vae_times": "disjoint", "vae_penalty": {"spectral": 1e-2, "gain": 1e-2}}},
    ],
    ids=["shared", "disjoint"],
)
def test_the_gradient_in_parts_is_that_of_the_batch_over_steps(changes: dict[str, Any]) -> None:
    """Two steps, so that what the first leaves behind (moments, power iterations) is compared too."""
    whole, cut = joint(changes), joint(changes)
    for _ in range(2):
        one, four = gradients(whole, 1), gradients(cut, 4)
        assert one.keys() == four.keys()
        for name, gradient in one.items():
            torch.testing.assert_close(four[name], gradient, rtol=1e-9, atol=1e-11)  # sums in another order
    for (name, one_b), four_b in zip(whole.named_buffers(), cut.buffers(), strict=True):
        # Moments are kept in float32, rounded once a step.
        torch.testing.assert_close(four_b, one_b, rtol=1e-6, atol=1e-7, msg=name)


def test_running_statistics_move_by_the_momentum_whatever_the_number_of_parts() -> None:
    norm, x = BatchNorm(3, momentum=0.2), torch.full((4, 3, 2, 2), 5.0)
    in_micro_batches(nn.Sequential(norm), 4)
    for _ in range(4):
        norm(x)
    assert norm.running_mean.tolist() == pytest.approx([0.2 * 5.0] * 3, rel=1e-5)


def test_a_batch_that_parts_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"accumulate is 3, and a batch of 8 .* divisor"):
        StageConfig(batch_size=8, accumulate=3)
    with pytest.raises(ConfigError, match="a process's share of 4 images"):
        computing.parts_of(slice(4, 8), 8)


# float16 with a scaled loss


HALF = replace(CONFIG, precision="float16")


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "computes_float16", lambda _: True)


@pytest.mark.usefixtures("half")
def test_a_run_in_float16_in_pieces_is_the_whole_run(tmp_path: Path) -> None:
    def hook(call: int) -> float:
        return 1e35 if call == 3 else 1.0

    for name, piece in (("whole", None), ("cut", 4)):
        while not run_toy(tmp_path / name, two_stages(HALF, hook=hook), max_steps=piece).finished:
            pass
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    assert {row.get("loss_scale", 2.0**15) for row in timeless(tmp_path / "cut")} == {2.0**15}
    for name in ("whole", "cut"):
        assert read_state(find_checkpoint(tmp_path / name))["scaler"] == {"scale": 2.0**15, "steps": 9}


@pytest.mark.usefixtures("half")
def test_a_step_whose_scaled_gradient_overflows_moves_nothing_and_ends_nothing(tmp_path: Path) -> None:
    spec = two_stages(HALF, dropout=0.0, hook=lambda call: 1e35 if call == 5 else 1.0)[0]
    stage = spec.build()
    run_toy(tmp_path, [replace(spec, build=lambda: stage)], max_steps=4)
    before = deepcopy(stage.module.state_dict())
    assert not run_toy(tmp_path, [replace(spec, build=lambda: stage)], max_steps=1).finished
    assert read_state(find_checkpoint(tmp_path))["scaler"] == {"scale": 2.0**15, "steps": 0}
    for key, value in stage.module.state_dict().items():
        assert key == "calls" or torch.equal(value, before[key])


@pytest.mark.usefixtures("half")
def test_gradients_that_overflow_at_every_scale_end_the_run(tmp_path: Path) -> None:
    config = replace(HALF, steps=40)
    spec = StageSpec("root", config, lambda: RootStage("root", config, Root(), ("",)))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="overflow float16"):
        run_toy(tmp_path, [spec])


def test_a_device_without_arithmetic_for_float16_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(computing, "computes_float16", lambda _: False)
    assert low_precision("float16", torch.device("cpu")) is None
    assert low_precision("float32", torch.device("cpu")) is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_latents_densities_and_losses_are_float32_under_autocast(dtype: torch.dtype) -> None:
    loss = joint({}).float()
    seen: dict[str, torch.dtype] = {}
    network = loss.prior.network
    network.register_forward_pre_hook(lambda _, inputs: seen.update(z_t=inputs[0].dtype, t=inputs[1].dtype))
    with torch.autocast("cpu", dtype=dtype):
        draws = loss.vae.encode(LEVELS, StepNoise(1, 0, global_batch=8).normal)
        log_p = loss.vae.likelihood((draws[0].z,)).log_prob(LEVELS)
        losses = loss(LEVELS, StepNoise(1, 0, global_batch=8), 0.5)
    assert seen == {"z_t": torch.float32, "t": torch.float64}
    assert {draws[0].z.dtype, draws[0].log_q.dtype, log_p.dtype} == {torch.float32}
    terms = [losses.total, *(term for name, term in losses.terms.items() if name != "active_channels")]
    assert {term.dtype for term in terms} <= {torch.float32, torch.float64}


# The order of memory


def test_kernels_stand_as_asked_and_what_a_run_computes_is_the_same(tmp_path: Path) -> None:
    last = tiny.recipe({name: {"memory_format": "channels_last"} for name in ("stage1", "stage2")})
    train_recipe(tiny.recipe(), tmp_path / "first", images=tiny.bars())
    train_recipe(last, tmp_path / "last", images=tiny.bars(), max_steps=8)
    # A run goes on in the other order, and its optimisers' moments with it.
    train_recipe(last, tmp_path / "last", images=tiny.bars(), max_steps=2)
    train_recipe(tiny.recipe(), tmp_path / "last", images=tiny.bars())
    for a, b in zip(timeless(tmp_path / "first"), timeless(tmp_path / "last"), strict=True):
        for key in a.keys() - {"stage"}:
            assert b[key] == pytest.approx(a[key], rel=2e-4, abs=1e-5), key


def test_moments_are_loaded_in_the_order_of_their_parameters(tmp_path: Path) -> None:
    seen: list[tuple[bool, bool]] = []

    def restore(self: StageRunner, *arguments: Any) -> None:
        original(self, *arguments)
        for optimizer in self.optimizers.values():
            for parameter, state in optimizer.state.items():
                seen.append((parameter.stride() == state["exp_avg"].stride(), parameter.dim() == 4))

    original = StageRunner.restore
    with pytest.MonkeyPatch.context() as patch:
        train_recipe(tiny.recipe(), tmp_path, images=tiny.bars(), max_steps=8)
        patch.setattr(StageRunner, "restore", restore)
        last = tiny.recipe({"stage2": {"memory_format": "channels_last"}})
        train_recipe(last, tmp_path, images=tiny.bars(), max_steps=1)
    assert (True, True) in seen
    assert all(same for same, _ in seen)


def test_auto_is_for_the_device() -> None:
    network = nn.Conv2d(4, 4, 3)
    lay_out(network, "auto", torch.device("cuda"))
    assert network.weight.is_contiguous(memory_format=torch.channels_last)
    lay_out(network, "auto", torch.device("cpu"))
    assert network.weight.is_contiguous()


# Compilation


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Trace, and compute what was traced as it is: a C++ compiler would take minutes."""
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def graphs() -> int:
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@pytest.mark.usefixtures("traced")
def test_a_compiled_run_is_the_run_and_compiles_nothing_after_its_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over times, annealing, rates, dropout, validations by averaged weights with a short last batch."""
    small = {
        "kind": "nvae",
        "width": 4,
        "multipliers": [1, 1],
        "groups": 1,
        "latents": 2,
        "cells": "res_bnswish",
    }
    single = {"pre_cells": 1, "post_cells": 1, "encoder_cells": 1, "decoder_cells": 1}
    changes = {"vae_times": "own", "kl": RISING, "val_every": 2, "steps": 4, "batch_size": 4}
    tables = tiny.merged({**tiny.TABLES, "vae": small | single}, {"stage1": {"steps": 0}, "stage2": changes})
    tables = tiny.merged(tables, {"prior": {"network": {"dropout": 0.1}}})
    asked = recipe_from(tables, "the small hierarchical recipe")
    counts: list[int] = []
    step = StageRunner.step

    def counted(self: StageRunner) -> Any:
        verdict = step(self)
        counts.append(graphs())
        return verdict

    monkeypatch.setattr(StageRunner, "step", counted)
    monkeypatch.setattr("lsgm.train.stage.VALIDATION_BATCH", 5)
    train_recipe(asked, tmp_path / "eager", images=tiny.bars())
    eager = graphs()
    counts.clear()
    fast = replace(asked, stage2=replace(asked.stage2, compile=True))
    train_recipe(fast, tmp_path / "compiled", images=tiny.bars())
    assert counts[0] > eager
    assert counts == [counts[0]] * 4
    for a, b in zip(timeless(tmp_path / "eager"), timeless(tmp_path / "compiled"), strict=True):
        for key in a.keys() - {"stage"}:
            assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-5), key


@pytest.mark.usefixtures("traced")
def test_blocks_of_one_structure_share_a_graph_and_gradients_are_the_same() -> None:
    asked = tiny.recipe({"vae": {"blocks": 3}, "prior": {"network": {"blocks": 3}}})
    networks = build_lsgm(asked, PIXELS)
    assert isinstance(networks, LSGM)
    with torch.no_grad():
        for parameter in networks.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    networks.double()
    copy = deepcopy(networks)
    blocks = sum(getattr(type(module), "is_block", False) for module in networks.prior.network.children())
    assert compile_blocks(copy.prior.network) < 3 + 4 + 2
    assert blocks == 0
    z, t = torch.randn(4, 2, 4, 4, dtype=torch.float64), torch.rand(4, dtype=torch.float64)
    before = graphs()
    for network in (networks, copy):
        network.prior.network(z, t).square().sum().backward()
    assert graphs() - before <= 5
    for one, two in zip(networks.prior.parameters(), copy.prior.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(two.grad, one.grad, rtol=1e-10, atol=1e-12)


def test_graphs_on_a_cpu_and_graphs_of_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set compile as well"):
        StageConfig(cuda_graphs=True)
    graphed = tiny.recipe({"stage1": {"compile": True, "cuda_graphs": True}})
    with pytest.raises(ConfigError, match="the device is cpu"):
        train_recipe(graphed, tmp_path / "run", images=tiny.bars())


# The host waits for nothing


READS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "item")


class Reads(TorchDispatchMode):
    """Counts the places where a number of a tensor is wanted, which on a GPU is waited for."""

    def __init__(self, found: Counter[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func._schema.name.partition("::")[2] in READS:
            frames = [Path(frame.filename) for frame in traceback.extract_stack()]
            ours = [path.name for path in frames if "lsgm" in path.parts and "tests" not in path.parts]
            self.found[ours[-1]] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_reads_no_number_but_the_guards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Counter[str] = Counter()
    steps = 0
    original = StageRunner.step

    def step(self: StageRunner) -> Any:
        nonlocal steps
        if self.position.stage_step == 0:  # constants are worked out in the first step
            return original(self)
        steps += 1
        with Reads(found):
            return original(self)

    monkeypatch.setattr(StageRunner, "step", step)
    train_recipe(recipe("prior first, velocity"), tmp_path / "run", images=tiny.bars())
    assert found == {"signals.py": steps}
    assert math.isfinite(
        json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["total"]
    )

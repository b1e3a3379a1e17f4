"""What the engine does with a stage's options: precision, compilation, frozen parts, validation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from train_toy import CONFIG, IMAGES, Images, Toy, run_toy, two_stages

from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import find_checkpoint, read_weights
from lsgm.runs.directory import read_metrics
from lsgm.train import computing, engine
from lsgm.train.optim import ParamGroup
from lsgm.train.stage import Losses, StageSpec


class Spy(nn.Module):
    """Notes what its parts see."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.frozen = nn.Linear(4, 4), nn.Linear(4, 4)
        self.seen: list[tuple[torch.dtype, float, tuple[int, ...]]] = []

    def forward(self, levels: Tensor, noise: StepNoise, progress: float) -> Losses:
        hidden = self.net(levels.flatten(1).float())
        self.seen.append((hidden.dtype, progress, tuple(levels.shape)))
        total = self.frozen(hidden).float().square().mean()
        return Losses(total, {"square": total})


@dataclass(frozen=True)
class SpyStage(Toy):
    ema_of: tuple[str, ...] = ("net",)
    compile_of: tuple[str, ...] = ("net",)

    def groups(self) -> list[ParamGroup]:
        return [ParamGroup("net", list(self.module.net.parameters()), self.optim)]  # type: ignore[arg-type]


def spied(tmp_path: Path, **changes: object) -> Spy:
    spy, config = Spy(), replace(CONFIG, **changes)  # type: ignore[arg-type]
    stage = SpyStage("spy", config, spy)  # type: ignore[arg-type]
    assert run_toy(tmp_path, [StageSpec("spy", config, lambda: stage)]).finished
    return spy


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_networks_compute_in_the_precision_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(computing, "computes_bfloat16", lambda _: True)
    assert {seen[0] for seen in spied(tmp_path, precision=precision).seen} == {dtype}
    stored = read_weights(find_checkpoint(tmp_path), "raw")
    assert {value.dtype for value in stored.values()} == {torch.float32}


def test_a_device_without_arithmetic_for_bfloat16_computes_in_float32(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(computing, "computes_bfloat16", lambda _: False)
    assert {seen[0] for seen in spied(tmp_path, precision="bfloat16").seen} == {torch.float32}


def test_progress_is_the_share_of_steps_done(tmp_path: Path) -> None:
    seen = spied(tmp_path, steps=8).seen
    assert [progress for _, progress, _ in seen] == [k / 8 for k in range(8)]
    assert {shape for *_, shape in seen} == {(8, 1, 2, 2)}


def test_only_the_named_networks_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(engine, "compile_blocks", lambda network, **_: compiled.append(network))
    spy = spied(tmp_path / "yes", compile=True)
    assert compiled == [spy.net]
    spied(tmp_path / "no")
    assert len(compiled) == 1


def test_what_is_in_no_group_does_not_move_and_is_saved(tmp_path: Path) -> None:
    torch.manual_seed(5)
    spy = Spy()
    before = spy.frozen.weight.detach().clone()
    run_toy(tmp_path, [StageSpec("spy", CONFIG, lambda: SpyStage("spy", CONFIG, spy))])  # type: ignore[arg-type]
    for kind in ("raw", "ema"):
        stored = read_weights(find_checkpoint(tmp_path), kind)  # type: ignore[arg-type]
        assert torch.equal(stored["frozen.weight"], before)
    assert not torch.equal(
        read_weights(find_checkpoint(tmp_path), "raw")["net.weight"],
        read_weights(find_checkpoint(tmp_path), "ema")["net.weight"],
    )


def test_the_next_batch_is_announced(tmp_path: Path) -> None:
    source = Images()
    run_toy(tmp_path, two_stages()[:1], source=source)
    assert source.served[1:] == source.announced[:-1]
    assert sorted(i for batch in source.served[:3] for i in batch) == list(range(IMAGES))


def test_validation_sees_the_averaged_weights_in_eval_mode(tmp_path: Path) -> None:
    seen: list[Tensor] = []

    @dataclass(frozen=True)
    class Looking(Toy):
        def validate(self, levels: Tensor, seed: int) -> dict[str, float]:
            assert not self.module.training
            seen.append(self.module.parts["vae"].weight.detach().clone())  # type: ignore[arg-type]
            return {}

    built = two_stages()[0].build()
    stage = Looking("vae", CONFIG, built.module)  # type: ignore[arg-type]
    levels = torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    run_toy(tmp_path, [StageSpec("vae", CONFIG, lambda: stage)], val_levels=levels)
    assert len(seen) == 3
    kept = read_weights(find_checkpoint(tmp_path), "ema")
    assert torch.equal(seen[-1], kept["parts.vae.weight"])


def test_validation_changes_nothing_in_training(tmp_path: Path) -> None:
    levels = torch.ones(5, 1, 2, 2, dtype=torch.uint8)
    run_toy(tmp_path / "with", two_stages(), val_levels=levels)
    run_toy(tmp_path / "without", two_stages())
    a, b = (read_weights(find_checkpoint(tmp_path / name), "raw") for name in ("with", "without"))
    assert all(torch.equal(a[key], b[key]) for key in b)
    rows = read_metrics(tmp_path / "with" / "metrics.jsonl")
    assert [row["step"] for row in rows if "val_error" in row] == [4, 8, 12, 16, 20, 24]


def test_the_learning_rate_logged_is_the_schedules(tmp_path: Path) -> None:
    from lsgm.train.optim import learning_rate

    run_toy(tmp_path, two_stages(replace(CONFIG, log_every=1)))
    rows = read_metrics(tmp_path / "metrics.jsonl")[:12]
    optim = two_stages()[0].build().groups()[0].config
    assert [row["lr/vae"] for row in rows] == [learning_rate(optim, CONFIG.warmup, k / 12) for k in range(12)]

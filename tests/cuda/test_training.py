"""The engine on a device: every way of computing has the curve of the plain one, and no step waits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import bars, recipe

from lsgm.runs.directory import read_metrics
from lsgm.train.engine import StageRunner
from lsgm.train.loop import train_recipe

STEPS = 4
PLAIN: dict[str, Any] = {"steps": STEPS, "memory_format": "contiguous"}
WAYS: dict[str, tuple[dict[str, Any], float]] = {
    # float32 sums in another order, grown over steps of Adam.
    "parts": ({"accumulate": 4}, 2e-4),
    "channels_last": ({"memory_format": "channels_last"}, 2e-4),
    "compiled": ({"compile": True}, 2e-4),
    "graphs": ({"compile": True, "cuda_graphs": True}, 2e-4),
    # 8 and 11 bits of the products, of which a loss of some tens of nats keeps two and three digits.
    "bfloat16": ({"precision": "bfloat16"}, 3e-2),
    "float16": ({"precision": "float16"}, 1e-2),
    "float16, compiled": ({"precision": "float16", "compile": True}, 1e-2),
}
ON_GPU = ("compiled", "graphs", "float16, compiled")
"""Compiled: a minute of a CPU."""


def curve(folder: Path, device: torch.device, changes: dict[str, Any]) -> list[float]:
    """Return the totals of the steps of a run, cut in two, whose second piece is resumed."""
    stage = PLAIN | changes
    asked = recipe({"stage1": stage, "stage2": stage})
    train_recipe(asked, folder, device=device, images=bars(), max_steps=STEPS + 2)
    assert train_recipe(asked, folder, device=device, images=bars()).finished
    return [row["total"] for row in read_metrics(folder / "metrics.jsonl") if "total" in row]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Callable[[torch.device], list[float]]:
    """Return the curve of a device, trained once."""
    known: dict[str, list[float]] = {}

    def train(device: torch.device) -> list[float]:
        if device.type not in known:
            known[device.type] = curve(tmp_path_factory.mktemp(device.type) / "run", device, {})
        return known[device.type]

    return train


@pytest.mark.parametrize("way", WAYS)
def test_a_run_has_the_curve_of_the_plain_one(
    device: torch.device, plain: Callable[[torch.device], list[float]], tmp_path: Path, way: str
) -> None:
    changes, tolerance = WAYS[way]
    if device.type == "cpu" and way in ON_GPU:
        pytest.skip("compiling takes a CPU a minute; `pytest -m cuda` on a machine with a GPU")
    found = curve(tmp_path / "run", device, changes)
    assert len(found) == 2 * STEPS
    assert found == pytest.approx(plain(device), rel=tolerance)


@pytest.mark.cuda
@pytest.mark.parametrize("way", ["plain", "parts", "bfloat16", "float16", "graphs"])
def test_the_engines_step_waits_for_nothing(
    gpu: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """From the third step of a stage on: libraries, constants and graphs have come into being."""
    original = StageRunner.step

    def step(self: StageRunner) -> Any:
        if self.position.stage_step < 2:
            return original(self)
        torch.cuda.set_sync_debug_mode("error")
        try:
            return original(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(StageRunner, "step", step)
    stage = {"steps": STEPS} | (WAYS[way][0] if way in WAYS else {})
    asked = recipe({"stage1": stage, "stage2": stage})
    assert train_recipe(asked, tmp_path / "run", device=gpu, images=bars()).finished

"""Sample k is the same picture from one process and from two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from beside import two
from tiny import bars, recipe
from worker import SAMPLER, SEEDS, sample_a_share

from lsgm.runs.load import load_model
from lsgm.train.loop import train_recipe


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_gloo_processes_draw_the_images_of_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_recipe(recipe(), run, images=bars())
    two(sample_a_share, run, tmp_path, folder=tmp_path)
    together = torch.load(tmp_path / "images.pt", weights_only=True)
    assert torch.equal(together, load_model(run).sample(SEEDS, SAMPLER).images)

"""Sample k is the same picture from one process and from two."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from beside import two
from tiny import bars, recipe
from worker import SAMPLER, SEEDS, sample_a_share

from lsgm.distributed import meet
from lsgm.runs.load import load_model
from lsgm.train.loop import train_recipe


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_gloo_processes_draw_the_images_of_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_recipe(recipe(), run, images=bars())
    two(sample_a_share, run, tmp_path, folder=tmp_path)
    together = torch.load(tmp_path / "images.pt", weights_only=True)
    assert torch.equal(together, load_model(run).sample(SEEDS, SAMPLER).images)


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_processes_that_are_started_again_meet_one_another_and_none_of_before() -> None:
    """The store of torchrun keeps what those wrote that have died, some of them in the middle of meeting."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, timeout=timedelta(seconds=60))
    names = []
    for _ in range(3):
        for dead in (1, 2):
            store.set(f"lsgm/3/hello/{dead}", "gone")
        with ThreadPoolExecutor(3) as pool:
            # Each its own connection, as processes have; in one order and in the other.
            links = [dist.TCPStore("127.0.0.1", store.port, timeout=timedelta(seconds=60)) for _ in range(3)]
            order = (0, 1, 2) if len(names) % 2 else (2, 1, 0)
            met = [pool.submit(meet, links[rank], rank, 3) for rank in order]
            (name,) = {each.result() for each in met}
        names.append(name)
    assert len(set(names)) == 3

"""Resident or streaming, a batch is the rows asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from lsgm.data import Resident, Streaming, batch_indices, make_source
from lsgm.devices import free_bytes

IMAGES = torch.randint(0, 256, (100, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_both_sources_serve_the_rows_asked_for_in_their_order() -> None:
    for source in (Resident(IMAGES), Streaming(IMAGES)):
        assert len(source) == 100
        for step in range(20):
            rows = batch_indices(100, 32, 0, step)
            assert torch.equal(source.batch(rows), IMAGES[rows])


def test_prefetching_changes_nothing_even_when_another_batch_is_then_asked_for() -> None:
    source = Streaming(IMAGES)
    rows = [batch_indices(100, 8, 0, step) for step in range(10)]
    for step in range(9):
        assert torch.equal(source.batch(rows[step]), IMAGES[rows[step]])
        source.prefetch(rows[step + 1])
    source.prefetch(rows[0])
    assert torch.equal(source.batch(rows[5]), IMAGES[rows[5]])
    assert torch.equal(source.batch(rows[6]), IMAGES[rows[6]])


def test_an_announced_batch_is_read_in_the_background_and_once() -> None:
    class Counting(Streaming):
        reads = 0

        def _read(self, indices: torch.Tensor) -> torch.Tensor:
            self.reads += 1
            return super()._read(indices)

    source = Counting(IMAGES)
    rows = torch.tensor([5, 3, 3])
    source.prefetch(rows)
    assert torch.equal(source.batch(rows), IMAGES[rows])
    assert source.reads == 1


def test_images_stay_resident_where_they_fit_the_budget_and_stream_where_not() -> None:
    size = IMAGES.numel()
    assert isinstance(make_source(IMAGES, budget=size), Resident)
    assert isinstance(make_source(IMAGES, budget=size - 1), Streaming)
    assert isinstance(make_source(IMAGES), Resident)
    assert free_bytes() > 0


def test_a_memory_map_streams(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", IMAGES.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="c"))
    rows = torch.tensor([99, 0, 42])
    assert torch.equal(Streaming(mapped).batch(rows), IMAGES[rows])

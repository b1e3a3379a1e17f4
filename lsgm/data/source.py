"""How training gets its images: which make up step k, and from where they come.

The first is a pure function of (seed, k), so that resuming needs no state.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Generator, Tensor

from lsgm.devices import free_bytes
from lsgm.rng import derive_seed


@lru_cache(maxsize=4)
def epoch_order(n: int, seed: int | str, epoch: int) -> Tensor:
    """Return the order, int64 ``[n]``, in which an epoch visits n images. Cached: do not write to it."""
    return torch.randperm(n, generator=Generator().manual_seed(derive_seed("epoch", seed, epoch)))


def batch_indices(n: int, global_batch: int, seed: int | str, step: int) -> Tensor:
    """Return the rows, int64 ``[global_batch]``, of training step ``step`` (from 0) over all processes.

    Steps walk through an endless sequence of reshuffled epochs: a batch may span two of them, every image is
    seen exactly once per epoch, and none is dropped.
    """
    position, end = step * global_batch, (step + 1) * global_batch
    parts: list[Tensor] = []
    while position < end:
        epoch, offset = divmod(position, n)
        take = min(n - offset, end - position)
        parts.append(epoch_order(n, seed, epoch)[offset : offset + take])
        position += take
    return torch.cat(parts)


def carve_validation(n: int) -> tuple[Tensor, Tensor]:
    """Return (train, val) rows, ascending, of n training images: 5 %, at most 5,000, go to validation.

    The choice is a fixed pseudo-random permutation of n alone (the order of n raw Philox words), the same for
    every seed and every run, so that no model is ever selected on another one's training images.
    """
    count = min(5000, n // 20)
    order = np.argsort(np.random.Philox(key=derive_seed("validation", n)).random_raw(n), kind="stable")
    val, train = np.sort(order[:count]), np.sort(order[count:])
    return torch.from_numpy(train), torch.from_numpy(val)


# How training images are held: one tensor on the device where they fit, else streamed from a memory map

SHARE = 0.25
"""Share of the memory now free that resident images may take: the rest is for networks and activations."""


class ImageSource(Protocol):
    """Training images, served by row."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def batch(self, indices: Tensor) -> Tensor:
        """Return rows, int64 ``[B]`` on the CPU, as uint8 ``[B, C, H, W]`` on the training device."""
        ...

    def prefetch(self, indices: Tensor) -> None:
        """Announce the next call of `batch`, so that it may be prepared meanwhile. Never needed."""
        ...


def on_device(indices: Tensor, device: torch.device) -> Tensor:
    """Return indices on a device, without the host's waiting for what it has been given to do before."""
    if device.type == "cuda":
        return indices.pin_memory().to(device, non_blocking=True)
    return indices.to(device)


class Resident:
    """All images in one uint8 tensor on the training device."""

    def __init__(self, images: Tensor, device: torch.device | str = "cpu") -> None:
        self.images = images.to(device)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """Return rows, gathered on the device."""
        return self.images.index_select(0, on_device(indices, self.images.device))

    def prefetch(self, indices: Tensor) -> None:
        """Do nothing: the images are there."""


class Streaming:
    """Images in a file-backed tensor larger than memory; a background thread reads the announced batch."""

    def __init__(self, images: Tensor, device: torch.device | str = "cpu") -> None:
        self.images, self.device = images, torch.device(device)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lsgm-prefetch")
        self._announced: tuple[Tensor, Future[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: Tensor) -> Tensor:
        """Return rows: the announced batch where these are its rows, else read now."""
        announced, self._announced = self._announced, None
        if announced is not None and torch.equal(announced[0], indices):
            host = announced[1].result()
        else:
            host = self._read(indices)
        return host.to(self.device, non_blocking=True)

    def prefetch(self, indices: Tensor) -> None:
        """Start reading rows in the background."""
        self._announced = (indices.clone(), self._thread.submit(self._read, indices.clone()))

    def _read(self, indices: Tensor) -> Tensor:
        # In the order of the file, which spares a disk most of its seeks.
        order = indices.argsort()
        rows = torch.empty((len(indices), *self.images.shape[1:]), dtype=self.images.dtype)
        rows[order] = self.images[indices[order]]
        return rows.pin_memory() if self.device.type == "cuda" else rows


def make_source(
    images: Tensor, device: torch.device | str = "cpu", *, budget: int | None = None
) -> ImageSource:
    """Return a `Resident` source where the images take at most ``budget`` bytes, else a `Streaming` one.

    Args:
        images: uint8 ``[N, C, H, W]``, possibly memory-mapped.
        device: Where batches are wanted.
        budget: Bytes (default: a quarter of what is free on the device now).
    """
    size = images.numel() * images.element_size()
    limit = int(SHARE * free_bytes(device)) if budget is None else budget
    return Resident(images, device) if size <= limit else Streaming(images, device)

"""Random numbers with an address: sample k depends on seed k alone, a training step on (seed, step) alone."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import torch
from torch import Generator, Tensor

NUMBERS_PER_THREAD = 2**16
"""Random numbers that are worth a thread: a millisecond of them."""


def derive_seed(*parts: int | str) -> int:
    """Hash ``parts`` to a 63-bit seed, so that neighbouring seeds and streams share nothing."""
    text = "/".join(str(part) for part in parts).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little") >> 1


def seed_global(seed: int, device: torch.device) -> None:
    """Seed the generators that unaddressed draws on the device use, such as dropout's.

    Not by torch.manual_seed, which writes down a stack trace for every kind of accelerator that is not in
    use: about a millisecond, at every training step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


class SeededNoise:
    """One random stream per sample: row k depends on seed k, the stream's name and the draws of row k before.

    The numbers come from CPU generators whatever the device, so that a sample is the same picture on every
    machine, in any batch and in any order.
    """

    def __init__(
        self, seeds: Sequence[int], *, device: torch.device | str = "cpu", stream: int | str = 0
    ) -> None:
        self.device = torch.device(device)
        self._generators = [Generator().manual_seed(derive_seed("sample", seed, stream)) for seed in seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return N(0, 1) noise of shape ``[len(self), *shape]``."""
        return self._rows(lambda row, g: row.normal_(generator=g), shape, dtype, carried=True)

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return noise uniform on [0, 1) of shape ``[len(self), *shape]``."""
        return self._rows(lambda row, g: row.uniform_(generator=g), shape, dtype, carried=True)

    def rademacher(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return fair signs in {-1, 1} of shape ``[len(self), *shape]``."""
        bits = self._rows(lambda row, g: row.random_(0, 2, generator=g), shape, torch.int64)
        return (bits.to(dtype) * 2 - 1).to(self.device)

    def _rows(
        self,
        fill: Callable[[Tensor, Generator], Any],
        shape: tuple[int, ...],
        dtype: torch.dtype,
        *,
        carried: bool = False,
    ) -> Tensor:
        """Fill each row from its own stream; ``carried`` to the device, which need not be waited for then."""
        pinned = carried and self.device.type == "cuda"
        out = torch.empty(len(self), *shape, dtype=dtype, pin_memory=pinned)
        rows = zip(out.unbind(), self._streams(), strict=True)
        threads = min(torch.get_num_threads(), out.numel() // NUMBERS_PER_THREAD)
        if threads > 1:
            # Rows of one stream are filled one after the other, in their order.
            runs = [list(run) for _, run in groupby(rows, lambda row: id(row[1]))]
            with ThreadPoolExecutor(threads) as pool:
                deque(pool.map(lambda run: [fill(*row) for row in run], runs), maxlen=0)
        else:
            for row, generator in rows:
                fill(row, generator)
        return out.to(self.device, non_blocking=pinned) if carried else out

    def _streams(self) -> Sequence[Generator]:
        """Return the generator of each row for one call."""
        return self._generators


class RepeatedNoise:
    """Random streams for many draws of each sample: draw k depends on the seed, the stream's name and k.

    The draws are taken a few at a time, and however they are cut the numbers are the same, as long as every
    part makes the same calls for the same shapes. Draw 0 has the very numbers of `SeededNoise`. The later
    draws of a sample take theirs in turn from one generator per call (the first call of each part has one,
    the second another): a generator for each draw would cost more than small networks do.
    """

    def __init__(
        self, seeds: Sequence[int], *, device: torch.device | str = "cpu", stream: int | str = 0
    ) -> None:
        self._seeds = list(seeds)
        self._stream = stream
        self._zeroth = SeededNoise(self._seeds, device=device, stream=stream)
        self._later: list[list[Generator]] = []
        self._taken = 0

    def __len__(self) -> int:
        return len(self._seeds)

    def take(self, count: int) -> SeededNoise:
        """Return the noise of the next ``count`` draws of every sample: len(self) * count rows.

        The draws of sample 0 come first. Use up one part before taking the next.
        """
        part = _Part(self, count, has_zeroth=self._taken == 0)
        self._taken += count
        return part

    def _generators_of(self, call: int) -> list[Generator]:
        """Return the generators, by sample, of the later draws' numbers in a part's call."""
        while len(self._later) <= call:
            name = f"{self._stream}/later/{len(self._later)}"
            seeds = (derive_seed("sample", seed, name) for seed in self._seeds)
            self._later.append([Generator().manual_seed(seed) for seed in seeds])
        return self._later[call]


class _Part(SeededNoise):
    """Some consecutive draws of every sample, as rows: sample-major."""

    def __init__(self, noise: RepeatedNoise, count: int, *, has_zeroth: bool) -> None:
        super().__init__([], device=noise._zeroth.device)
        self._noise = noise
        self._count = count
        self._has_zeroth = has_zeroth
        self._calls = 0

    def __len__(self) -> int:
        return len(self._noise) * self._count

    def _streams(self) -> Sequence[Generator]:
        zeroth, later = self._noise._zeroth._generators, self._count - self._has_zeroth
        call, self._calls = self._calls, self._calls + 1
        if not later:
            return zeroth
        rows: list[Generator] = []
        for first, rest in zip(zeroth, self._noise._generators_of(call), strict=True):
            rows += [first] * self._has_zeroth + [rest] * later
        return rows


class StepNoise:
    """The noise of one training step: drawn for the global batch, handed out by rows.

    Every process draws the whole batch's noise from a generator seeded by (seed, step) and keeps its own
    rows. Two processes therefore see the very noise that one would, and a resumed step the noise it had.
    """

    def __init__(
        self,
        seed: int | str,
        step: int,
        *,
        global_batch: int,
        rows: slice | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.device = torch.device(device)
        self.global_batch = global_batch
        self.rows = rows if rows is not None else slice(0, global_batch)
        self._generator = Generator(device=self.device).manual_seed(derive_seed("step", seed, step))

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return N(0, 1) noise of shape ``[rows, *shape]``."""
        size = (self.global_batch, *shape)
        return torch.randn(size, generator=self._generator, device=self.device, dtype=dtype)[self.rows]

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return noise uniform on [0, 1) of shape ``[rows, *shape]``."""
        size = (self.global_batch, *shape)
        return torch.rand(size, generator=self._generator, device=self.device, dtype=dtype)[self.rows]

    def stratified(self) -> Tensor:
        """Return rho_b = (u + b) / B for the rows of a global batch B, u ~ U(0, 1) shared: float64 in [0, 1).

        Each rho_b is uniform once b is shuffled, and the batch covers (0, 1) evenly, which takes most of the
        variance over t out of a batch's objective and none of its expectation.
        """
        size = self.global_batch
        offset = torch.rand((), generator=self._generator, device=self.device, dtype=torch.float64)
        order = torch.randperm(size, generator=self._generator, device=self.device)
        return ((order.to(torch.float64) + offset) / size)[self.rows]

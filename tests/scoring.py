"""A model whose bound of an image is known in advance, and that can be told to fail or to be interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.generative import Density, Pixels, Samples
from lsgm.ode import SolverError
from lsgm_eval.images import ScoredImages

__all__ = ["KnownModel", "known_images"]

COUNT = 30


def known_images(count: int = COUNT) -> ScoredImages:
    """Return binary images of 2x2 in a scrambled order; the pixels of image k are the last bits of k."""
    bits = torch.arange(count)[:, None] >> torch.arange(4) & 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(5))
    levels = bits.to(torch.uint8).reshape(count, 1, 2, 2)
    return ScoredImages("known@1@abc", "test", Pixels(1, 2, 2, "binary", 1), levels, "e" * 64, order, 3)


@dataclass
class KnownModel:
    """The bound of an image with seed k and n ones is 10 + shift + n + k / 1000."""

    name: str = "known"
    sha256: str = "a" * 64
    pixels: Pixels = field(default_factory=lambda: Pixels(1, 2, 2, "binary", 1))
    parameters: Mapping[str, int] = field(default_factory=lambda: {"p": 1})
    remark: str = ""
    has_prior: bool = True
    shift: float = 0.0
    probe_error: float | None = None
    coarse: float = 0.0
    """By how much the bound of a flow is too low, in units of the solver's tolerance or of 1 / steps^p."""
    stuck_below: float = 0.0
    """The tolerance below which the solver stops at every image."""
    nan: tuple[int, ...] = ()
    """Seeds whose bound is not finite."""
    stuck: tuple[int, ...] = ()
    """Seeds at which the solver stops."""
    interrupt_at: int | None = None
    """The call, from 1, in which Ctrl-C is pressed."""
    calls: list[list[int]] = field(default_factory=list)

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Draw nothing."""
        raise NotImplementedError

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Return the known bounds, with a term each for the ones and for the rest."""
        self.calls.append(list(seeds))
        if len(self.calls) == self.interrupt_at:
            raise KeyboardInterrupt
        for row, seed in enumerate(seeds):
            if seed in self.stuck or (config.method != "nelbo" and config.rtol < self.stuck_below):
                raise SolverError(row, 0.0031, "no step is small enough")
        ones = levels.flatten(1).sum(dim=1).double()
        error_of_flow = self.coarse * _finest(config) if config.method != "nelbo" else 0.0
        rest = 10 + self.shift - error_of_flow + torch.tensor(seeds, dtype=torch.float64) / 1000
        nats = torch.where(torch.isin(torch.tensor(seeds), torch.tensor(self.nan)), torch.nan, ones + rest)
        error = None if config.samples == 1 else torch.full_like(nats, 0.25)
        probe = None if self.probe_error is None else torch.full_like(nats, self.probe_error)
        groups = {"rest/0": rest / 4, "rest/1": 3 * rest / 4}
        nfe = torch.tensor(seeds) + config.draws
        return Density(
            nats, nfe, 0.5 * len(seeds), {"ones": ones, "rest": rest}, groups, error, probe_error=probe
        )

    @property
    def scored(self) -> list[int]:
        """Seeds of all images of all calls."""
        return [seed for call in self.calls for seed in call]


def _finest(config: DensityConfig) -> float:
    """Return what the error of a solver goes down with."""
    order = {"euler": 1, "heun": 2, "rk4": 4}
    return config.rtol if config.solver == "dopri5" else config.steps ** -float(order[config.solver])

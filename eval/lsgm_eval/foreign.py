"""Models of others in the harness: whatever draws images from seeds, and perhaps bounds -log P(x).

The least there can be::

    class Mine:
        def sample(self, seeds):
            return ...  # uint8 [N, C, H, W] in 0..255, image k from seed k alone

A ``density(images, seeds)`` that gives nats [N] adds likelihoods.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.errors import UserError
from lsgm.generative import Density, Pixels, Samples

KNOWN_BY = 8
"""Images by which a model is known that does not name a sha256 of its own."""


class ForeignModel:
    """An object with ``sample(seeds)``, or ``sample(seeds, sampler)``, as a `GenerativeModel`."""

    methods = ("nelbo",)
    """The bounds that there are: the object's own, under the most modest name."""

    def __init__(self, given: Any, pixels: Pixels | None = None) -> None:
        self._given = given
        self.name: str = str(getattr(given, "name", type(given).__name__))
        self._takes_sampler = len(_positional(given.sample)) > 1
        self.has_prior: bool = bool(getattr(given, "has_prior", self._takes_sampler))
        self.costs_known = self.has_prior
        self.parameters: Mapping[str, int] = dict(getattr(given, "parameters", None) or {})
        self.remark: str = str(getattr(given, "remark", ""))
        first = self._draw(range(KNOWN_BY), SamplerConfig(steps=5))
        self.pixels: Pixels = pixels or getattr(given, "pixels", None) or _pixels_of(first.images)
        said = getattr(given, "sha256", "")
        # Without weights that could be hashed a model is known by what it draws.
        self.sha256: str = said or hashlib.sha256(first.images.numpy().tobytes()).hexdigest()
        compute = getattr(given, "density", None)
        self.density = self._density if callable(compute) else None
        """`GenerativeModel.density`; None where there is none, which the harness asks."""

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Draw image k from seed k. Raises UserError where the object gives no such images."""
        drawn = self._draw(seeds, sampler)
        if tuple(drawn.images.shape[1:]) != self.pixels.shape:
            raise UserError(
                f"{self.name}.sample gave images {list(drawn.images.shape[1:])} and said "
                f"{list(self.pixels.shape)}; let every call give images of one size"
            )
        return drawn

    def _draw(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        began = time.perf_counter()
        words = [list(seeds), sampler] if self._takes_sampler else [list(seeds)]
        given = self._given.sample(*words)
        seconds = time.perf_counter() - began
        nfe = torch.zeros(len(seeds), dtype=torch.int64)
        if isinstance(given, Samples):
            drawn, nfe, seconds = given.images, given.nfe.cpu(), given.seconds
        else:
            drawn = given
        images = drawn if isinstance(drawn, Tensor) else torch.from_numpy(np.ascontiguousarray(drawn))
        what = f"{self.name}.sample gave {images.dtype} {list(images.shape)} for {len(seeds)} seeds"
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(seeds):
            raise UserError(f"{what}; let it give uint8 [N, C, H, W] in 0..255, one image for each seed")
        if images.shape[1] not in (1, 3):
            hint = "; move the channels to the front" if images.shape[3] in (1, 3) else ""
            raise UserError(f"{what}; images have 1 or 3 channels{hint}")
        return Samples(images.detach().cpu().contiguous(), nfe, seconds)

    def _density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x), by the object's own method whatever is asked for."""
        began = time.perf_counter()
        images = levels * (255 // (self.pixels.levels - 1)) if self.pixels.levels == 2 else levels
        given = self._given.density(images, list(seeds))
        if isinstance(given, Density):
            return given
        nats = torch.as_tensor(given, dtype=torch.float64).detach().cpu()
        if tuple(nats.shape) != (len(levels),):
            raise UserError(
                f"{self.name}.density gave {list(nats.shape)} for {len(levels)} images; give one number in "
                "nats for each"
            )
        return Density(nats, torch.zeros(len(levels), dtype=torch.int64), time.perf_counter() - began)


def _positional(method: Callable[..., Any]) -> list[inspect.Parameter]:
    """Return the parameters that a call may give without their names."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each for each in inspect.signature(method).parameters.values() if each.kind in kinds]


def _pixels_of(images: Tensor) -> Pixels:
    """Return what images are: binary where all are greyscale of 0 and 255 alone."""
    channels, height, width = images.shape[1:]
    binary = channels == 1 and bool(((images == 0) | (images == 255)).all())
    return Pixels(channels, height, width, *(("binary", 1) if binary else ("discrete", 8)))

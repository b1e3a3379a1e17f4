"""All that a harness needs to know of any model: it draws images from seeds and bounds -log P(x)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig, require
from lsgm.files.limits import IMAGE, SIZE


@dataclass(frozen=True)
class Pixels:
    """What the pixels of a model or a task are: their shape without padding, and their levels."""

    channels: int
    height: int
    width: int
    kind: Literal["binary", "discrete"]
    bits: int = 8

    def __post_init__(self) -> None:
        require(min(self.shape) >= 1, f"images are {self.channels} x {self.height} x {self.width}")
        for name in ("channels", "height", "width"):
            SIZE.allow(name, getattr(self, name))
        IMAGE.allow("channels x height x width", self.dims)
        require(1 <= self.bits <= 8, f"bits is {self.bits}; give 1 to 8 bits")

    @property
    def levels(self) -> int:
        """Number of values a sub-pixel can take."""
        return 2 if self.kind == "binary" else 2**self.bits

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width

    @property
    def dims(self) -> int:
        """Number of sub-pixels, by which nats become bits per dimension."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Samples:
    """Images uint8 [N, C, H, W] in 0..255, network evaluations [N] of each, and the seconds they took."""

    images: Tensor
    nfe: Tensor
    seconds: float
    """From noise to images."""
    decoder_seconds: float | None = None
    """The part of them from the sampler's result to images: a decoder's pass; None where it is not known."""


@dataclass(frozen=True)
class SamplingFlops:
    """Floating-point operations per image: one of the score network's evaluations, and the decoder's pass."""

    evaluation: int
    decoder: int


@dataclass(frozen=True)
class Density:
    """An upper bound on -log P(x) of N images: what it is, what it is made of, and what it cost."""

    nats: Tensor
    """The bound in nats, float64 [N]."""
    nfe: Tensor
    """Evaluations of the score network, over all of an image's draws, int64 [N]."""
    seconds: float
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Nats [N] that add up to the bound: ``reconstruction``, ``negative_entropy`` of the posterior,
    ``cross_entropy`` to the prior, of the score-matching bound ``terminal``, and of the importance-weighted
    bound ``importance_gain`` (at most 0), by which it is below the mean of its draws."""
    groups: Mapping[str, Tensor] = field(default_factory=dict)
    """The same by latent groups where a term can be split, ``negative_entropy/0`` and so on, nats [N]; what
    belongs to the top scale as a whole is ``cross_entropy/top``."""
    error: Tensor | None = None
    """Standard error of each image's bound over its draws, [N]; None where there is one draw."""
    probe_error: Tensor | None = None
    """Standard deviation of one draw's log p that is due to Hutchinson's probes, [N] (root mean square over
    draws): 0 for the exact divergence; None where there is no flow, and of one probe, which cannot tell."""


class GenerativeModel(Protocol):
    """A trained model as the harness sees it."""

    @property
    def name(self) -> str:
        """What tables call the model."""

    @property
    def sha256(self) -> str:
        """Hash of the weights file."""

    @property
    def pixels(self) -> Pixels:
        """Shape and levels of its images."""

    @property
    def parameters(self) -> Mapping[str, int]:
        """Parameter counts by part, e.g. {"vae": 200_000, "prior": 450_000}."""

    @property
    def remark(self) -> str:
        """What must be said beside its numbers, as that it was trained on mirrored images; often empty."""

    @property
    def has_prior(self) -> bool:
        """Whether sampling runs a diffusion, so that samplers and network evaluations mean something."""

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        """Draw image k from seed k alone."""

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Bound -log P(x) of images given as levels, uint8 [N, C, H, W]; noise of row k from seed k."""

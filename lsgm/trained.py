"""A trained model in one's hands: it draws, encodes, decodes, reconstructs, interpolates, bounds -log P(x).

`lsgm.load` gives one. Images are uint8 [N, C, H, W] in 0..255 throughout, as files have them; the harness
measures `Model.generative` beneath, which speaks of levels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import DensityConfig, Execution, SamplerConfig, require
from lsgm.devices import device_of, pick_device
from lsgm.distributed import ALONE
from lsgm.errors import UserError
from lsgm.generative import Density, GenerativeModel, Pixels, Samples
from lsgm.model.diffusion import NormalPriorModel, ScoreBasedModel
from lsgm.model.lsgm import VAECoder
from lsgm.model.running import settle
from lsgm.ode import odeint
from lsgm.pixels import PixelDistribution, pixels_from
from lsgm.rng import SeededNoise
from lsgm.runs.load import load_model
from lsgm.score import ScoreModel
from lsgm.sde import SDE
from lsgm.structure import from_dict
from lsgm.vae.base import VAE

Images = Tensor | NDArray[np.uint8]
"""uint8 [N, C, H, W] in 0..255, or [N, H, W] where there is one channel."""
Config = TypeVar("Config", SamplerConfig, DensityConfig)

AT_ONCE = 100
"""Images that are computed together: memory and speed, never a picture."""
TOLERANCE = 1e-5
"""Relative and absolute, of the flow that `Model.interpolate` follows."""


@dataclass(frozen=True)
class Latents:
    """Latents of N images, every group of the VAE's hierarchy, the top scale first."""

    groups: tuple[Tensor, ...]
    """[N, C_l, h_l, w_l] of each group l, in the order in which the decoder takes them."""
    log_q: tuple[Tensor, ...]
    """log q(z_l | x, z_<l) in nats, [N] of each group."""

    def __len__(self) -> int:
        return len(self.groups[0])

    def __getitem__(self, rows: slice) -> Latents:
        """Return the latents of some of the images."""
        return Latents(tuple(z[rows] for z in self.groups), tuple(nats[rows] for nats in self.log_q))


def load(
    path: str | os.PathLike[str], *, device: str = "auto", weights: Literal["ema", "raw"] = "ema"
) -> Model:
    """Return the trained model in a run directory (its newest checkpoint) or in a checkpoint directory.

    ``hf://owner/name``, perhaps with ``@revision``, is one of the Hugging Face Hub, which is fetched once.
    ``device`` is ``cpu``, ``cuda``, ``cuda:1`` or ``auto``, the first GPU where there is one. Raises
    CheckpointError where there is no checkpoint, a damaged one, or one of a newer format.
    """
    return Model(load_model(os.fspath(path), device=pick_device(device), weights=weights))


class Model:
    """A trained model: an LSGM, a VAE with its Normal prior, or a score model of the pixels.

    What it draws depends on the seeds alone, not on how many images are asked for at once.
    """

    def __init__(self, generative: GenerativeModel) -> None:
        self.generative = generative
        """The model as the harness measures it."""

    def __repr__(self) -> str:
        parts = ", ".join(f"{part} {count:,}" for part, count in self.parameters.items())
        channels, height, width = self.pixels.shape
        return f"<lsgm.Model '{self.name}': images {channels} x {height} x {width}, parameters: {parts}>"

    @property
    def name(self) -> str:
        """What tables call the model: the name of its run, or the one it was exported under."""
        return self.generative.name

    @property
    def pixels(self) -> Pixels:
        """Shape and levels of its images."""
        return self.generative.pixels

    @property
    def parameters(self) -> Mapping[str, int]:
        """How many parameters each part has."""
        return self.generative.parameters

    @property
    def vae(self) -> VAE | None:
        """The VAE, a torch module; None of a score model of the pixels."""
        if isinstance(self.generative, NormalPriorModel):
            return self.generative.vae
        coder = self.generative.coder if isinstance(self.generative, ScoreBasedModel) else None
        return coder.vae if isinstance(coder, VAECoder) else None

    @property
    def prior(self) -> ScoreModel | None:
        """The score model, a torch module: of the latents, or of the pixels; None of a VAE alone."""
        return self.generative.prior if isinstance(self.generative, ScoreBasedModel) else None

    @property
    def sde(self) -> SDE | None:
        """The forward diffusion that the score model reverses; None of a VAE alone."""
        return None if self.prior is None else self.prior.sde

    def prepare(self, execution: Execution = "eager", *, at_once: int | Literal["auto"] = AT_ONCE) -> int:
        """Have the score network run in another way from now on; return how many images go at once.

        Args:
            execution: ``eager``; ``compiled``, by torch.compile, which changes roundings; ``graphs``, CUDA
                graphs, bit for bit as eager on a GPU; or ``compiled-graphs``, both.
            at_once: What `sample` will be told; ``auto`` tries which number is fastest and has the memory.

        What cannot be had here is a warning, and the network runs as it is written.
        """
        return settle([self.generative], execution, at_once, ALONE)

    def sample(
        self,
        seeds: int | Sequence[int],
        sampler: str | SamplerConfig = "heun",
        *,
        at_once: int = AT_ONCE,
        **settings: Any,
    ) -> Samples:
        """Draw one image for each seed, or for the seeds 0 to n - 1 of a number n.

        Args:
            seeds: Image k depends on seed k alone.
            sampler: A name of `lsgm ls samplers`, or a whole configuration.
            at_once: How many are computed together.
            settings: Fields of `SamplerConfig`, such as ``steps=10`` or ``temperature=0.9``.

        Returns the images uint8 [N, C, H, W], evaluations of the score network [N], and seconds. Raises
        ConfigError for an unknown sampler or setting, and for one that does not fit the model.
        """
        config = _configured(
            SamplerConfig, {"name": sampler} if isinstance(sampler, str) else sampler, settings
        )
        chosen = range(seeds) if isinstance(seeds, int) else list(seeds)
        require(len(chosen) > 0, "no image is asked for; give a number above 0, or seeds")
        parts = [self.generative.sample(chosen[rows], config) for rows in _rows(len(chosen), at_once)]
        decoder = [part.decoder_seconds for part in parts]
        return Samples(
            torch.cat([part.images for part in parts]),
            torch.cat([part.nfe for part in parts]),
            sum(part.seconds for part in parts),
            None if None in decoder else sum(seconds for seconds in decoder if seconds is not None),
        )

    def density(
        self,
        images: Images,
        method: str | DensityConfig = "nelbo",
        *,
        seeds: Sequence[int] | None = None,
        at_once: int = AT_ONCE,
        **settings: Any,
    ) -> Density:
        """Bound -log P(x) of images, in nats (`lsgm.generative.Density`): smaller is better.

        Args:
            images: Binary models want pixels of 0 and 255; of a model of fewer bits the lowest are dropped.
            method: ``nelbo``, ``iw`` (importance weighted) or ``ode`` (by the probability flow), or a whole
                configuration.
            seeds: One for each image's noise; 0 to N - 1 unless given.
            at_once: How many images are computed together.
            settings: Fields of `DensityConfig`, such as ``samples=50``.

        Raises UserError for images that are not the model's, and where it has no such bound.
        """
        config = _configured(
            DensityConfig, {"method": method} if isinstance(method, str) else method, settings
        )
        compute = getattr(self.generative, "density", None)
        if not callable(compute):
            raise UserError(f"{self.name} bounds no density; draw from it instead")
        levels, chosen = levels_of(images, self.pixels), _seeds(seeds, len(images))
        return _joined([compute(levels[rows], chosen[rows], config) for rows in _rows(len(levels), at_once)])

    @torch.no_grad()
    def encode(
        self,
        images: Images,
        *,
        seeds: Sequence[int] | None = None,
        mean: bool = False,
        at_once: int = AT_ONCE,
    ) -> Latents:
        """Draw z ~ q(z | x) of images, every group; or, for ``mean``, go by each group's mean.

        Raises UserError for a model without a VAE, and for images that are not the model's.
        """
        vae, levels = self._need_vae("encode"), levels_of(images, self.pixels)
        chosen, device = _seeds(seeds, len(levels)), device_of(vae)
        drawn = []
        for rows in _rows(len(levels), at_once):
            noise = _no_noise(levels[rows], device) if mean else self._noise(chosen[rows], "posterior")
            drawn.append(vae.posterior(levels[rows].to(device), noise))
        return Latents(
            tuple(torch.cat(group) for group in zip(*(part.z for part in drawn), strict=True)),
            tuple(torch.cat(group) for group in zip(*(part.log_q for part in drawn), strict=True)),
        )

    @torch.no_grad()
    def decode(
        self,
        latents: Latents | Tensor,
        *,
        seeds: Sequence[int] | None = None,
        mean: bool = False,
        at_once: int = AT_ONCE,
    ) -> Tensor:
        """Return images uint8 [N, C, H, W] of p(x | z).

        Args:
            latents: What `encode` gives, or z_0 alone, [N, C, h, w] of the top scale's groups stacked on
                channels, as the score model draws it; the groups below are then drawn from N(0, I).
            seeds: Of the pixels' draws, and of groups that are not given; 0 to N - 1 unless given.
            mean: Whether binary pixels are shown as their probability; other pixels are their mean anyway.
            at_once: How many images are computed together.

        Raises UserError for a model without a VAE, and for latents of other shapes.
        """
        vae = self._need_vae("decode")
        groups = latents.groups if isinstance(latents, Latents) else self._with_lower(vae, latents, seeds)
        shapes = [tuple(z.shape[1:]) for z in groups]
        require(
            shapes == [tuple(shape) for shape in vae.groups.shapes],
            f"latents of the shapes {shapes} are not this model's: its groups are {list(vae.groups.shapes)}",
        )
        count, device = len(groups[0]), device_of(vae)
        chosen = _seeds(seeds, count)
        return torch.cat(
            [
                self._image(vae.likelihood(tuple(z[rows].to(device) for z in groups)), chosen[rows], mean)
                for rows in _rows(count, at_once)
            ]
        )

    def reconstruct(
        self,
        images: Images,
        *,
        seeds: Sequence[int] | None = None,
        mean: bool = False,
        at_once: int = AT_ONCE,
    ) -> Tensor:
        """Return images encoded and decoded, uint8 [N, C, H, W]: what the latents keep of them.

        ``mean`` takes the posterior's mean and shows binary pixels as probabilities. Raises as `encode` does.
        """
        latents = self.encode(images, seeds=seeds, mean=mean, at_once=at_once)
        return self.decode(latents, seeds=seeds, mean=mean, at_once=at_once)

    @torch.no_grad()
    def interpolate(
        self,
        a: Images,
        b: Images,
        steps: int = 8,
        *,
        along: Literal["latents", "flow"] = "latents",
        seeds: Sequence[int] | None = None,
        mean: bool = False,
    ) -> Tensor:
        """Return the way from images ``a`` to images ``b``, uint8 [N, steps, C, H, W], its ends included.

        ``latents`` goes from one draw of q(z | x) to the other, group by group. ``flow`` first carries z_0 up
        the probability flow to noise z_1, goes there, and comes down again, so that every image between is
        one that the prior draws; the groups below the top scale, whose prior is N(0, I) as that of z_1 is, go
        as before. Both ways are on great circles (`spherical`), along which a Normal stays as long as it is.

        Raises UserError for ``latents`` without a VAE, for ``flow`` without a score model, and for images
        that are not the model's.
        """
        require(steps >= 2, f"steps is {steps}; a way has two ends at least")
        require(along in ("latents", "flow"), f"along is '{along}'; give latents or flow")
        first, last = levels_of(a, self.pixels), levels_of(b, self.pixels)
        require(len(first) == len(last), f"{len(first)} images cannot be paired with {len(last)}")
        chosen = _seeds(seeds, len(first))
        shares = torch.linspace(0, 1, steps, dtype=torch.float64)
        rows = [
            self._way(first[k : k + 1], last[k : k + 1], shares, along, chosen[k], mean)
            for k in range(len(first))
        ]
        return torch.stack(rows)

    def _way(self, a: Tensor, b: Tensor, shares: Tensor, along: str, seed: int, mean: bool) -> Tensor:
        """Return the images at ``shares`` [S] of the way between two single images, uint8 [S, C, H, W]."""
        ends = [self._end(levels, along, seed, mean) for levels in (a, b)]
        z_0, *lower = (spherical(x, y, shares) for x, y in zip(*ends, strict=True))
        if along == "flow":
            z_0 = self._flow(z_0, up=False)
        seeds = [seed] * len(shares)
        if self.vae is not None:
            return self._image(self.vae.likelihood((*self.vae.groups.split(z_0), *lower)), seeds, mean)
        return self._image(self._score_based().coder.decode(z_0, self._noise(seeds, "lower")), seeds, mean)

    def _end(self, levels: Tensor, along: str, seed: int, mean: bool) -> tuple[Tensor, ...]:
        """Return one end of a way: z_0, or for the flow z_1, and the groups below the top scale."""
        if along == "latents":
            self._need_vae("interpolate in")
        levels, vae, noise = levels.to(self._device), self.vae, self._noise([seed], "posterior")
        if vae is not None:
            groups = vae.posterior(levels, _no_noise(levels, self._device) if mean else noise).z
            z_0, lower = vae.groups.stack(groups), groups[vae.groups.top :]
        else:
            z_0, lower = self._score_based().coder.encode(levels, noise).z_start, ()
        return (self._flow(z_0, up=True) if along == "flow" else z_0, *lower)

    def _flow(self, z: Tensor, *, up: bool) -> Tensor:
        """Carry z from where the coder stands up the probability flow to t = 1, or down again."""
        model = self._score_based()
        start, end = (model.coder.ode_start, 1.0) if up else (1.0, model.coder.ode_start)
        drift = model.prior.drift
        return odeint(lambda y, t, rows: drift(y, t), z, start, end, rtol=TOLERANCE, atol=TOLERANCE).y

    def _score_based(self) -> ScoreBasedModel:
        if not isinstance(self.generative, ScoreBasedModel):
            raise UserError(
                f"{self.name} has no score model and no flow to go along; give latents in its place"
            )
        return self.generative

    @property
    def _device(self) -> torch.device:
        part = self.vae if self.vae is not None else self.prior
        return torch.device("cpu") if part is None else device_of(part)

    def _need_vae(self, what: str) -> VAE:
        vae = self.vae
        if vae is None:
            raise UserError(f"{self.name} has no VAE and so no latents to {what}; give an LSGM or a VAE")
        return vae

    def _noise(self, seeds: Sequence[int], stream: str) -> Callable[..., Tensor]:
        return SeededNoise(seeds, device=self._device, stream=stream).normal

    def _with_lower(self, vae: VAE, z_0: Tensor, seeds: Sequence[int] | None) -> tuple[Tensor, ...]:
        """Return all groups for z_0: its own, and draws from N(0, I) as `sample` makes them."""
        shape = vae.groups.z_0
        require(
            tuple(z_0.shape[1:]) == tuple(shape),
            f"z_0 has shape {list(z_0.shape)}, and this model's is [N, {', '.join(map(str, shape))}]",
        )
        noise = self._noise(_seeds(seeds, len(z_0)), "lower latents")
        return (*vae.groups.split(z_0), *(noise(*lower) for lower in vae.groups.lower))

    def _image(self, distribution: PixelDistribution, seeds: Sequence[int], mean: bool) -> Tensor:
        if mean:
            return (distribution.mean() * 255).round().clamp(0, 255).to(torch.uint8).cpu()
        return pixels_from(distribution, self.pixels, seeds, self._device)


def spherical(a: Tensor, b: Tensor, shares: Tensor) -> Tensor:
    r"""Go from a [1, ...] to b [1, ...] on a great circle, [S, ...] at the ``shares`` [S] of the way.

    .. math:: \frac{\sin((1 - k) \theta) a + \sin(k \theta) b}{\sin \theta}, \quad
        \cos \theta = \frac{a \cdot b}{|a| |b|}

    (Shoemake 1985; arXiv:1609.04468). A point of a Normal in many dimensions lies at a distance of about the
    root of their number from 0; the chord between two passes far below it. Straight where they point the same
    way, the opposite one, or one of them is 0.
    """
    x, y = a.double(), b.double()
    lengths = x.norm() * y.norm()
    cosine = ((x * y).sum() / lengths.clamp(min=torch.finfo(torch.float64).tiny)).clamp(-1, 1)
    theta, k = torch.arccos(cosine), shares.to(x.device).reshape(-1, *[1] * (a.ndim - 1))
    if lengths == 0 or torch.sin(theta) < 1e-6:
        return ((1 - k) * x + k * y).to(a.dtype)
    return ((torch.sin((1 - k) * theta) * x + torch.sin(k * theta) * y) / torch.sin(theta)).to(a.dtype)


def levels_of(images: Images, pixels: Pixels) -> Tensor:
    """Return the levels uint8 [N, C, H, W] of images in 0..255, as `GenerativeModel.density` takes them.

    Raises UserError where they are not uint8, of another shape than the model's, or grey where it is binary.
    """
    tensor = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
    if tensor.ndim == 3 and pixels.channels == 1:
        tensor = tensor[:, None]
    if tensor.dtype != torch.uint8:
        raise UserError(f"images are {tensor.dtype}; give uint8 in 0..255, as if read from files")
    if tensor.ndim != 4 or tuple(tensor.shape[1:]) != pixels.shape or not len(tensor):
        channels, height, width = pixels.shape
        hint = "; move the channels to the front" if tensor.ndim == 4 and tensor.shape[3] == channels else ""
        raise UserError(
            f"images have shape {list(tensor.shape)} and this model's are [N, {channels}, {height}, {width}]"
            f"{hint}"
        )
    if pixels.kind == "binary":
        if bool(((tensor != 0) & (tensor != 255)).any()):
            raise UserError(
                "images have grey values and the model's are black and white; decide each pixel first, as by "
                "(images > 127) * 255"
            )
        return (tensor > 0).to(torch.uint8)
    return tensor >> (8 - pixels.bits)


def _configured(kind: type[Config], given: Config | Mapping[str, Any], settings: Mapping[str, Any]) -> Config:
    """Return a configuration with settings of one's own. Raises ConfigError naming an unknown one."""
    if isinstance(given, kind):
        given = {each.name: getattr(given, each.name) for each in fields(given)}
    assert isinstance(given, Mapping)
    return from_dict(kind, {**given, **settings}, kind.__name__, null=True)


def _rows(count: int, at_once: int) -> list[slice]:
    require(at_once >= 1, f"at_once is {at_once}; it must be at least 1")
    return [slice(start, start + at_once) for start in range(0, count, at_once)]


def _seeds(seeds: Sequence[int] | None, count: int) -> Sequence[int]:
    chosen = range(count) if seeds is None else list(seeds)
    require(len(chosen) == count, f"{len(chosen)} seeds are given for {count} images; give one for each")
    return chosen


def _no_noise(levels: Tensor, device: torch.device) -> Callable[..., Tensor]:
    return lambda *shape: torch.zeros(len(levels), *shape, device=device)


def _joined(parts: Sequence[Density]) -> Density:
    """Return the bounds of several batches as one."""

    def cat(values: Sequence[Tensor | None]) -> Tensor | None:
        known = [value for value in values if value is not None]
        return torch.cat(known) if len(known) == len(values) else None

    first = parts[0]
    return Density(
        torch.cat([part.nats for part in parts]),
        torch.cat([part.nfe for part in parts]),
        sum(part.seconds for part in parts),
        {name: torch.cat([part.terms[name] for part in parts]) for name in first.terms},
        {name: torch.cat([part.groups[name] for part in parts]) for name in first.groups},
        cat([part.error for part in parts]),
        cat([part.probe_error for part in parts]),
    )

"""Configuration shared by every model kind: frozen, checked on construction, free of torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean
from lsgm.files.limits import BATCH, DRAWS, SIZE, STEPS, Limit


def require(condition: bool, sentence: str) -> None:
    """Raise ConfigError(sentence) unless the condition holds."""
    if not condition:
        raise ConfigError(sentence)


def require_finite(config: Any, *but: str) -> None:
    """Raise ConfigError for a field that is infinite or no number, unless infinity means something there."""
    for field in fields(config):
        value = getattr(config, field.name)
        if isinstance(value, float) and not math.isfinite(value) and field.name not in but:
            raise ConfigError(f"{field.name.replace('_', '-')} is {value}; give a finite number")


def require_sizes(config: Any, limit: Limit, *names: str) -> None:
    """Raise ConfigError for a size among some fields, or in a tuple of them, that is beyond a limit."""
    for name in names:
        value = getattr(config, name)
        shown = name.replace("_", "-")
        if isinstance(value, tuple):
            limit.allow(f"the number of {shown}", len(value))
        for size in value if isinstance(value, tuple) else (value,):
            if size is not None:
                limit.allow(shown, size)


def require_seeds(first: int, count: int, name: str) -> None:
    """Raise ConfigError unless ``count`` seeds from ``first`` on are whole numbers of 63 bits."""
    require(first >= 0, f"{name} is {first}; it cannot be negative")
    last, largest = first + max(count, 1) - 1, 2**63 - 1
    require(
        last <= largest,
        f"{name} is {first}, and the last of {count} seeds {last}; it must be at most 2^63 - 1 = {largest}",
    )


CONVERSIONS = {
    "grey": "greyscale files of a set with colours become RGB of three equal channels",
    "palette": "colours of a palette become RGB, greys greyscale",
    "cmyk": "CMYK and YCbCr become RGB, without a colour profile",
    "alpha": "transparent pixels are laid onto white",
    "alpha-black": "transparent pixels are laid onto black",
    "rotated": "the rotation or mirroring of an EXIF tag is done",
    "16bit": "values v of 16 bits become round(v / 257)",
    "frame": "of several frames the first is taken",
}
"""Word of ``--convert`` -> what it does with files that are not plain 8-bit greyscale or RGB."""
_ALL = {"grey", "palette", "cmyk", "alpha", "rotated", "16bit"}


@dataclass(frozen=True)
class Convert:
    """The words of ``--convert``; without any, every file that would need one is refused."""

    words: frozenset[str] = frozenset()

    def __contains__(self, word: str) -> bool:
        return word in self.words

    def __str__(self) -> str:
        return ",".join(sorted(self.words))

    @property
    def alpha(self) -> int | None:
        """The grey value of the background for transparent pixels, None where these are refused."""
        return 0 if "alpha-black" in self.words else 255 if "alpha" in self.words else None


def parse_convert(text: str) -> Convert:
    """Return what comma-separated words allow; ``all`` stands for everything but ``frame``.

    Raises ConfigError for an unknown word.
    """
    words: set[str] = set()
    for word in filter(None, (part.strip().lower() for part in text.split(","))):
        if word != "all" and word not in CONVERSIONS:
            hint = did_you_mean(word, CONVERSIONS) or f"; give all, or some of {', '.join(CONVERSIONS)}"
            raise ConfigError(f"convert has no '{word}'{hint}")
        words |= _ALL if word == "all" else {word}
    if "alpha-black" in words:
        words.discard("alpha")
    return Convert(frozenset(words))


@dataclass(frozen=True)
class DataConfig:
    """Which images a model is trained on and how they reach it."""

    dataset: str = "glyphs"
    """Name of a dataset (`lsgm data ls`) or the path of a folder, zip, npz or npy of images."""
    flip: bool = False
    """Mirror training images left to right at random."""
    pad: int = 0
    """Zero pixels added on every side; they are never scored."""
    bits: int = 8
    """Bits per sub-pixel of a non-binary dataset."""
    image_size: int | str = 64
    """Size to which images by path are cropped at their centre and reduced: a side, height x width as 64x96,
    or native, which leaves them as they are."""
    convert: str = ""
    """What is allowed for images by path that are not plain greyscale or RGB: all, or some of grey, palette,
    cmyk, alpha, alpha-black, rotated, 16bit, frame."""

    def __post_init__(self) -> None:
        require(
            bool(self.dataset.strip()), "data.dataset is empty; name a dataset, or a folder or zip of images"
        )
        require(0 <= self.pad <= 16, f"data.pad is {self.pad}; give a number of pixels from 0 to 16")
        require(1 <= self.bits <= 8, f"data.bits is {self.bits}; give 1 to 8 bits")
        require(
            self.size is None or min(self.size) >= 8,
            f"data.image-size is {self.image_size}; give at least 8 pixels",
        )
        for side in self.size or ():
            SIZE.allow("data.image-size", side)
        if self.convert:
            parse_convert(self.convert)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of images by path, None where they keep their own.

        Raises ConfigError for text that is no size.
        """
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        words = self.image_size.lower().strip()
        sides = re.fullmatch(r"([0-9]{1,9})\s*[x×]\s*([0-9]{1,9})", words)
        side = re.fullmatch(r"[0-9]{1,9}", words)
        require(
            words == "native" or side is not None or sides is not None,
            f"data.image-size is '{self.image_size[:40]}'; give a side, height x width as 64x96, or native",
        )
        if side:
            return int(words), int(words)
        return (int(sides[1]), int(sides[2])) if sides else None


# The names of `lsgm.sde.make_sde`, for which nothing has to be imported: its own and those of other packages.
if TYPE_CHECKING:
    SDEName = str
else:
    SDEName = Literal["vp", "subvp", "ve", "geometric", *offers("lsgm.sdes")]


@dataclass(frozen=True)
class SDEConfig:
    """The forward diffusion, arXiv:2106.05931 section 3 and appendix."""

    kind: SDEName = "vp"
    """Variance preserving, sub-VP, variance exploding, or VP with geometric variance."""
    beta_start: float = 0.1
    """beta(0) of vp and subvp."""
    beta_end: float = 20.0
    """beta(1) of vp and subvp."""
    sigma2_0: float | None = None
    """Variance already present at t = 0 (None: 0 for vp and subvp, sigma2_min otherwise)."""
    sigma2_min: float | None = None
    """Smallest variance of ve (None: 1e-4) and geometric (None: 3e-5)."""
    sigma2_max: float | Literal["data"] | None = None
    """Largest variance of ve (None: 0.99) and geometric (None: 0.999). For ve also "data": the largest
    squared distance between two encodings of the training set, found before the prior's first step."""

    def __post_init__(self) -> None:
        require_finite(self)


@dataclass(frozen=True)
class OptimConfig:
    """One optimiser and its learning-rate schedule: linear warm-up, then cosine from lr to lr_min."""

    name: Literal["adam", "adamw", "adamax"] = "adam"
    """The update rule; adam couples weight decay as L2, adamw decouples it."""
    lr: float = 1e-3
    """Peak learning rate."""
    lr_min: float = 1e-5
    """Learning rate at the end of the cosine."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the denominator of the update."""
    weight_decay: float = 0.0
    """Weight decay, coupled or not as the name says."""

    def __post_init__(self) -> None:
        require(self.lr > 0, f"the learning rate is {self.lr}; it must be above 0")
        require(
            0 <= self.lr_min <= self.lr, f"lr-min is {self.lr_min}; it must lie between 0 and lr = {self.lr}"
        )
        require(0 <= self.beta1 < 1 and 0 <= self.beta2 < 1, "beta1 and beta2 must lie in [0, 1)")
        require(self.eps > 0, f"the optimiser's eps is {self.eps}; it must be above 0")
        require(self.weight_decay >= 0, f"weight-decay is {self.weight_decay}; it cannot be negative")
        require_finite(self)


@dataclass(frozen=True)
class StageConfig:
    """The budget and the mechanics of one training stage."""

    steps: int = 1000
    """Optimiser steps; the horizon of every schedule unless `seconds` is set. 0 skips the stage."""
    seconds: float | None = None
    """A budget in training seconds instead of steps; schedules then follow the clock."""
    horizon: float | None = None
    """Steps, or seconds of a budget in seconds, over which learning rates and annealing run; beyond it they
    stay at their ends (None: the whole budget). A run that is given more goes on with what it began with."""
    batch_size: int = 128
    """Images per step, over all processes."""
    warmup: float = 0.02
    """Share of the stage during which the learning rate rises from 0."""
    ema: float = 0.999
    """Decay of the exponential moving average of the weights."""
    clip: float = 1.0
    """Largest norm of each parameter group's gradient; 0 switches clipping off."""
    accumulate: int = 1
    """Parts that each process cuts its share of the batch into, one in memory at a time. The gradient is that
    of the batch; batch normalisation and kl.balance alone see the parts by themselves."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Autocast dtype of the networks, bfloat16 or float16 where the device has arithmetic for it and float32
    elsewhere; latents, log-densities and losses stay float32. float16, for GPUs that lack bfloat16, comes
    with a scaled loss."""
    memory_format: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Order of images and kernels in memory; auto takes channels_last on a GPU."""
    compile: bool = False
    """Compile the networks with torch.compile, each sort of block once."""
    cuda_graphs: bool = False
    """With compile, on a GPU: record what is compiled and replay it, without launches kernel by kernel."""
    sharded: bool = False
    """Of several processes let each keep a piece of the weights, their average and the optimisers' states
    (FSDP2) in place of all: for networks that are too large for one device."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    val_every: int = 500
    """Steps between validations."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; one is always written at the end of a stage."""
    keep: int = 2
    """Finished checkpoints kept besides the last one of each stage."""

    def __post_init__(self) -> None:
        require(self.steps >= 0, f"steps is {self.steps}; it cannot be negative")
        require(self.seconds is None or self.seconds > 0, f"seconds is {self.seconds}; it must be above 0")
        require(self.horizon is None or self.horizon > 0, f"horizon is {self.horizon}; it must be above 0")
        require(self.batch_size >= 1, f"batch-size is {self.batch_size}; it must be at least 1")
        require(
            self.accumulate >= 1 and self.batch_size % self.accumulate == 0,
            f"accumulate is {self.accumulate}, and a batch of {self.batch_size} cannot be cut into so many "
            "equal parts; give a divisor of batch-size",
        )
        require(
            self.compile or not self.cuda_graphs,
            "cuda-graphs records what is compiled; set compile as well, or leave it out",
        )
        require(0 <= self.warmup < 1, f"warmup is {self.warmup}; give a share of the stage in [0, 1)")
        require(0 <= self.ema < 1, f"ema is {self.ema}; give a decay in [0, 1)")
        require(self.clip >= 0, f"clip is {self.clip}; give a norm of at least 0")
        require(
            self.log_every >= 1 and self.val_every >= 1, "log-every and val-every must be at least 1 step"
        )
        require(
            not self.sharded or not (self.compile or self.precision == "float16"),
            "sharded goes with neither compile nor float16; leave one of them out",
        )
        require(self.checkpoint_every > 0, "checkpoint-every must be above 0 seconds")
        require(self.keep >= 1, "keep must be at least 1 checkpoint")
        require_finite(self, "clip", "checkpoint_every")
        require_sizes(self, BATCH, "batch_size")

    @property
    def budget(self) -> float:
        """Steps, or the seconds that stand for them."""
        return self.steps if self.seconds is None else self.seconds

    @property
    def schedule(self) -> float:
        """The part of the budget over which schedules run."""
        return self.budget if self.horizon is None else self.horizon


Execution = Literal["eager", "compiled", "graphs", "compiled-graphs"]
"""How a score network runs (`lsgm.model.running`)."""
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class SamplerConfig:
    """How noise becomes samples."""

    name: str = "heun"
    """A sampler of `lsgm ls samplers`."""
    steps: int = 20
    """Steps of a fixed-step sampler."""
    rtol: float = 1e-5
    """Relative tolerance of an adaptive solver."""
    atol: float = 1e-5
    """Absolute tolerance of an adaptive solver."""
    time_end: float | None = None
    """Where the reverse process stops (None: 1e-5 where the variance at t = 0 is 0, else 0)."""
    temperature: float = 1.0
    """Factor on the standard deviation of the initial noise and of a stochastic sampler's own."""
    grid: str | None = None
    """How the times of a fixed-step sampler are spaced: uniform, quadratic, logsnr, edm, geometric or, made
    for the model at hand, optimised (None: what suits the SDE)."""
    rho: float = 7.0
    """Exponent of the grid edm (arXiv:2206.00364, equation 5)."""
    times: tuple[float, ...] = ()
    """The times themselves, falling from 1; they then stand for steps, grid and time-end."""
    denoise: bool = False
    """End with one more evaluation, z_0 = E[z_0 | z_t] at the last time."""
    eta: float = 0.0
    """Share of the ancestral noise in ddim: 0 is the probability flow, 1 the ancestral sampler."""
    churn: float = 0.0
    """S_churn of edm-euler and edm-heun: noise added before each step (arXiv:2206.00364, algorithm 2)."""
    churn_min: float = 0.0
    """Smallest sigma_t / m_t at which noise is added."""
    churn_max: float | None = None
    """Largest one (None: any)."""
    churn_noise: float = 1.0
    """S_noise, the factor on the added noise's standard deviation."""
    corrector_steps: int = 1
    """Langevin steps of predictor-corrector before each step of the predictor."""
    snr: float = 0.16
    """Signal-to-noise ratio that sets the length of these (arXiv:2011.13456, algorithm 4)."""
    precision: Precision = "float32"
    """What the score network computes in; samples and everything else stay in float32."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; a sampler needs at least 1")
        require_sizes(self, STEPS, "steps", "corrector_steps")
        require(self.rtol > 0 and self.atol > 0, "rtol and atol must be above 0")
        require(self.time_end is None or 0 <= self.time_end < 1, "time-end must lie in [0, 1)")
        require(self.temperature > 0, f"temperature is {self.temperature}; it must be above 0")
        require(self.rho > 0, f"rho is {self.rho}; it must be above 0")
        require(0 <= self.eta <= 1, f"eta is {self.eta}; it must lie in [0, 1]")
        require(self.churn >= 0 and self.churn_min >= 0 and self.churn_noise >= 0, "churn cannot be negative")
        require(
            self.churn_max is None or self.churn_max >= self.churn_min,
            f"churn-max is {self.churn_max}; it must be at least churn-min = {self.churn_min}",
        )
        require(
            self.corrector_steps >= 0, f"corrector-steps is {self.corrector_steps}; it cannot be negative"
        )
        require(self.snr > 0, f"snr is {self.snr}; it must be above 0")
        require(len(self.times) != 1, "times needs at least two times, from 1 down to where sampling ends")
        require(
            all(late > early for late, early in pairwise(self.times)),
            f"times must fall from one to the next, without repeats; they are {list(self.times)}",
        )
        require(
            not self.times or (self.times[0] == 1.0 and self.times[-1] >= 0),
            "times must begin at 1 and end at a time of at least 0",
        )
        require(not (self.times and self.grid), "times and grid both space the steps; give one of the two")
        require_finite(self, "churn_max")


@dataclass(frozen=True)
class DensityConfig:
    """How -log P(x) is bounded."""

    method: Literal["nelbo", "iw", "ode"] = "nelbo"
    """nelbo: the score-matching bound; ode: the bound with the prior's density by probability flow; iw: the
    importance-weighted bound, with that density or, of a Normal prior, the exact one."""
    draws: int = 1
    """nelbo: times t per latent draw, stratified."""
    control_variate: bool = True
    """nelbo of a latent prior: estimate what the network adds to a Normal prior, whose own part is known; off
    estimates the whole, with the same expectation and far more noise."""
    samples: int = 1
    """Latent draws per image (of a data-space model: of its dequantisation): iw's K, else averaged."""
    at_once: int = 500
    """Draws, over all images, that are evaluated together: memory and speed, never a number."""
    solver: Literal["dopri5", "rk4", "heun", "euler"] = "dopri5"
    """Of the probability flow: adaptive Dormand-Prince for each draw, or one with fixed steps."""
    steps: int = 50
    """Steps of a solver with fixed steps."""
    rtol: float = 1e-4
    """Relative tolerance of dopri5."""
    atol: float = 1e-4
    """Absolute tolerance of dopri5."""
    step_control: Literal["auto", "state", "density"] = "auto"
    """What dopri5's steps follow: the state z alone, or the log-density too, whose error over a step is then
    below ``atol`` nats per dimension; auto: the density on the pixels themselves, the state in latents."""
    coordinate: Literal["time", "angle"] = "time"
    """What dopri5 steps along: the time, or arctan(sigma_t / m_t), in which the flow of a variance preserving
    SDE moves more evenly; there steps also follow the error of the step before."""
    probes: int = 1
    """Hutchinson probes per draw, fixed over the solve."""
    divergence: Literal["hutchinson", "exact"] = "hutchinson"
    """Trace of the Jacobian: estimated without bias, or exactly where the dimension is small."""
    dequantise: Literal["noise", "uniform"] = "noise"
    """How a data-space model's levels become continuous: the diffusion's own first noise, rounded away, or
    uniform noise on each level's cell. A VAE's decoder needs neither."""

    def __post_init__(self) -> None:
        require(self.draws >= 1 and self.probes >= 1, "draws and probes must be at least 1")
        require(self.samples >= 1 and self.at_once >= 1, "samples and at-once must be at least 1")
        require(self.steps >= 1, f"steps is {self.steps}; a solver needs at least 1")
        require_sizes(self, DRAWS, "draws", "samples", "at_once", "probes")
        require_sizes(self, STEPS, "steps")
        require(self.rtol > 0 and self.atol > 0, "rtol and atol must be above 0")
        require_finite(self)

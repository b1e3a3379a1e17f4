"""p(x | z): what distributes the pixels of an image, made from a decoder's output.

Bernoulli for binary pixels; for others one discretised logistic per sub-pixel, or a mixture of them whose
colours lean on each other; and a Normal density, kept for its parity with the authors' code. All see levels
on the interval [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from lsgm.config import require
from lsgm.devices import at_least_float32
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.nets.config import Decoder
from lsgm.rng import SeededNoise

LEAST_LOG_SCALE = -7.0
"""Log-scales are clamped from below here, where a bin of 8 bits is eight scales wide."""

COMPONENTS = 10
"""Components of the mixture, as in PixelCNN++."""


class PixelDistribution(Protocol):
    """p(x | z) of images whose sub-pixels are levels, uint8 [B, C, H, W]."""

    @property
    def is_mass(self) -> bool:
        """Whether `log_prob` is of levels, which bits per dimension are defined by, not a density's."""

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p in nats, at least float32 [B, c, H, W], whose sum over c is log p of a pixel.

        c is C where sub-pixels are independent given z, and 1 where a pixel's share one component.
        """

    def mean(self) -> Tensor:
        """Return the image in [0, 1] that the field displays and scores: the mean, or what stands for it."""

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1], a function of ``uniform`` [B, C, H, W], of a mixture [B, 1 + C, H, W]."""


def network_input(levels: Tensor, pixels: Pixels) -> Tensor:
    """Map levels 0..L-1 to the interval [-1, 1] that networks see, float32 unless levels are float64."""
    x = levels if levels.dtype == torch.float64 else levels.float()
    return x * (2.0 / (pixels.levels - 1)) - 1.0


class Bernoulli:
    """Binary pixels with the given logits [B, C, H, W]."""

    is_mass = True

    def __init__(self, logits: Tensor) -> None:
        self.logits = at_least_float32(logits)

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return x log p + (1 - x) log(1 - p) per pixel."""
        return -F.binary_cross_entropy_with_logits(self.logits, levels.to(self.logits), reduction="none")

    def mean(self) -> Tensor:
        """Return p."""
        return torch.sigmoid(self.logits)

    def sample(self, uniform: Tensor) -> Tensor:
        """Return 1 where uniform < p, else 0."""
        return (uniform < self.mean()).float()


def on_interval(levels: Tensor, count: int, like: Tensor) -> Tensor:
    """Map levels 0..count-1 to [-1, 1] in the dtype of ``like``."""
    return levels.to(like) * (2.0 / (count - 1)) - 1.0


def log_mass(levels: Tensor, count: int, centre: Tensor, log_scale: Tensor) -> Tensor:
    """Return log(F(x + h) - F(x - h)) of a logistic at levels 0..count-1 on [-1, 1], h = 1 / (count - 1).

    The outermost bins reach to infinity, so that all levels sum to one. Written through log-sigmoids, which
    stays exact in the far tails: F(b) - F(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)). Arguments broadcast.
    """
    x, half_bin = on_interval(levels, count, centre), 1.0 / (count - 1)
    inverse_scale = torch.exp(-log_scale)
    above = F.logsigmoid((x + half_bin - centre) * inverse_scale)
    not_below = F.logsigmoid((centre - x + half_bin) * inverse_scale)
    # From the bin's width, not from the difference of its edges, which cancels in the far tails.
    middle = above + not_below + torch.log(-torch.expm1(-2 * half_bin * inverse_scale))
    return torch.where(levels == 0, above, torch.where(levels == count - 1, not_below, middle))


def draw_levels(uniform: Tensor, count: int, centre: Tensor, log_scale: Tensor) -> Tensor:
    """Return levels 0..count-1 in the centre's dtype: centre + scale logit(u), rounded and clipped."""
    u = uniform.to(centre).clamp(1e-6, 1 - 1e-6)
    x = centre + torch.exp(log_scale) * torch.logit(u)
    return ((x + 1) / 2 * (count - 1)).round().clamp(0, count - 1)


class DiscretizedLogistic:
    """One logistic per sub-pixel, integrated over bins of 2 / (levels - 1) on [-1, 1] (arXiv:1606.04934).

    ``parameters`` [B, 2 C, H, W] holds means and log-scales; the outermost bins reach to infinity, so that
    the probabilities of all levels sum to one.
    """

    is_mass = True

    def __init__(self, parameters: Tensor, levels: int) -> None:
        mean, log_scale = at_least_float32(parameters).chunk(2, dim=1)
        self.centre = mean
        self.log_scale = log_scale.clamp(min=LEAST_LOG_SCALE)
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log(F(x + half bin) - F(x - half bin)) per sub-pixel, in nats."""
        return log_mass(levels, self.levels, self.centre, self.log_scale)

    def mean(self) -> Tensor:
        """Return the logistic's centre, clipped to [0, 1]: what the field displays."""
        return (self.centre.clamp(-1, 1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return centre + scale logit(uniform), rounded to a level and clipped."""
        return draw_levels(uniform, self.levels, self.centre, self.log_scale) / (self.levels - 1)


def outputs_of_mixture(channels: int) -> int:
    """Return the parameters of a pixel: 100 for colours, 30 for grey."""
    per_channel = 2 if channels == 1 else 3
    return COMPONENTS * (1 + per_channel * channels)


class LogisticMixture:
    """p(x) = sum_k pi_k prod_c P(x_c; mu_kc + sum_{d<c} a_kcd x_d, s_kc) per pixel (arXiv:1701.05517).

    P is the discretised logistic of `lsgm.pixels.log_mass`; x_d are the pixel's earlier colours on
    [-1, 1]. ``parameters`` [B, 100, H, W]: ten logits of pi; then for each colour in turn ten mu, ten log s
    and ten of the a = tanh(.), of which red's block holds green's on red and green's and blue's blocks hold
    blue's on red and on green. Grey pixels [B, 30, H, W] have no a. The k of a pixel is one for all of its
    colours, so only the pixel as a whole has a log-probability.
    """

    is_mass = True

    def __init__(self, parameters: Tensor, channels: int, levels: int) -> None:
        parameters = at_least_float32(parameters)
        self.channels = channels
        self.levels = levels
        self.logits, rest = parameters[:, :COMPONENTS], parameters[:, COMPONENTS:]
        rest = rest.reshape(len(rest), channels, -1, *rest.shape[2:])
        self.centres = rest[:, :, :COMPONENTS]
        self.log_scales = rest[:, :, COMPONENTS : 2 * COMPONENTS].clamp(min=LEAST_LOG_SCALE)
        pairs = channels * (channels - 1) // 2
        self.coefficients = torch.tanh(rest[:, :pairs, -COMPONENTS:])

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log p per pixel in nats, [B, 1, H, W]: the colours of a pixel share their component.

        A dozen numbers per component and sub-pixel are recomputed in the backward pass, not kept: for images
        of 256 x 256 they would fill 70 MB each, in float32.
        """
        log_p = torch.log_softmax(self.logits, dim=1)
        for colour in range(self.channels):
            log_p = log_p + _recomputed(self._log_mass, levels, colour)
        return torch.logsumexp(log_p, dim=1, keepdim=True)

    def _log_mass(self, levels: Tensor, colour: int) -> Tensor:
        """Return log P of one colour given the earlier ones under every component, [B, K, H, W]."""
        x = [on_interval(levels[:, d, None], self.levels, self.logits) for d in range(colour)]
        centre = _leaning(self.centres, self.coefficients, x)
        return log_mass(levels[:, colour, None], self.levels, centre, self.log_scales[:, colour])

    def mean(self) -> Tensor:
        """Return the image that the field displays: colours from the mixture's averaged mu and a.

        Each is clamped to [-1, 1] before the next leans on it. That is no draw, and where components differ
        in their a not the mean either; tables of generated images are made of it, so it is kept.
        """
        pi = torch.softmax(self.logits, dim=1)[:, None]
        centres, coefficients = ((pi * x).sum(dim=2) for x in (self.centres, self.coefficients))
        colours: list[Tensor] = []
        for _ in range(self.channels):
            colours.append(_leaning(centres, coefficients, colours).clamp(-1, 1))
        return (torch.stack(colours, dim=1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return a draw in [0, 1]; ``uniform`` [B, 1 + C, H, W] picks the component, then each colour.

        A colour leans on the levels already drawn, as `log_prob` does.
        """
        cumulative = torch.softmax(self.logits, dim=1).cumsum(dim=1)
        k = (cumulative <= uniform[:, :1]).sum(dim=1, keepdim=True).clamp(max=COMPONENTS - 1)[:, None]
        centres, log_scales, coefficients = (
            x.take_along_dim(k, dim=2)[:, :, 0] for x in (self.centres, self.log_scales, self.coefficients)
        )
        drawn: list[Tensor] = []
        for colour in range(self.channels):
            x = [on_interval(level, self.levels, level) for level in drawn]
            centre = _leaning(centres, coefficients, x)
            drawn.append(draw_levels(uniform[:, 1 + colour], self.levels, centre, log_scales[:, colour]))
        return torch.stack(drawn, dim=1) / (self.levels - 1)


def _recomputed(function: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """Return ``function(*arguments)``, computed again in every backward pass through it.

    It has neither random numbers nor running statistics to take care of, unlike the blocks of a network.
    """
    if not torch.is_grad_enabled():
        return function(*arguments)
    out: Tensor = checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
    return out


def _leaning(centres: Tensor, coefficients: Tensor, earlier: Sequence[Tensor]) -> Tensor:
    """Return the centre of the colour after the ``earlier`` ones: mu_c + sum_d a_cd x_d.

    Coefficients stand in the order (1, 0), (2, 0), (2, 1) of (colour, earlier colour).
    """
    colour = len(earlier)
    centre = centres[:, colour]
    for offset, x in enumerate(earlier):
        centre = centre + coefficients[:, colour * (colour - 1) // 2 + offset] * x
    return centre


class NormalPixels:
    """N(x; mu, sigma^2) per sub-pixel, x on [-1, 1], both mu and log sigma bounded by 5 tanh(. / 5).

    ``parameters`` [B, 2 C, H, W] holds mu and log sigma. `log_prob` is the log-density of x, which may be
    above 0 and grows without limit as sigma shrinks onto the levels: it is not the log-probability of a
    level and no bits per dimension may be made of it (``is_mass`` is False).
    """

    is_mass = False

    def __init__(self, parameters: Tensor, levels: int) -> None:
        mu, log_sigma = at_least_float32(parameters).chunk(2, dim=1)
        self.mu = 5 * torch.tanh(mu / 5)
        self.log_sigma = 5 * torch.tanh(log_sigma / 5)
        self.levels = levels

    def log_prob(self, levels: Tensor) -> Tensor:
        """Return log N(x; mu, sigma^2) per sub-pixel, in nats per unit of [-1, 1]."""
        x = on_interval(levels, self.levels, self.mu)
        scaled = (x - self.mu) * torch.exp(-self.log_sigma)
        return -0.5 * scaled**2 - self.log_sigma - 0.5 * math.log(2 * math.pi)

    def mean(self) -> Tensor:
        """Return mu, clipped to [0, 1]."""
        return (self.mu.clamp(-1, 1) + 1) / 2

    def sample(self, uniform: Tensor) -> Tensor:
        """Return mu + sigma Phi^-1(uniform), clipped to [0, 1] but not rounded to a level."""
        u = uniform.to(self.mu).clamp(1e-6, 1 - 1e-6)
        n: Tensor = torch.special.ndtri(u)
        return ((self.mu + torch.exp(self.log_sigma) * n).clamp(-1, 1) + 1) / 2


def resolve(
    decoder: Decoder, pixels: Pixels, default: Literal["logistic", "mixture", "normal"] = "logistic"
) -> Decoder:
    """Return the decoder that ``auto`` stands for: bernoulli of binary pixels, ``default`` of others.

    Raises ConfigError where the pixels have more levels than the decoder, or fewer.
    """
    if decoder == "auto":
        decoder = "bernoulli" if pixels.kind == "binary" else default
    if pixels.kind == "binary":
        require(decoder == "bernoulli", f"the decoder '{decoder}' is not for binary pixels; use bernoulli")
    else:
        require(
            decoder != "bernoulli",
            f"the decoder 'bernoulli' is for binary pixels, and these have {pixels.levels} levels; "
            "use logistic or mixture",
        )
    require(
        decoder != "mixture" or pixels.channels in (1, 3),
        f"the decoder 'mixture' is for 1 or 3 channels, and these have {pixels.channels}; use logistic",
    )
    return decoder


def outputs_for(pixels: Pixels, decoder: Decoder = "auto") -> int:
    """Return how many channels a decoder must put out for these pixels; raises ConfigError as `resolve`."""
    match resolve(decoder, pixels):
        case "bernoulli":
            return pixels.channels
        case "mixture":
            return outputs_of_mixture(pixels.channels)
        case _:
            return 2 * pixels.channels


def pixel_distribution(parameters: Tensor, pixels: Pixels, decoder: Decoder = "auto") -> PixelDistribution:
    """Return p(x | z) of these pixels from the decoder's output [B, `outputs_for`, H, W]."""
    match resolve(decoder, pixels):
        case "bernoulli":
            return Bernoulli(parameters)
        case "mixture":
            return LogisticMixture(parameters, pixels.channels, pixels.levels)
        case "normal":
            return NormalPixels(parameters, pixels.levels)
        case _:
            return DiscretizedLogistic(parameters, pixels.levels)


def require_mass(is_mass: bool, name: str) -> None:
    """Raise UserError for pixels with a density: nats of it bound no probability and depend on a unit."""
    if not is_mass:
        raise UserError(
            f"{name or 'this model'} has a Normal decoder, a density that gives levels no probability; "
            "ask for its images only, or train it with the decoder logistic or mixture"
        )


def pixels_from(
    distribution: PixelDistribution, pixels: Pixels, seeds: Sequence[int], device: torch.device
) -> Tensor:
    """Return uint8 images: draws where pixels are binary, means otherwise, as the field scores them."""
    if pixels.kind == "binary":
        image = distribution.sample(SeededNoise(seeds, device=device, stream="pixels").uniform(*pixels.shape))
    else:
        image = distribution.mean()
    return (image * 255).round().clamp(0, 255).to(torch.uint8).cpu()

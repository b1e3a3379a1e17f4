r"""Bounds on -log P(x) from many draws of z per image, in the memory that a few of them take.

With w_k = p(x, z_k) / q(z_k | x) the mean of -log w_k bounds -log P(x), and so does

.. math:: -\log \frac{1}{K} \sum_{k=1}^K w_k,

which is below that mean and falls towards -log P(x) as K grows (arXiv:1509.00519). Both are accumulated from
whatever part of the draws is at hand, so that K has no say in what is held at once.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.generative import Density

__all__ = ["Draws", "Evaluate", "LogMeanExp", "Moments", "bound"]


@dataclass(frozen=True)
class Draws:
    """The next few draws of B images, as rows [B * count] with those of image 0 first."""

    terms: Mapping[str, Tensor]
    """Nats that add up to -log w."""
    groups: Mapping[str, Tensor]
    """The same by latent groups, where they can be told apart."""
    nfe: Tensor
    """Evaluations of the score network."""
    probe_error: Tensor | None = None
    """Standard error of log w that is due to the probes of a divergence; None where it is not known."""


Evaluate = Callable[[int], Draws]
"""``evaluate(count)`` takes the next ``count`` draws of every image."""


@dataclass
class Moments:
    """Mean and standard error of values that come a few at a time, by rows (Chan, Golub & LeVeque, 1983)."""

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros(()))
    spread: Tensor = field(default_factory=lambda: torch.zeros(()))
    """Sum of squared deviations from the mean."""

    def update(self, values: Tensor) -> None:
        """Take in the next values [B, count], at least one of each row."""
        count, mean = values.shape[1], values.mean(dim=1)
        total = self.count + count
        delta = mean - self.mean.to(mean)
        spread = (values - mean[:, None]).square().sum(dim=1)
        self.spread = self.spread.to(mean) + spread + delta.square() * (self.count * count / total)
        self.mean = self.mean.to(mean) + delta * (count / total)
        self.count = total

    def error(self) -> Tensor | None:
        """Return the standard error of the mean [B], or None for a single value."""
        if self.count < 2:
            return None
        return (self.spread / (self.count - 1) / self.count).sqrt()


@dataclass
class LogMeanExp:
    """log((1/K) sum_k exp(v_k)) of values that come a few at a time, by rows.

    The sums of exp(v) and of exp(v)^2 are kept relative to the largest v so far: nothing overflows, and what
    underflows is nothing beside it.
    """

    count: int = 0
    largest: Tensor = field(default_factory=lambda: torch.tensor(-torch.inf))
    total: Tensor = field(default_factory=lambda: torch.zeros(()))
    squares: Tensor = field(default_factory=lambda: torch.zeros(()))

    def update(self, values: Tensor) -> None:
        """Take in the next values [B, count], at least one of each row; -inf is a weight of 0."""
        before = self.largest.to(values)
        self.largest = torch.maximum(before, values.amax(dim=1))
        # inf - inf is no shift: all weights are 0 so far, or one is infinite.
        shift = self.largest.masked_fill(self.largest.isinf(), 0.0)
        shrink = torch.exp(before - shift)
        weights = torch.exp(values - shift[:, None])
        self.total = self.total.to(values) * shrink + weights.sum(dim=1)
        self.squares = self.squares.to(values) * shrink.square() + weights.square().sum(dim=1)
        self.count += values.shape[1]

    def value(self) -> Tensor:
        """Return the logarithm of the mean weight [B]."""
        shift = self.largest.masked_fill(self.largest.isinf(), 0.0)
        return shift + (self.total / self.count).log()

    def error(self) -> Tensor | None:
        """Return its standard error [B] by the delta method, std(w) / (sqrt(K) mean(w)); None for K = 1.

        It is the error of ``value`` as an estimate of log E[w], to be trusted where many weights count. Where
        a few dominate, larger ones that were not drawn do not show in it.
        """
        if self.count < 2:
            return None
        excess = self.count * self.squares / self.total.square() - 1.0
        return (excess.clamp(min=0.0) / (self.count - 1)).sqrt()


def bound(evaluate: Evaluate, images: int, config: DensityConfig) -> Density:
    """Return the bound of ``config.method`` over ``config.samples`` draws of every image, on the CPU.

    ``nelbo`` and ``ode``: the mean of -log w over the draws, with its standard error. ``iw``: -log of the
    mean of w, with its error by the delta method, and the term ``importance_gain`` (at most 0) by which it
    is below the mean of -log w. At most max(images, config.at_once) rows are evaluated together; how many
    changes roundings alone.
    """
    started = time.perf_counter()
    nats, weight, probes = Moments(), LogMeanExp(), Moments()
    terms: dict[str, Moments] = defaultdict(Moments)
    groups: dict[str, Moments] = defaultdict(Moments)
    nfe = torch.zeros(images, dtype=torch.int64)
    at_once = max(1, config.at_once // max(1, images))

    for first in range(0, config.samples, at_once):
        count = min(at_once, config.samples - first)
        drawn = evaluate(count)
        parts = {name: value.double().reshape(images, count) for name, value in drawn.terms.items()}
        total = torch.stack(list(parts.values())).sum(dim=0)
        nats.update(total)
        weight.update(-total)
        for name, part in parts.items():
            terms[name].update(part)
        for name, value in drawn.groups.items():
            groups[name].update(value.double().reshape(images, count))
        if drawn.probe_error is not None:
            probes.update(drawn.probe_error.double().reshape(images, count).square())
        nfe += drawn.nfe.reshape(images, count).sum(dim=1).cpu()

    means = {name: moments.mean for name, moments in terms.items()}
    value, error = nats.mean, nats.error()
    if config.method == "iw":
        value, error = -weight.value(), weight.error()
        means["importance_gain"] = (value - nats.mean).clamp(max=0.0)
    return Density(
        nats=value.cpu(),
        nfe=nfe,
        seconds=time.perf_counter() - started,
        terms={name: mean.cpu() for name, mean in means.items()},
        groups={name: moments.mean.cpu() for name, moments in groups.items()},
        error=None if error is None else error.cpu(),
        probe_error=probes.mean.sqrt().cpu() if probes.count else None,
    )

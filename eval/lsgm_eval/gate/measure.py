"""The same computation in float64, whatever the model: what float32 rounding does to its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lsgm.config import DensityConfig
from lsgm.errors import UserError
from lsgm.generative import Density, GenerativeModel
from lsgm_eval.gate.golden import Plan
from lsgm_eval.images import ScoredImages
from lsgm_eval.measure.space import Space
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Moments
from lsgm_eval.samples.reference import choose

__all__ = ["BATCH", "Doubled", "Estimate", "Measured", "Subject", "measure_estimates", "measure_replays"]

KEPT = frozenset({"grad", "backward", "seed", "manual_seed", "empty", "randn", "rand"})
"""Functions that are left alone: those of the autograd graph, and those that make room for random numbers,
which would be other numbers in float64."""
VIEWS = frozenset(
    {"unbind", "select", "narrow", "__getitem__", "view", "view_as", "reshape", "flatten", "unflatten"}
    | {"expand", "expand_as", "permute", "transpose", "t", "squeeze", "unsqueeze", "chunk", "split"}
    | {"detach", "contiguous"}
)
"""Functions that compute nothing, and whose results may be written to in the place of their arguments."""


class Doubled(TorchFunctionMode):
    """Within it every torch function sees float64 in the place of float32.

    Random numbers and whatever is written in place keep their dtype, so that seeds give the same noise;
    weights stay float32 and are widened where they are used. Everything between two such places is computed
    in float64: the differences from a computation outside are float32's roundings.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func`` with float32 arguments widened."""
        given = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in KEPT or name in VIEWS or _in_place(name):
            return func(*args, **given)
        if func is Tensor.float:
            return args[0].double()
        return func(*_wide(args), **{key: _wide(value) for key, value in given.items()})


def _in_place(name: str) -> bool:
    if name in ("__get__", "__set__", "__setitem__", "__delete__"):
        return True
    operator = name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__")
    return operator or (name.endswith("_") and not name.endswith("__"))


def _wide(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.double() if value.dtype is torch.float32 else value
    if value is torch.float32:
        return torch.float64
    if type(value) in (list, tuple):
        return type(value)(_wide(item) for item in value)
    return value


# What the gate measures of a model: replays at fixed seeds, images drawn again, and estimates

Array = NDArray[np.float64]

BATCH = 64
"""Images at a time. No number depends on it but by roundings, which is one way of telling their size."""
STRIDE = 1_000_003
"""Between the seeds of two repeats: a prime above the rows of any split, so that none meets another."""
SUB_PIXELS = 784
"""Sub-pixels that are kept of every drawn image, chosen at random where it has more."""


@dataclass(frozen=True)
class Subject:
    """A model with the images and the feature spaces that it is measured by."""

    model: GenerativeModel
    images: ScoredImages
    spaces: tuple[Space, ...]
    plan: Plan


@dataclass(frozen=True)
class Estimate:
    """One measurement of a mean over images, or of a distance."""

    metric: str
    """As result rows call it."""
    value: float
    per_image: Array | None = None
    """[N], of a mean."""


@dataclass
class Measured:
    """What was measured, by the names of golden rows, and why what could not be was not."""

    replays: dict[str, Array] = field(default_factory=dict)
    """Numbers [N] of single images at fixed seeds, nats."""
    drawn: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    """Levels [N, K] of drawn images' sub-pixels."""
    estimates: dict[str, Estimate] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """By the beginnings of the names of the rows that it cost."""

    def attempt(self, prefix: str, measure: Callable[[], None]) -> None:
        """Run a measurement; what it raises for the user is kept as the reason why its rows are missing."""
        try:
            measure()
        except UserError as error:
            self.failures[prefix] = str(error)

    def why_missing(self, name: str) -> str | None:
        """Return why a row could not be measured, or None where it was not tried."""
        return next((why for prefix, why in self.failures.items() if name.startswith(prefix)), None)


def measure_replays(subject: Subject, into: Measured | None = None, *, batch: int = BATCH) -> Measured:
    """Return the numbers of single images at their own seeds, which nothing but rounding may move.

    ``replay/nelbo/<term>``: every term of the bound; ``replay/flow``: the bound by the probability flow;
    ``replay/images``: sub-pixels of images drawn from seeds 0, 1, ...
    """
    found, plan = into or Measured(), subject.plan
    found.attempt("replay/nelbo", lambda: _replay_bound(subject, found, batch))
    if subject.model.has_prior and plan.flow_images:
        found.attempt("replay/flow", lambda: _replay_flow(subject, found, batch))
    if plan.drawn:
        found.attempt("replay/images", lambda: _replay_images(subject, found, batch))
    return found


def measure_estimates(subject: Subject, into: Measured | None = None, *, repeat: int = 0) -> Measured:
    """Return bounds and distances with the seeds of one repeat; repeats are independent of one another."""
    found, model, plan = into or Measured(), subject.model, subject.plan
    matching = DensityConfig(draws=plan.draws)
    found.attempt("nelbo_nats", lambda: _mean(subject, found, matching, "nelbo_nats", repeat))
    if not model.has_prior:
        weighted = DensityConfig("iw", samples=plan.iw_samples)
        found.attempt("iw_nats", lambda: _mean(subject, found, weighted, "iw_nats", repeat))
    names = [space.metric(family) for space in subject.spaces for family in ("frechet", "kernel")]
    if names:
        draws = Measured()
        draws.attempt("", lambda: _distances(subject, found, repeat))
        found.failures |= {name: why for name in names for why in draws.failures.values()}
    return found


def _replay_bound(subject: Subject, found: Measured, batch: int) -> None:
    config = DensityConfig(draws=subject.plan.replay_draws)
    for name, nats in _scored(subject, config, subject.plan.replay_images, batch).items():
        found.replays[f"replay/nelbo/{name}" if name else "replay/nelbo"] = nats


def _replay_flow(subject: Subject, found: Measured, batch: int) -> None:
    config = DensityConfig("ode", solver="heun", steps=subject.plan.flow_steps)
    found.replays["replay/flow"] = _scored(subject, config, subject.plan.flow_images, batch)[""]


def _replay_images(subject: Subject, found: Measured, batch: int) -> None:
    width = math.prod(subject.model.pixels.shape)
    kept = choose(width, min(SUB_PIXELS, width), 0)
    parts = [levels.flatten(1)[:, kept] for levels in _drawn(subject, range(subject.plan.drawn), batch)]
    found.drawn["replay/images"] = torch.cat(parts).numpy()


def _mean(subject: Subject, found: Measured, config: DensityConfig, name: str, repeat: int) -> None:
    shift = (1 + repeat) * STRIDE  # never the replays' own noise
    nats = _scored(subject, config, subject.plan.images, BATCH, shift)[""]
    found.estimates[name] = Estimate(name, float(nats.mean()), nats)


def _distances(subject: Subject, found: Measured, repeat: int) -> None:
    count = subject.plan.samples
    first = STRIDE + repeat * count
    images = torch.cat(list(_drawn(subject, range(first, first + count), BATCH)))
    for space in subject.spaces:
        rows = space.extractor(images).numpy()
        reference = space.reference.stats
        frechet = frechet_distance(Moments.of(rows), reference.moments)
        kernel = kernel_distance(rows, reference.rows, within_y=space.reference.within).value
        for family, value in (("frechet", frechet), ("kernel", kernel)):
            name = space.metric(family)
            found.estimates[name] = Estimate(name, value)


def _drawn(subject: Subject, seeds: range, batch: int) -> Iterator[Tensor]:
    for start in range(0, len(seeds), batch):
        yield subject.model.sample(list(seeds[start : start + batch]), subject.plan.sampler).images


def _scored(
    subject: Subject, config: DensityConfig, count: int, batch: int, shift: int = 0
) -> dict[str, Array]:
    """Return the terms [N] of the bound of the first images of the split's order; '' is the bound itself."""
    images = subject.images
    rows = images.order[:count]
    if len(rows) < count:
        raise UserError(
            f"the plan asks for {count:,} images and the split {images.split} has {len(rows):,}: write the "
            "golden rows with fewer --images"
        )
    parts: list[Mapping[str, Any]] = []
    for some in (rows[start : start + batch] for start in range(0, count, batch)):
        seeds = [int(row) + shift for row in some]
        density: Density = subject.model.density(images.levels[some], seeds, config)
        parts.append({"": density.nats, **density.terms})
    joined = {name: torch.cat([part[name] for part in parts]).double().numpy() for name in parts[0]}
    return dict(joined)

"""What the gate measures of a model: replays at fixed seeds, images drawn again, and estimates."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.devices import pick_device
from lsgm.distributed import join
from lsgm.errors import UserError
from lsgm.files.limits import Limit
from lsgm.files.names import shown
from lsgm.generative import GenerativeModel
from lsgm_eval.gate.golden import Golden, Plan
from lsgm_eval.images import ScoredImages, check_pixels, scored_images_of, task_data
from lsgm_eval.likelihood.scores import columns_of
from lsgm_eval.measure.space import Space
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Moments
from lsgm_eval.models import open_model
from lsgm_eval.run.plan import open_networks, open_spaces, task_images
from lsgm_eval.samples.reference import choose
from lsgm_eval.task import Task, Tier, load_task, task_names

Array = NDArray[np.float64]

BATCH = 64
"""Images at a time. No number depends on it but by roundings, which is one way of telling their size."""
STRIDE = 1_000_003
"""Between the seeds of two repeats: a prime above the rows of any split, so that none meets another."""
SUB_PIXELS = 784
"""Sub-pixels that are kept of every drawn image, chosen at random where it has more."""
SAMPLES = Limit("LSGM_LARGEST_SAMPLES", 2**29, "sub-pixels")
"""Of all images that are drawn for a distance, which are held at once."""


@dataclass(frozen=True)
class Subject:
    """A model with the images and the feature spaces that it is measured by."""

    model: GenerativeModel
    images: ScoredImages
    spaces: tuple[Space, ...]
    plan: Plan


def open_subject(
    checkpoint: str, task: str, plan: Plan, *, data: str = "", device: str = "cpu"
) -> tuple[Subject, Task]:
    """Return a checkpoint's model with a task's images and feature spaces.

    ``task`` is a name, ``glyphs@2``, or a TOML file; ``data`` are images in the place of its own. Spaces
    whose networks are not at hand are left out. Raises UserError for an unknown task, one of another version,
    a model of other pixels or without a density, and CheckpointError for what is no checkpoint.
    """
    world = join(pick_device(device))
    if world.size > 1:
        raise UserError("the gate measures in one process: start it without torchrun")
    described = load_task(task)
    if data:
        described = replace(described, dataset=data, levels={})
    model = open_model(checkpoint, device=world.device)
    if not callable(getattr(model, "density", None)):
        raise UserError(f"{model.name} has no density: the gate is for trained models, not for images")
    taken = plan.samples * math.prod(model.pixels.shape)
    SAMPLES.hold(f"the plan, of {plan.samples:,} samples,", taken, UserError)
    images = task_images(described, [model])
    scored = scored_images_of(described, images)
    check_pixels(model, scored)
    spaces: list[Space] = []
    if plan.samples and described.spaces:
        # Distances alone: memorisation would extract every training image.
        distances = tuple(replace(spec, statistics=("frechet", "kernel")) for spec in described.spaces)
        tier = Tier(plan.samples, 2, 0, plan.sampler, reference_images=plan.reference_images)
        networks = open_networks(distances, images.image_shape, world=world)
        measured = task_data(described, images, scores=False)
        spaces, _ = open_spaces(described, tier, measured, networks, world=world)
    return Subject(model, scored, tuple(spaces), plan), described


def identities(subject: Subject) -> dict[str, str]:
    """Return which network and which reference every feature space has, by the space's name."""
    return {
        space.name: f"{space.extractor.name}@{space.extractor.sha256} to {space.reference.sha256}"
        for space in subject.spaces
    }


def task_of(golden: Golden) -> str:
    """Return the task of golden rows, where it is one of the package's.

    Raises UserError where it is not: a task's file may ask for any network and any images, and so it is named
    by who runs the gate, never by a file of golden rows.
    """
    name, _, version = golden.task.partition("@")
    # The name of a task is in front of `mnist@3.toml` too, which is a file.
    if name not in task_names() or not re.fullmatch("[0-9]*", version):
        raise UserError(
            f"the golden rows are of the task {shown(golden.task)[:60]}, which is none of `lsgm ls tasks`: "
            "name its TOML file by --task"
        )
    return golden.task


def require_same(golden: Golden, subject: Subject, task: Task) -> None:
    """Raise UserError unless golden rows are of the same task, data, levels and feature spaces.

    Other weights are no reason: whether their numbers hold is the question.
    """
    images, spaces = subject.images, identities(subject)
    pairs = [
        ("task", golden.task, f"{task.name}@{task.version}"),
        ("dataset", golden.dataset, images.dataset),
        ("split", golden.split, images.split),
        ("levels' sha256", golden.levels_sha256, images.levels_sha256),
        *((f"feature space {name}", text, spaces.get(name)) for name, text in golden.spaces.items()),
    ]
    for what, wanted, found in pairs:
        if wanted != found:
            raise UserError(
                f"the golden rows cannot be checked: their {what} is {wanted} and here it is "
                f"{found or 'not at hand'}; use the data and the version they were written with, or write "
                "them again by --update --reason TEXT"
            )


# The measurements: one that cannot be done costs its own rows and no others


@dataclass(frozen=True)
class Repeat:
    """One measurement of a mean over images, or of a distance."""

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
    estimates: dict[str, Repeat] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    """By the beginnings of the names of the rows that it cost."""

    def why_missing(self, name: str) -> str | None:
        """Return why a row could not be measured, or None where it was not tried."""
        return next((why for prefix, why in self.failures.items() if name.startswith(prefix)), None)


def measure_replays(subject: Subject, into: Measured | None = None, *, batch: int = BATCH) -> Measured:
    """Return the numbers of single images at their own seeds, which nothing but rounding may move.

    ``replay/nelbo/<term>``: every term of the bound; ``replay/flow``: the bound by the probability flow;
    ``replay/images``: sub-pixels of images drawn from seeds 0, 1, ...
    """
    found, plan = into or Measured(), subject.plan

    def bound() -> None:
        config = DensityConfig(draws=plan.replay_draws)
        for name, nats in _scored(subject, config, plan.replay_images, batch).items():
            found.replays[f"replay/nelbo/{name}" if name else "replay/nelbo"] = nats

    def flow() -> None:
        config = DensityConfig("ode", solver="heun", steps=plan.flow_steps)
        found.replays["replay/flow"] = _scored(subject, config, plan.flow_images, batch)[""]

    def images() -> None:
        width = math.prod(subject.model.pixels.shape)
        kept = choose(width, min(SUB_PIXELS, width), 0)
        parts = [levels.flatten(1)[:, kept] for levels in _drawn(subject, range(plan.drawn), batch)]
        found.drawn["replay/images"] = torch.cat(parts).numpy()

    asked: dict[str, Callable[[], None]] = {"replay/nelbo": bound}
    if subject.model.has_prior and plan.flow_images:
        asked["replay/flow"] = flow
    if plan.drawn:
        asked["replay/images"] = images
    return _run(subject, found, asked)


def measure_estimates(subject: Subject, into: Measured | None = None, *, repeat: int = 0) -> Measured:
    """Return bounds and distances with the seeds of one repeat; repeats are independent of one another."""
    found, model, plan = into or Measured(), subject.model, subject.plan
    bounds = {"nelbo_nats": DensityConfig(draws=plan.draws)}
    if not model.has_prior:
        bounds["iw_nats"] = DensityConfig("iw", samples=plan.iw_samples)

    def mean(name: str) -> None:
        shift = (1 + repeat) * STRIDE  # never the replays' own noise
        nats = _scored(subject, bounds[name], plan.images, BATCH, shift)[""]
        found.estimates[name] = Repeat(float(nats.mean()), nats)

    def distances() -> None:
        first = STRIDE + repeat * plan.samples
        images = torch.cat(list(_drawn(subject, range(first, first + plan.samples), BATCH)))
        for space in subject.spaces:
            rows, reference = space.extractor(images).numpy(), space.reference
            frechet = frechet_distance(Moments.of(rows), reference.stats.moments)
            kernel = kernel_distance(rows, reference.stats.rows, within_y=reference.within).value
            found.estimates[space.metric("frechet")] = Repeat(frechet)
            found.estimates[space.metric("kernel")] = Repeat(kernel)

    asked: dict[str, Callable[[], None]] = {name: partial(mean, name) for name in bounds}
    if subject.spaces:
        asked[DISTANCES] = distances
    return _run(subject, found, asked)


DISTANCES = "distances"


def _run(subject: Subject, found: Measured, asked: Mapping[str, Callable[[], None]]) -> Measured:
    """Run measurements, whose names are the beginnings of their rows' names; note why some could not be."""
    for what, measure in asked.items():
        try:
            measure()
        except UserError as error:
            several = [space.metric(family) for space in subject.spaces for family in ("frechet", "kernel")]
            names = several if what == DISTANCES else [what]
            found.failures |= dict.fromkeys(names, " ".join(str(error).split()))
    return found


def _drawn(subject: Subject, seeds: range, batch: int) -> Iterator[Tensor]:
    for start in range(0, len(seeds), batch):
        yield subject.model.sample(list(seeds[start : start + batch]), subject.plan.sampler).images


def _scored(
    subject: Subject, config: DensityConfig, count: int, batch: int, shift: int = 0
) -> dict[str, Array]:
    """Return the terms [N] of the bound of the first images of the split's order; '' is the bound itself."""
    images = subject.images
    rows = images.order[:count].numpy()
    if len(rows) < count:
        raise UserError(
            f"the plan asks for {count:,} images and the split {images.split} has {len(rows):,}: write the "
            "golden rows with fewer --images"
        )
    batches = [rows[start : start + batch] for start in range(0, count, batch)]
    parts = [columns_of(subject.model, images, some, config, shift=shift) for some in batches]
    terms = {name.removeprefix("term_"): name for name in parts[0] if name.startswith("term_")}
    return {
        name: np.concatenate([part[column] for part in parts])
        for name, column in ({"": "nats"} | terms).items()
    }

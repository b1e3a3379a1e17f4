"""What is measured of models under a task: quality, bounds, points of curves; and of two models together."""

from __future__ import annotations

import glob
import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.names import file_name
from lsgm.generative import GenerativeModel
from lsgm.results import Row
from lsgm.results.labels import sampler_name
from lsgm.results.manifest import digest_of
from lsgm.sampling.keep import save_grid
from lsgm.structure import to_dict
from lsgm_eval.cache import CellStore, code_version
from lsgm_eval.cost_curve.points import budget_of, curve_point, expected_nfe, headline_point, one_statistic
from lsgm_eval.images import TaskImages
from lsgm_eval.likelihood.bound import Bound, missing_rows, paired_rows
from lsgm_eval.likelihood.store import METRIC, data_tag
from lsgm_eval.measure.quality import (
    Drawing,
    closed_rows,
    compare_models,
    cost_rows,
    draw,
    neighbours_picture,
    sampling,
    space_rows,
    timing,
    unlike_counts,
)
from lsgm_eval.measure.space import Space
from lsgm_eval.models import packages_of, remark_of
from lsgm_eval.rows import Context
from lsgm_eval.run.runner import Step
from lsgm_eval.samples.gather import Pass
from lsgm_eval.samples.reference import reference_pixels
from lsgm_eval.task import FEWEST, Closed, Images, Method, Task, Tier

Measurement = Literal["quality", "nelbo", "iw", "ode", "curve"]
MEASUREMENTS: tuple[Measurement, ...] = ("quality", "nelbo", "iw", "ode", "curve")
METHODS: tuple[Method, ...] = ("nelbo", "iw", "ode")


@dataclass(frozen=True)
class Evaluation:
    """What the steps of a call share: one task at one tier on some images, some processes, a folder."""

    task: Task
    tier_name: str
    tier: Tier
    data: TaskImages
    spaces: Sequence[Space]
    """Those at hand; none where nothing is drawn, or the task has no feature space."""
    closed: Sequence[Closed]
    """Those whose networks are not at hand."""
    out: Path
    batch_size: int
    world: World
    allow_failures: bool = False
    save: str = ""
    """``png``, ``npz`` or nothing: how the headline's images are kept."""
    images: Images | None = None
    """How many images are drawn where it is not the tier that says so."""
    seed: int | None = None
    """The first of their seeds, likewise."""

    @property
    def draws(self) -> bool:
        """Whether images are drawn at all."""
        return bool(self.spaces or self.closed)

    @property
    def tag(self) -> str:
        """What the names of files that depend on the data end in; nothing where the task names its data."""
        return data_tag(self.task.dataset, self.data.dataset)

    def headline(self, model: GenerativeModel) -> Drawing:
        """Return how the images of the headline's numbers are drawn."""
        name = file_name(model.name)
        images = self.out / "images" / name
        return Drawing(
            drawn_seeds(model, self.tier, self.images),
            self.tier.sampler,
            self.batch_size,
            self.world,
            self.out / "passes" / f"{name}.npz",
            {"": None, "png": images, "npz": images.with_name(f"{name}.npz")}[self.save],
        )

    def training_images(self) -> Tensor:
        """Return the images that a model may have been trained on, whose numbers memorisation tells.

        Raises ValueError where there are none, so that none can be a neighbour.
        """
        rows = self.tier.reference_images or None
        if self.data.images is None or self.data.training_split is None:
            raise ValueError("an evaluation without images has no training images")
        return reference_pixels(self.data.images, self.data.training_split, self.task.binarisation_seed, rows)

    def context(self, model: GenerativeModel, task: str = "") -> Context:
        """Return what rows of a model share, those of drawn images of another number or seed excepted.

        ``task`` is the protocol where it is not the tier's.
        """
        return Context(
            task or self.task.identity(self.tier_name),
            model.name,
            model.sha256,
            self.data.dataset,
            uuid.uuid4().hex[:12],
        )

    def of_drawn(self, context: Context) -> Context:
        """Return what a model's rows of drawn images share: as many as the call asks for, under its name."""
        if self.images is None and self.seed is None:
            return context
        task = self.task.identity(self.tier_name, images=self.images, seed=self.seed)
        return replace(context, task=task)

    def key(
        self, models: Sequence[GenerativeModel], kind: str, settings: Mapping[str, Any]
    ) -> Callable[[], str]:
        """Return what gives the key of a cell: a hash of everything that its rows depend on."""

        def key() -> str:
            packages = set().union(*(packages_of(model) for model in models))
            return digest_of(
                {
                    "kind": kind,
                    "models": [[model.name, model.sha256] for model in models],
                    "task": {**to_dict(self.task), "tiers": self.tier_name},
                    "settings": {**settings, "first_seed": self.tier.first_seed, "save": self.save},
                    "dataset": self.data.dataset,
                    "images": self.images,
                    "spaces": [
                        [space.name, space.reference.sha256, space.extractor.sha256, space.extractor.resize]
                        for space in self.spaces
                    ],
                    "closed": [space.why for space in self.closed],
                    "code": code_version("lsgm", "lsgm_eval", *packages),
                }
            )

        return key


def drawn_seeds(model: GenerativeModel, tier: Tier, images: Images | None) -> range:
    """Return the seeds of the headline's images; with ``all`` those of every ready image.

    Raises UserError where all images are asked of a model, which draws as many as one likes, or are too few.
    """
    if images != "all":
        return range(tier.first_seed, tier.first_seed + tier.n_samples)
    available = getattr(model, "available", None)
    if available is None:
        raise UserError(f"{model.name} draws as many images as one likes: say how many, --images N")
    if available < FEWEST:
        raise UserError(f"{model.name} has {available} images; distances need at least {FEWEST}")
    return range(available)


# Quality: one pass of a model's images through every feature space, and what they cost


def quality_step(model: GenerativeModel, bench: Evaluation, context: Context, *, curve: bool) -> Step:
    """Return the measurement of a model's images; ``curve`` asks for the headline's point of a curve too."""
    tier, how = bench.tier, bench.headline(model)
    name = file_name(model.name)
    grid = bench.out / "samples" / f"{name}.png"
    pairs = bench.out / "neighbours" / f"{name}{bench.tag}.png"
    settings = to_dict(tier.sampler) | {"n": len(how.seeds), "curve": tier.curve_samples}

    def measure() -> list[Row]:
        found = draw(model, bench.spaces, how)
        return bench.world.on_main(lambda: _quality_rows(model, bench, context, found, grid, pairs))

    kind, work = _work(model, tier.sampler, len(how.seeds))
    return Step(
        model.name,
        "quality",
        measure,
        bench.key([model], "quality", settings),
        [model.name],
        lambda row: {"only": ("quality", "curve") if row.group == "curve" else ("quality",)},
        [grid, pairs, *([how.save] if how.save else [])],
        told=lambda rows: [row for row in rows if curve or row.group != "curve"],
        column="quality",
        kind=kind,
        work=work,
    )


def _quality_rows(
    model: GenerativeModel, bench: Evaluation, context: Context, found: Pass, grid: Path, pairs: Path
) -> list[Row]:
    """Return the rows that one pass gives, and write the pictures that belong to them."""
    tier, how = bench.tier, bench.headline(model)
    save_grid(found.preview, grid)
    cost = sampling(model, found, how)
    shared = cost | {"split": bench.data.reference_split}
    note = "; ".join(part for part in (bench.task.note, remark_of(model)) if part)
    rows: list[Row] = []
    for space in bench.spaces:
        told, near = space_rows(context, found.of(space.extractor), space, shared, note)
        rows += told
        if near is not None:
            neighbours_picture(pairs, model, how, near, bench.training_images())
    rows += closed_rows(context, bench.closed, shared)
    rows += cost_rows(context, model, found.nfe, *timing(model, found, how), cost)
    if tier.curve and model.has_prior:
        rows += headline_point(context, found, bench.spaces, shared, tier.curve_samples)
    return rows


def _work(model: GenerativeModel, sampler: SamplerConfig, count: int) -> tuple[str, float]:
    """Return the kind of drawing images, and how much of it that is, in evaluations."""
    if not model.has_prior:
        return "drawing at once", count
    try:
        return "drawing", count * expected_nfe(sampler)
    except UserError:  # a factory's own sampler
        return "drawing", count * sampler.steps


# Bounds on -log P(x): images that were scored before are not scored again


@dataclass(frozen=True)
class Protocol:
    """One method for all models of a call: under which name, and how each model is scored."""

    task: str
    """The task column of the rows, ``mnist@2/full-limit-100``."""
    estimators: tuple[DensityConfig, ...]
    """How each model's likelihood is bounded, all by one method."""
    counts: tuple[int, ...]
    """Images that each model is scored on; 0 where the method is no part of the tier for it."""
    variant: str = ""
    """What sets files of this protocol apart from the tier's own on the task's own images."""
    together: Sequence[str] = ()
    """The models whose presence makes it what it is, where a change that is one for any of them makes it
    another protocol for all; else each row stands for the models that it is about."""
    again: Mapping[str, Any] = field(default_factory=dict)
    """Options that are others in a call for its rows alone."""

    @property
    def method(self) -> str:
        """The method: nelbo, iw or ode."""
        return self.estimators[0].method

    def why_missing(self, model: GenerativeModel, index: int) -> str:
        """Return why a model has no such bound under it, or an empty string where it has one."""
        if not callable(getattr(model, "density", None)):
            return f"{model.name} has no density: it draws images and bounds no likelihood"
        known = getattr(model, "methods", METHODS)
        if self.method not in known:
            return (
                f"{model.name} bounds -log P(x) in one way of its own, which stands as {' and '.join(known)}"
            )
        if self.method == "ode" and not model.has_prior:
            return f"{model.name} has a Normal prior, which has no probability flow: ask for nelbo or iw"
        if self.counts[index] == 0:
            absent = f"{self.method} of {model.name} is no part of {self.task}"
            return f"{absent}: give --limit N, or another --tier"
        return ""


def bound_step(
    model: GenerativeModel, index: int, protocol: Protocol, bench: Evaluation, context: Context
) -> Step:
    """Return the measurement of one model's bound, or of its absence with the reason."""
    method, config = protocol.method, protocol.estimators[index]
    why, scored = protocol.why_missing(model, index), bench.data.scored
    names, again = protocol.together or [model.name], lambda row: protocol.again
    if why or scored is None:
        # Of ready images with a number of their own nothing stands under the tier's name.
        missing = partial(missing_rows, bench.of_drawn(context), config, bench.task.likelihood_split, why)
        return Step(model.name, method, missing, names=names, again=again, finished=missing, column=method)
    bound = Bound(model, scored, config, protocol.counts[index])
    measure = partial(
        bound.measure,
        bench.out,
        context=context,
        batch_size=bench.batch_size,
        world=bench.world,
        allow_failures=bench.allow_failures,
        variant=protocol.variant,
    )
    return Step(
        model.name,
        method,
        measure,
        names=names,
        again=again,
        finished=lambda: measure() if bound.scored_before(bench.out, bench.world) else None,
        column=method,
        kind=bound.kind,
        work=bound.work,
    )


# Points of curves: the distance to the data at one sampler setting


def curve_step(model: GenerativeModel, bench: Evaluation, context: Context, sampler: SamplerConfig) -> Step:
    """Return the measurement of one point of the task's own curve."""
    seeds = range(bench.tier.first_seed, bench.tier.first_seed + bench.tier.curve_samples)
    how = Drawing(seeds, sampler, bench.batch_size, bench.world)
    spaces, split = [space.with_distances() for space in bench.spaces], bench.data.reference_split
    shown = sampler_name(sampler)
    kind, work = _work(model, sampler, len(seeds))
    return Step(
        model.name,
        f"curve {shown}",
        lambda: curve_point(context, model, spaces, how, split),
        bench.key([model], "curve", to_dict(sampler) | {"n": len(seeds), "shown": shown}),
        [model.name],
        lambda row: {"only": ("curve",)},
        column="curve",
        kind=kind,
        work=work,
    )


def point_step(
    model: GenerativeModel, bench: Evaluation, context: Context, point: SamplerConfig, n: int, family: str
) -> Step:
    """Return the measurement of one point of a sweep: ``n`` images by one sampler, and one statistic of them.

    Of a model without a sampler it is its level, whatever the point.
    """
    shown = sampler_name(point)
    name = hashlib.sha256(json.dumps(to_dict(point), sort_keys=True).encode()).hexdigest()[:12]
    state = bench.out / "passes" / f"{file_name(model.name)}-point-{name}.npz"
    seeds = range(bench.tier.first_seed, bench.tier.first_seed + n)
    how = Drawing(seeds, point, bench.batch_size, bench.world, state, overlap=False)

    def measure() -> list[Row]:
        # What is done once, as compiling and reserving memory, is no part of a point's seconds.
        model.sample([seeds[0]], replace(point, steps=min(point.steps, 5)))
        spaces = [one_statistic(space, family) for space in bench.spaces]
        return curve_point(context, model, spaces, how, bench.data.reference_split)

    return Step(
        model.name,
        shown if model.has_prior else "without a sampler",
        measure,
        bench.key([model], "sweep", to_dict(point) | {"n": n, "family": family, "shown": shown}),
        [model.name],
        lambda row: budget_of(point) if model.has_prior else {},
        told=lambda rows: [replace(row, run_id=context.run_id) for row in rows],
        after=lambda: forget(state),
        column="points",
        kind="points" if model.has_prior else "levels",
        work=max(expected_nfe(point), 1.0),
    )


def forget(state: Path) -> None:
    """Remove what a pass has kept to go on from: its numbers are in the cell now."""
    for file in state.parent.glob(f"{glob.escape(state.stem)}*.npz"):
        file.unlink(missing_ok=True)


# Two models: the differences of their bounds, image by image, and of their distances


def pair_step(
    pair: tuple[GenerativeModel, GenerativeModel],
    bench: Evaluation,
    contexts: tuple[Context, Context],
    protocol: Protocol | None = None,
    *,
    quality: bool = False,
) -> Step:
    """Return the differences of two models: of their bounds and, with ``quality``, of their distances.

    Bounds are those of a ``protocol``, or all that are kept of the task's tier.
    """
    methods = METHODS if protocol is None else [protocol.method]
    variant = bench.tag if protocol is None else protocol.variant
    names = [model.name for model in pair]

    def measure() -> list[Row]:
        bounds = partial(
            paired_rows, contexts, bench.out, bench.task.likelihood_split, methods=methods, variant=variant
        )
        rows = bench.world.on_main(bounds)
        return rows + _distances(pair, bench, contexts) if quality and bench.spaces else rows

    def again(row: Row) -> Mapping[str, Any]:
        if protocol is not None:
            return protocol.again
        bound = {f"paired_{name}_nats": method for method, name in METRIC.items()}
        return {"only": (bound.get(row.metric, "quality"),)}

    return Step(
        " - ".join(names),
        "difference" if protocol is None else f"paired {protocol.method}",
        measure,
        names=names if protocol is None else protocol.together or names,
        again=again,
        kind="difference",
    )


def _distances(
    pair: tuple[GenerativeModel, GenerativeModel], bench: Evaluation, contexts: tuple[Context, Context]
) -> list[Row]:
    """Return how two models' distances differ, of what was gathered of their images."""
    counts = [len(bench.headline(model).seeds) for model in pair]
    drawn = bench.of_drawn(contexts[0]), bench.of_drawn(contexts[1])
    split = bench.data.reference_split
    if counts[0] != counts[1]:
        return unlike_counts(*drawn, (counts[0], counts[1]), bench.spaces, split)

    def measure() -> list[Row]:
        a, b = (draw(model, bench.spaces, bench.headline(model)) for model in pair)
        return bench.world.on_main(lambda: compare_models(*drawn, a, b, bench.spaces, split))

    settings = to_dict(bench.tier.sampler) | {"n": counts[0]}
    store = CellStore(bench.out / "cells", bench.world)
    return store.rows(bench.key(pair, "difference", settings), measure)

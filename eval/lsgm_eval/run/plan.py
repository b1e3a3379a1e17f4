"""What a task's numbers are measured with and on: models that fit, images, feature spaces at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from lsgm.data import ImageSet, dataset_names, load
from lsgm.data.registry import DATASETS
from lsgm.data.splits import images_of
from lsgm.distributed import World
from lsgm.errors import ConfigError, DataError, UserError, did_you_mean
from lsgm.files.names import file_name
from lsgm.generative import GenerativeModel, Pixels
from lsgm.progress import say
from lsgm_eval.features.extractor import load_extractor
from lsgm_eval.features.statistics import write_statistics
from lsgm_eval.features.weights import ELSEWHERE
from lsgm_eval.images import TaskImages, check_pixels, task_data
from lsgm_eval.measure.space import Space, measure_space
from lsgm_eval.metrics.moments import FeatureStats, Moments
from lsgm_eval.models import fit
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.reference import (
    Reference,
    all_features,
    extract_together,
    given_reference,
    reference_features,
)
from lsgm_eval.task import Closed, SpaceSpec, Task, Tier

Opened = tuple[list[GenerativeModel], TaskImages, list[Space], list[Closed]]
"""Models, ready images among them as the task's; data; spaces that are at hand, and those that are not."""


def open_task(
    models: Sequence[GenerativeModel],
    task: Task,
    tier: Tier,
    *,
    seeds: Callable[[GenerativeModel], range],
    scores: int,
    draws: bool,
    alone: bool,
    world: World,
    references: Mapping[str, Path] | None = None,
    insist: bool = False,
) -> Opened:
    """Return models, images and feature spaces of a task; networks are looked for before images are read.

    ``seeds`` are those of a model's drawn images, ``scores`` is how many images likelihoods are asked of,
    ``draws`` whether any are drawn, and ``alone`` whether distances are all that is asked for.
    ``references`` are files of reference statistics by the spaces' names: where each space has one and no
    likelihood is asked for, no image of the data is needed and none is looked for; where some have none and
    the data are not here, those are closed. With ``insist`` a space whose network is missing is an error.

    Raises UserError for models of other images than the task's or, without these, than each other, and where
    a split is smaller than the tier asks; DataError for what is missing, and where ``alone`` and no space is
    open.
    """

    def fitted(pixels: Pixels) -> list[GenerativeModel]:
        return [fit(model, pixels, seeds(model).stop, seeds(model).start) for model in models]

    def one_open(networks: Networks) -> Networks:
        opened, closed = networks
        if alone and closed and not opened:
            raise DataError(closed[0].why)
        return networks

    images, why = None, ""
    networks: Networks | None = None
    by_files = bool(draws and references and not scores and models)
    if by_files or (draws and _fit_by_shape(models, task)):
        shape = models[0].pixels.shape
        networks = one_open(open_networks(task.spaces, shape, world=world, insist=insist))
    if by_files and networks and references:
        if {space.name for space in networks[0]} - set(references):
            try:
                images = task_images(task, models)
            except (DataError, ConfigError) as error:
                why = str(error)
        if images is None:
            spaces, closed = one_open(
                open_spaces(task, tier, None, networks, world=world, given=references, why=why)
            )
            theirs = fitted(_common_pixels(models))
            return theirs, _data_of_files(theirs, spaces, references), spaces, closed
    images = images or task_images(task, models, few=not scores)
    data = task_data(task, images, scores=scores > 0)
    split = data.reference_split or ""
    if images.remark and draws and world.main:
        said = f"distances are to {split}, {images_of(len(images.split(split)))}"
        say(f"{task.dataset}: {images.remark}; {said}")
    _check_counts(task, tier, images, split, scores, draws=draws)
    ours = fitted(data.pixels)
    for model in ours:
        check_pixels(model, data)
    if not draws:
        return ours, data, [], []
    networks = networks or open_networks(task.spaces, images.image_shape, world=world, insist=insist)
    return ours, data, *one_open(open_spaces(task, tier, data, networks, world=world, given=references))


def unlike_names(models: Sequence[GenerativeModel]) -> None:
    """Raise UserError where two models bear one name."""
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two models are called '{twice[0]}': name them apart with NAME=PATH")


def task_images(task: Task, models: Sequence[GenerativeModel], *, few: bool = False) -> ImageSet:
    """Return the task's images; those of a folder, a zip or a file at the size of the models'.

    ``few`` is that of `lsgm.data.load`.

    Raises ConfigError for a task without a data set, DataError where the data are not there.
    """
    if not task.dataset:
        raise ConfigError(f"task {task.name} has no data set of its own: name a folder or zip by --data")
    if task.dataset in dataset_names() or not models:
        return load(task.dataset)
    pixels = models[0].pixels
    size = (pixels.height, pixels.width)
    return load(task.dataset, image_size=size, convert=task.convert or "", few=few)


def _fit_by_shape(models: Sequence[GenerativeModel], task: Task) -> bool:
    """Return whether models make images of the shape that the task's will have, unless these are refused."""
    shapes = {model.pixels.shape for model in models}
    known = DATASETS.get(task.dataset)
    return len(shapes) == 1 and (known is None or known.image_shape in shapes)


def _common_pixels(models: Sequence[GenerativeModel]) -> Pixels:
    """Return what images all models make, where there are no data. Raises UserError for unlike ones."""
    first = models[0]
    for model in models:
        if model.pixels.shape != first.pixels.shape:
            shapes = ("x".join(map(str, one.pixels.shape)) for one in (first, model))
            raise UserError(
                f"{first.name} makes {next(shapes)} images and {model.name} {next(shapes)} ones: "
                "measure them one at a time"
            )
    return next((model.pixels for model in models if model.pixels.kind != "binary"), first.pixels)


def _data_of_files(
    models: Sequence[GenerativeModel], spaces: Sequence[Space], references: Mapping[str, Path]
) -> TaskImages:
    """Return what files of statistics say of the images that they are of."""
    said = {space.reference.dataset for space in spaces}
    dataset, _, split = said.pop().partition(" ") if len(said) == 1 else ("", "", "")
    if not dataset:
        digest = hashlib.sha256("".join(space.reference.sha256 for space in spaces).encode()).hexdigest()
        dataset = f"{'+'.join(sorted({path.stem for path in references.values()}))}@statistics@{digest}"
    return TaskImages(dataset, models[0].pixels, split or None)


def _check_counts(
    task: Task, tier: Tier, images: ImageSet, reference: str, scores: int, *, draws: bool
) -> None:
    """Raise UserError where a split is too small for what is measured on it."""
    if draws and len(images.split(reference)) < 2:
        raise UserError(f"{task.dataset} has 1 image: a distance is of sets, give at least 2 images")
    held_out = draws and task.likelihood_split not in reference.split("+")
    for split, wanted in (
        (task.likelihood_split, max(scores, tier.floor_images if held_out else 0)),
        (reference, tier.reference_images if draws else 0),
    ):
        total = len(images.split(split)) if wanted else 0
        if total < wanted:
            raise UserError(
                f"task {task.name}@{task.version} asks for {wanted} images and {task.dataset} has {total} in "
                f"{split}: choose another tier; a protocol never shrinks by itself"
            )


# The feature spaces of a task: networks loaded, references computed, and why any of them is not there

NO_REFERENCE = Reference(FeatureStats(Moments.empty(0), np.empty((0, 0), np.float32)), "")
"""What a process holds that draws and extracts for the first one and measures nothing itself."""


Networks = tuple[list[Space], list[Closed]]
"""Spaces that are at hand, and those that are not with their reasons."""


def open_networks(
    specs: Sequence[SpaceSpec], image_shape: tuple[int, int, int], *, world: World, insist: bool = False
) -> Networks:
    """Return spaces for images (channels, height, width), before anything is known of their references.

    A space is closed where weights that can be fetched are neither here nor reachable, which is raised as
    DataError where ``insist``.
    """
    opened: list[Space] = []
    closed: list[Closed] = []
    for spec in specs:
        try:
            extractor = load_extractor(spec.extractor, image_shape, device=world.device)
            opened.append(Space(spec, extractor, NO_REFERENCE))
        except DataError as error:
            if insist:
                raise
            said = str(error)
            closed.append(Closed(spec, said if said.endswith(ELSEWHERE) else f"{said}; {ELSEWHERE}"))
    return opened, closed


def open_spaces(
    task: Task,
    tier: Tier,
    data: TaskImages | None,
    networks: Networks,
    *,
    world: World,
    given: Mapping[str, Path] | None = None,
    why: str = "",
) -> Networks:
    """Return the spaces with their references, and those that are closed with their reasons.

    ``given`` are files of reference statistics by the spaces' names, used in the place of the data. Without
    ``data`` a space that has no such file is closed, for the reason ``why``. Raises UserError for a space of
    an unknown name in ``given`` and for two spaces of one name.
    """
    known, closed = networks[0], list(networks[1])
    names, given = [space.name for space in known], given or {}
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two feature spaces are called '{name}': give each extractor once")
    # A file for a space that is closed is no slip: what is wrong is said of the space.
    told = [*names, *(each.spec.name or each.spec.extractor for each in closed)]
    for name in given:
        if name not in told:
            hint = did_you_mean(name, told) or f"; they are {', '.join(told) or 'none'}"
            raise UserError(f"there is no feature space '{name}' to take reference statistics for{hint}")
    opened: list[Space] = []
    for space, name in zip(known, names, strict=True):
        if (path := given.get(name)) is not None:
            opened.append(replace(space, reference=given_reference(path, space.extractor)))
        elif data is None or data.images is None:
            closed.append(Closed(space.spec, f"{why}; or give --reference {name}=FILE.npz"))
        else:
            opened.append(_with_reference(space, task, tier, data, data.images, world))
    return opened, closed


def _with_reference(
    space: Space, task: Task, tier: Tier, data: TaskImages, images: ImageSet, world: World
) -> Space:
    """Return one space with its reference, computed from the data.

    Images that are part of the reference are no floor below it: that is left out where a folder has no split
    of its own.
    """
    seed, rows, split = task.binarisation_seed, tier.reference_images or None, data.reference_split or ""
    trained, extractor = data.training_split or split, space.extractor
    training = cache(partial(all_features, images, trained, seed, extractor, rows=rows))
    floor = partial(reference_features, images, task.likelihood_split, seed, extractor)
    held_out = cache(partial(floor, rows=tier.floor_images or None))

    def measure() -> Space:
        if "memorisation" in space.spec.statistics:
            training()  # the same extraction gives the reference
        reference = reference_features(images, split, seed, extractor, rows=rows)
        if rows and rows < (total := len(images.split(split))):
            remark = f"distances to {rows:,} of {total:,} {split} images, drawn at random"
            reference = replace(reference, remark=remark)
        found = replace(space, reference=reference, training=training, held_out=lambda: held_out().stats.rows)
        if not tier.floor_images or split != trained:
            return found
        return replace(found, floor=_floor(found, held_out().stats, task.likelihood_split))

    # The images are extracted by all processes. Rows are made by the first one alone: the others need the
    # network and nothing more.
    together = partial(extract_together, images, seed=seed, extractor=extractor, world=world)
    memorised = "memorisation" in space.spec.statistics
    if memorised:
        together(trained, rows=rows, every=True)
    together(split, rows=rows)
    if memorised or (tier.floor_images and split == trained):
        together(task.likelihood_split, rows=tier.floor_images or None)
    measured: list[Space] = []
    world.on_main(lambda: measured.append(measure()))
    return measured[0] if measured else space


def _floor(space: Space, held_out: FeatureStats, split: str) -> str:
    """Return a remark on how far as many images of the likelihood split are from the reference."""
    findings, _ = measure_space(Gathered(held_out), space.with_distances())
    found = {finding.family: finding.interval for finding in findings}
    frechet, kernel = found.get("frechet"), found.get("kernel")
    parts = [f"Frechet {frechet.value:.3g}"] if frechet else []
    parts += [f"kernel {kernel.value:.2g}"] if kernel else []
    return f"{held_out.moments.count} {split} images are at {', '.join(parts)}"


def export_references(spaces: Sequence[Space], dataset: str, folder: Path) -> None:
    """Write mean and covariance of every space's reference as ``folder/<space>.npz``.

    Raises UserError for a reference that was itself read from a file.
    """
    for space in spaces:
        reference = space.reference
        if not len(reference.stats.rows):
            raise UserError(f"the reference of {space.name} was given as a file: copy that file")
        path = folder / f"{file_name(space.name)}.npz"
        write_statistics(
            path, reference.stats.moments, space.extractor, dataset=dataset, spatial=reference.spatial
        )

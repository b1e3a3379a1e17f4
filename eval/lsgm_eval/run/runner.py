"""Evaluate models under a task: every measurement is a cell that is computed once and reused afterwards."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from lsgm.data import ImageSet, dataset_names, load
from lsgm.data.registry import DATASETS
from lsgm.data.splits import images_of
from lsgm.distributed import World
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.generative import GenerativeModel, Pixels
from lsgm.progress import say
from lsgm.sampling.keep import save_grid
from lsgm_eval.images import TaskImages, check_pixels, task_data
from lsgm_eval.likelihood.bounds import why_missing
from lsgm_eval.live.journal import Journal
from lsgm_eval.measure.space import Space
from lsgm_eval.models.ready import fit
from lsgm_eval.rows import keep_rows
from lsgm_eval.run.evaluation import Evaluation, drawn_seeds
from lsgm_eval.run.spaces import Networks, export_references, open_networks, open_spaces
from lsgm_eval.run.steps import MEASUREMENTS, METHODS, Measurement, steps_of
from lsgm_eval.samples.reference import choose, data_images
from lsgm_eval.spaces import Closed
from lsgm_eval.task import Images, Task, Tier, load_task

__all__ = [
    "MEASUREMENTS",
    "Measurement",
    "Opened",
    "evaluate",
    "open_task",
    "task_images",
    "unlike_names",
]

Row = dict[str, Any]


def evaluate(
    models: Sequence[GenerativeModel],
    task: Task | str,
    tier: str,
    out: Path,
    *,
    only: Sequence[Measurement] = MEASUREMENTS,
    batch_size: int = 250,
    world: World | None = None,
    root: Path | None = None,
    allow_failures: bool = False,
    references: Mapping[str, Path] | None = None,
    insist: bool = False,
    save: Literal["", "png", "npz"] = "",
    export_reference: Path | None = None,
    images: Images | None = None,
    manifest: str | None = None,
    journal: Journal | None = None,
) -> list[Row]:
    """Measure models under one task and return their rows, which ``out/results.jsonl`` holds then.

    A measurement's rows are written as soon as it is finished, and ``journal`` tells of it. Beside the rows
    lie ``samples/*.png``, ``neighbours/*.png``, ``per-image/*.npz``, what was gathered of the images in
    ``passes``, and the finished cells; rows of other models already in the file stay. Interrupted, the same
    call goes on where it was. With ``allow_failures`` images whose likelihood cannot be told are left out,
    which their rows state. ``references`` and ``insist`` are those of `open_task`. With ``save`` all images
    of the headline's numbers are kept below ``out/images``; ``export_reference`` is a folder for the
    references' statistics. ``images`` draws that many in the place of the tier's number, or all of ready
    images, which the rows' task says.

    Raises UserError for models that make other images than the task's, for two models of one name, for too
    few images, and for distances alone of a task without a feature space.
    """
    task = load_task(task) if isinstance(task, str) else task
    world = world or World(0, 1, torch.device("cpu"))
    unlike_names(models)
    wanted = task.tier(tier).drawing(images)
    if not wanted.n_samples and not set(only) & set(METHODS):
        raise UserError(
            f"task {task.identity(tier)} measures likelihoods only: "
            "ask for nelbo, iw or ode, or write a task file with a feature space"
        )
    opened = open_task(
        models, task, wanted,
        seeds=lambda model: drawn_seeds(model, wanted, images),
        scores=_most_scored(models, wanted, only),
        draws=bool(wanted.n_samples and {"quality", "curve"} & set(only)),
        alone=not set(only) & set(METHODS),
        world=world, root=root, references=references, insist=insist,
    )  # fmt: skip
    bench = Evaluation(
        task, tier, wanted, opened.data, opened.spaces, opened.closed,
        Path(out), batch_size, allow_failures, world, save, manifest, images,
    )  # fmt: skip
    if bench.draws and world.main:
        _show_data(bench)
    if export_reference is not None and world.main:
        about = f"{opened.data.dataset} {opened.data.reference_split}"
        export_references(opened.spaces, about, export_reference)
    title = f"lsgm eval {task.identity(tier, images=images)}"
    steps = steps_of(opened.models, bench, only)
    return (journal or Journal()).run(title, steps, lambda rows: _keep(bench, rows))


def unlike_names(models: Sequence[GenerativeModel]) -> None:
    """Raise UserError where two models bear one name."""
    names = [model.name for model in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"two models are called '{twice[0]}': name them apart with --model NAME=PATH")


def task_images(
    task: Task, models: Sequence[GenerativeModel], root: Path | None = None, *, few: bool = False
) -> ImageSet:
    """Return the task's images; those of a folder, a zip or a file at the size of the models'.

    ``few`` is that of `lsgm.data.load`.

    Raises ConfigError for a task without a data set, DataError where the data are not there.
    """
    if not task.dataset:
        raise ConfigError(f"task {task.name} has no data set of its own: name a folder or zip by --data")
    if task.dataset in dataset_names() or not models:
        return load(task.dataset, root=root)
    pixels = models[0].pixels
    size = (pixels.height, pixels.width)
    return load(task.dataset, root=root, image_size=size, convert=task.convert or "", few=few)


def _keep(bench: Evaluation, rows: list[Row]) -> list[Row]:
    return keep_rows(bench.out / "results.jsonl", rows) if bench.world.main else rows


def _show_data(bench: Evaluation) -> None:
    """Write some images of the data, drawn at random, to stand beside the samples."""
    data, seed = bench.data, bench.task.binarisation_seed
    if data.images is not None and data.reference_split is not None:
        shown = data_images(data.images, data.reference_split, seed)
        save_grid(shown[choose(len(shown), 100, seed)], bench.out / "samples" / f"data{bench.tag}.png")


def _most_scored(models: Sequence[GenerativeModel], tier: Tier, only: Sequence[Measurement]) -> int:
    """Return on how many images the bounds that are asked for are measured at most; 0 without any."""
    counts = [
        tier.images_for(method, model.has_prior)
        for model in models
        for method in METHODS
        if method in only and not why_missing(model, method)
    ]
    return max(counts, default=0)


@dataclass(frozen=True)
class Opened:
    """What a task's numbers are measured with and on, all of it found to fit."""

    models: list[GenerativeModel]
    """Ready images among them as the task's."""
    data: TaskImages
    spaces: Sequence[Space]
    closed: Sequence[Closed]


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
    root: Path | None = None,
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
    images, why = None, ""
    networks: Networks | None = None
    by_files = bool(draws and references and not scores and models)
    if by_files or (draws and _fit_by_shape(models, task)):
        networks = open_networks(task.spaces, models[0].pixels.shape, world=world, insist=insist)
        _require_one(networks.opened, networks.closed, alone=alone)
    if by_files and networks and references:
        if set(networks.names) - set(references):
            images, why = _images_if_here(task, models, root)
        if images is None:
            spaces, closed = open_spaces(task, tier, None, networks, world=world, given=references, why=why)
            _require_one(spaces, closed, alone=alone)
            fitted = _fitted(models, _common_pixels(models), seeds)
            return Opened(fitted, _data_of_files(task, fitted, spaces, references), spaces, closed)
    images = images or task_images(task, models, root, few=not scores)
    data = task_data(task, images, scores=scores > 0)
    if images.remark and draws and world.main:
        say(f"{task.dataset}: {images.remark}; distances are to {_reference_words(images, data)}")
    _check_counts(task, tier, images, data, scores, draws=draws)
    fitted = _fitted(models, data.pixels, seeds)
    for model in fitted:
        check_pixels(model, data)
    if not draws:
        return Opened(fitted, data, (), ())
    networks = networks or open_networks(task.spaces, images.image_shape, world=world, insist=insist)
    spaces, closed = open_spaces(task, tier, data, networks, world=world, given=references)
    _require_one(spaces, closed, alone=alone)
    return Opened(fitted, data, spaces, closed)


def _reference_words(images: ImageSet, data: TaskImages) -> str:
    """Return which images of a path distances are measured to, and how many these are."""
    split = data.reference_split or ""
    return f"{split}, {images_of(len(images.split(split)))}"


def _fit_by_shape(models: Sequence[GenerativeModel], task: Task) -> bool:
    """Return whether models make images of the shape that the task's will have, unless these are refused."""
    shapes = {model.pixels.shape for model in models}
    known = DATASETS.get(task.dataset)
    return len(shapes) == 1 and (known is None or known.image_shape in shapes)


def _require_one(opened: Sequence[object], closed: Sequence[Closed], *, alone: bool) -> None:
    """Raise DataError where distances are all that is asked for and no space is open."""
    if alone and closed and not opened:
        raise DataError(closed[0].why)


def _images_if_here(
    task: Task, models: Sequence[GenerativeModel], root: Path | None
) -> tuple[ImageSet | None, str]:
    """Return the task's images, or the sentence that says why they are not at hand."""
    try:
        return task_images(task, models, root), ""
    except (DataError, ConfigError) as error:
        return None, str(error)


def _fitted(
    models: Sequence[GenerativeModel], pixels: Pixels, seeds: Callable[[GenerativeModel], range]
) -> list[GenerativeModel]:
    return [fit(model, pixels, seeds(model).stop, seeds(model).start) for model in models]


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
    grey = [model.pixels for model in models if model.pixels.kind != "binary"]
    return grey[0] if grey else first.pixels


def _data_of_files(
    task: Task, models: Sequence[GenerativeModel], spaces: Sequence[Space], references: Mapping[str, Path]
) -> TaskImages:
    """Return what files of statistics say of the images that they are of."""
    said = {space.reference.dataset for space in spaces}
    dataset, _, split = said.pop().partition(" ") if len(said) == 1 else ("", "", "")
    if not dataset:
        digest = hashlib.sha256("".join(space.reference.sha256 for space in spaces).encode()).hexdigest()
        dataset = f"{'+'.join(sorted({path.stem for path in references.values()}))}@statistics@{digest}"
    return TaskImages(dataset, models[0].pixels, split or None)


def _check_counts(
    task: Task, tier: Tier, images: ImageSet, data: TaskImages, scores: int, *, draws: bool
) -> None:
    """Raise UserError where a split is too small for what is measured on it."""
    if draws and len(images.split(data.reference_split or "")) < 2:
        raise UserError(f"{task.dataset} has 1 image: a distance is of sets, give at least 2 images")
    held_out = draws and task.likelihood_split not in (data.reference_split or "").split("+")
    for split, wanted in (
        (task.likelihood_split, max(scores, tier.floor_images if held_out else 0)),
        (data.reference_split or "", tier.reference_images if draws else 0),
    ):
        total = len(images.split(split)) if wanted else 0
        if total < wanted:
            raise UserError(
                f"task {task.name}@{task.version} asks for {wanted} images and {task.dataset} has {total} in "
                f"{split}: choose another tier; a protocol never shrinks by itself"
            )

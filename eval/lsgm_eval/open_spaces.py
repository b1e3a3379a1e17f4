"""The feature spaces of a task: networks loaded, references computed, and why any of them is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from lsgm.data import ImageSet
from lsgm.distributed import World
from lsgm.errors import DataError, UserError, did_you_mean
from lsgm_eval.extractors import load_extractor
from lsgm_eval.extractors.base import Extractor
from lsgm_eval.features import FeatureStats
from lsgm_eval.measure.quality import as_distances
from lsgm_eval.measure.space import Gathered, Space, measure_space
from lsgm_eval.moments import Moments
from lsgm_eval.reference import Reference, all_features, given_reference, reference_features
from lsgm_eval.spaces import Closed, SpaceSpec
from lsgm_eval.statistics_file import write_statistics
from lsgm_eval.tasks import Task, Tier

__all__ = ["export_references", "open_spaces"]

NO_REFERENCE = Reference(FeatureStats(Moments.empty(0), np.empty((0, 0), np.float32)), "")
"""What a process holds that draws and extracts for the first one and measures nothing itself."""
ELSEWHERE = "or take a distance in another network's features, never called FID: --extractor export:FILE.pt2"


def open_spaces(
    task: Task,
    tier: Tier,
    images: ImageSet,
    *,
    world: World,
    given: Mapping[str, Path] | None = None,
    insist: bool = False,
) -> tuple[list[Space], list[Closed]]:
    """Return the task's spaces that can be opened, and the others with their reasons.

    A space is closed where weights that can be fetched are neither here nor reachable. ``given`` are files of
    reference statistics by the spaces' names, used in the place of the data. Raises what is missing as
    DataError where ``insist``, or where no space is left; UserError for a space of an unknown name in
    ``given`` and for two spaces of one name.
    """
    opened: list[Space] = []
    closed: list[Closed] = []
    for spec in task.spaces:
        try:
            extractor = load_extractor(spec.extractor, images.image_shape, device=world.device)
        except DataError as error:
            if insist:
                raise
            closed.append(Closed(spec, f"{error}; {ELSEWHERE}"))
            continue
        opened.append(_space(task, tier, images, spec, extractor, world, given or {}))
    # A file for a space that is closed is no slip: what is wrong is said of the space.
    _check_names(
        [space.name for space in opened], [s.spec.name or s.spec.extractor for s in closed], given or {}
    )
    return opened, closed


def export_references(spaces: Sequence[Space], dataset: str, folder: Path) -> list[Path]:
    """Write mean and covariance of every space's reference as ``folder/<space>.npz`` and return the files.

    Raises UserError for a reference that was itself read from a file.
    """
    paths = []
    for space in spaces:
        if not len(space.reference.stats.rows):
            raise UserError(f"the reference of {space.name} was given as a file: copy that file")
        path = folder / f"{space.name}.npz"
        reference = space.reference
        write_statistics(
            path, reference.stats.moments, space.extractor, dataset=dataset, spatial=reference.spatial
        )
        paths.append(path)
    return paths


def _check_names(names: Sequence[str], closed: Sequence[str], given: Mapping[str, Path]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two feature spaces are called '{name}': give each extractor once")
    for name in given:
        if name not in (known := [*names, *closed]):
            hint = did_you_mean(name, known) or f"; they are {', '.join(known) or 'none'}"
            raise UserError(f"there is no feature space '{name}' to take reference statistics for{hint}")


def _space(
    task: Task,
    tier: Tier,
    images: ImageSet,
    spec: SpaceSpec,
    extractor: Extractor,
    world: World,
    given: Mapping[str, Path],
) -> Space:
    """Return one space with its reference, from a file where one is given."""
    name = Space(spec, extractor, NO_REFERENCE).name
    if (path := given.get(name)) is not None:
        return Space(spec, extractor, given_reference(path, extractor))
    seed, rows = task.binarisation_seed, tier.reference_images or None
    training = cache(partial(all_features, images, task.reference_split, seed, extractor, rows=rows))
    held_out = cache(
        partial(
            reference_features, images, task.likelihood_split, seed, extractor, rows=tier.floor_images or None
        )
    )

    def measure() -> Space:
        if "memorisation" in spec.statistics:
            training()  # the same extraction gives the reference
        reference = reference_features(images, task.reference_split, seed, extractor, rows=rows)
        if rows:
            remark = f"distances to {rows:,} {task.reference_split} images drawn at random"
            reference = replace(reference, remark=remark)
        space = Space(spec, extractor, reference, "", training, lambda: held_out().stats.rows)
        if not tier.floor_images:
            return space
        return replace(space, floor=_floor(space, held_out().stats, task.likelihood_split))

    # Rows are made of a pass by the first process alone: the others need the network and nothing more.
    measured: list[Space] = []
    world.on_main(lambda: measured.append(measure()))
    return measured[0] if measured else Space(spec, extractor, NO_REFERENCE)


def _floor(space: Space, held_out: FeatureStats, split: str) -> str:
    """Return a remark on how far as many images of the likelihood split are from the reference."""
    findings, _ = measure_space(Gathered(held_out), as_distances(space))
    found = {finding.family: finding.interval for finding in findings}
    frechet, kernel = found.get("frechet"), found.get("kernel")
    parts = [f"Frechet {frechet.value:.3g}"] if frechet else []
    parts += [f"kernel {kernel.value:.2g}"] if kernel else []
    return f"{held_out.moments.count} {split} images are at {', '.join(parts)}"

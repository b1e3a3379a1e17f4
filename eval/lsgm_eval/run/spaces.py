"""The feature spaces of a task: networks loaded, references computed, and why any of them is not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from lsgm.data import ImageSet
from lsgm.distributed import World
from lsgm.errors import DataError, UserError, did_you_mean
from lsgm.files.names import file_name
from lsgm_eval.features.extractor import Extractor, load_extractor
from lsgm_eval.features.statistics import write_statistics
from lsgm_eval.features.weights import ELSEWHERE
from lsgm_eval.images import TaskImages
from lsgm_eval.measure.space import Space, measure_space
from lsgm_eval.metrics.moments import FeatureStats, Moments
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.reference import Reference, all_features, given_reference, reference_features
from lsgm_eval.spaces import Closed, SpaceSpec
from lsgm_eval.task import Task, Tier

__all__ = ["Networks", "export_references", "open_networks", "open_spaces"]

NO_REFERENCE = Reference(FeatureStats(Moments.empty(0), np.empty((0, 0), np.float32)), "")
"""What a process holds that draws and extracts for the first one and measures nothing itself."""


@dataclass(frozen=True)
class Networks:
    """The networks of a task's spaces, before anything is known of what is measured to."""

    opened: Sequence[tuple[SpaceSpec, Extractor]]
    closed: Sequence[Closed]

    @property
    def names(self) -> list[str]:
        """The names of the spaces that are open."""
        return [Space(spec, extractor, NO_REFERENCE).name for spec, extractor in self.opened]


def open_networks(
    specs: Sequence[SpaceSpec], image_shape: tuple[int, int, int], *, world: World, insist: bool = False
) -> Networks:
    """Return the networks of spaces for images (channels, height, width).

    A space is closed where weights that can be fetched are neither here nor reachable, which is raised as
    DataError where ``insist``.
    """
    opened: list[tuple[SpaceSpec, Extractor]] = []
    closed: list[Closed] = []
    for spec in specs:
        try:
            opened.append((spec, load_extractor(spec.extractor, image_shape, device=world.device)))
        except DataError as error:
            if insist:
                raise
            said = str(error)
            closed.append(Closed(spec, said if said.endswith(ELSEWHERE) else f"{said}; {ELSEWHERE}"))
    return Networks(opened, closed)


def open_spaces(
    task: Task,
    tier: Tier,
    data: TaskImages | None,
    networks: Networks,
    *,
    world: World,
    given: Mapping[str, Path] | None = None,
    why: str = "",
) -> tuple[list[Space], list[Closed]]:
    """Return the spaces with their references, and those that are closed with their reasons.

    ``given`` are files of reference statistics by the spaces' names, used in the place of the data. Without
    ``data`` a space that has no such file is closed, for the reason ``why``. Raises UserError for a space of
    an unknown name in ``given`` and for two spaces of one name.
    """
    given, closed = given or {}, list(networks.closed)
    # A file for a space that is closed is no slip: what is wrong is said of the space.
    _check_names(networks.names, [s.spec.name or s.spec.extractor for s in closed], given)
    opened: list[Space] = []
    for (spec, extractor), name in zip(networks.opened, networks.names, strict=True):
        if (path := given.get(name)) is not None:
            opened.append(Space(spec, extractor, given_reference(path, extractor)))
        elif data is None or data.images is None:
            closed.append(Closed(spec, f"{why}; or give --reference {name}=FILE.npz"))
        else:
            opened.append(_space(task, tier, data, data.images, spec, extractor, world))
    return opened, closed


def export_references(spaces: Sequence[Space], dataset: str, folder: Path) -> list[Path]:
    """Write mean and covariance of every space's reference as ``folder/<space>.npz`` and return the files.

    Raises UserError for a reference that was itself read from a file.
    """
    paths = []
    for space in spaces:
        if not len(space.reference.stats.rows):
            raise UserError(f"the reference of {space.name} was given as a file: copy that file")
        path = folder / f"{file_name(space.name)}.npz"
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
    data: TaskImages,
    images: ImageSet,
    spec: SpaceSpec,
    extractor: Extractor,
    world: World,
) -> Space:
    """Return one space with its reference, computed from the data.

    Images that are part of the reference are no floor below it: that is left out where a folder has no split
    of its own.
    """
    seed, rows, split = task.binarisation_seed, tier.reference_images or None, data.reference_split or ""
    trained = data.training_split or split
    training = cache(partial(all_features, images, trained, seed, extractor, rows=rows))
    held_out = cache(
        partial(
            reference_features, images, task.likelihood_split, seed, extractor, rows=tier.floor_images or None
        )
    )

    def measure() -> Space:
        if "memorisation" in spec.statistics:
            training()  # the same extraction gives the reference
        reference = reference_features(images, split, seed, extractor, rows=rows)
        if rows and rows < (total := len(images.split(split))):
            remark = f"distances to {rows:,} of {total:,} {split} images, drawn at random"
            reference = replace(reference, remark=remark)
        space = Space(spec, extractor, reference, "", training, lambda: held_out().stats.rows)
        if not tier.floor_images or split != trained:
            return space
        return replace(space, floor=_floor(space, held_out().stats, task.likelihood_split))

    # Rows are made of a pass by the first process alone: the others need the network and nothing more.
    measured: list[Space] = []
    world.on_main(lambda: measured.append(measure()))
    return measured[0] if measured else Space(spec, extractor, NO_REFERENCE)


def _floor(space: Space, held_out: FeatureStats, split: str) -> str:
    """Return a remark on how far as many images of the likelihood split are from the reference."""
    findings, _ = measure_space(Gathered(held_out), space.with_distances())
    found = {finding.family: finding.interval for finding in findings}
    frechet, kernel = found.get("frechet"), found.get("kernel")
    parts = [f"Frechet {frechet.value:.3g}"] if frechet else []
    parts += [f"kernel {kernel.value:.2g}"] if kernel else []
    return f"{held_out.moments.count} {split} images are at {', '.join(parts)}"

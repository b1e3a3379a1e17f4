"""What all models of one evaluation are measured with, and where finished measurements are kept."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.errors import UserError
from lsgm.files.names import file_name
from lsgm.generative import GenerativeModel
from lsgm.structure import to_dict
from lsgm_eval.cache import CellStore, cell_key, code_version
from lsgm_eval.images import TaskImages
from lsgm_eval.likelihood.rows import data_tag
from lsgm_eval.measure.quality import Drawing
from lsgm_eval.measure.space import Space
from lsgm_eval.models.open import packages_of
from lsgm_eval.rows import Context
from lsgm_eval.samples.reference import reference_pixels
from lsgm_eval.spaces import Closed
from lsgm_eval.task import FEWEST, Images, Task, Tier

__all__ = ["Evaluation", "drawn_seeds"]

Row = dict[str, Any]


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


@dataclass(frozen=True)
class Evaluation:
    """One task at one tier on some images, by some processes, into one folder."""

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
    allow_failures: bool
    world: World
    save: str
    """``png``, ``npz`` or nothing: how the headline's images are kept."""
    manifest: str | None = None
    """Of the call, for its rows."""
    images: Images | None = None
    """How many images are drawn where it is not the tier that says so."""

    @property
    def cells(self) -> CellStore:
        """Finished measurements of earlier calls."""
        return CellStore(self.out / "cells")

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

    def point(self, model: GenerativeModel, sampler: SamplerConfig) -> Drawing:
        """Return how the images of a point of the NFE curve are drawn."""
        seeds = range(self.tier.first_seed, self.tier.first_seed + self.tier.curve_samples)
        return Drawing(seeds, sampler, self.batch_size, self.world)

    def context(self, model: GenerativeModel) -> Context:
        """Return what all rows of a model share, those of other numbers of images excepted."""
        return Context(
            self.task.identity(self.tier_name),
            model.name,
            model.sha256,
            self.data.dataset,
            uuid.uuid4().hex[:12],
            self.manifest,
        )

    def of_drawn(self, context: Context) -> Context:
        """Return what a model's rows of drawn images share: as many as the call asks for, under its name."""
        return replace(context, task=self.task.identity(self.tier_name, images=self.images))

    def cell(
        self,
        models: Sequence[GenerativeModel],
        kind: str,
        settings: dict[str, Any],
        measure: Callable[[], list[Row]],
        files: Sequence[Path] = (),
    ) -> list[Row]:
        """Return the rows of one cell, from the store where nothing that it depends on has changed.

        All processes take part in ``measure``. A cell stands as long as those of ``files`` that it wrote.
        """
        key = self.world.on_main(lambda: self._key(models, kind, settings))
        rows = self.world.on_main(lambda: self.cells.get(key))
        if rows is None:
            found = rows = measure()
            self.world.on_main(lambda: self.cells.put(key, found, [file for file in files if file.exists()]))
        return rows

    def finished(
        self, models: Sequence[GenerativeModel], kind: str, settings: dict[str, Any]
    ) -> list[Row] | None:
        """Return the rows of a cell that is in the store, or None."""
        return self.world.on_main(lambda: self.cells.get(self._key(models, kind, settings)))

    def _key(self, models: Sequence[GenerativeModel], kind: str, settings: dict[str, Any]) -> str:
        packages = set().union(*(packages_of(model) for model in models))
        return cell_key(
            {
                "kind": kind,
                "models": [[model.name, model.sha256] for model in models],
                "task": {**to_dict(self.task), "tiers": self.tier_name},
                "settings": settings | {"first_seed": self.tier.first_seed, "save": self.save},
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

"""The datasets of the authors' code by its names: shape, padding, and what hangs on them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.values import Arguments

__all__ = ["Images", "images_of"]

Levels = tuple[tuple[int, ...], ...]

_FACES: Levels = ((1, 1, 1), (1, 2, 2, 2), (1, 1, 2, 2, 2))


@dataclass(frozen=True)
class Images:
    """A dataset: its name or path here, its images, and the score network's levels that go with it."""

    dataset: str
    channels: int
    side: int
    """Height and width without padding."""
    pad: int
    binary: bool
    flip: bool
    levels: Levels
    """Channel multipliers of the score network, which the authors' code fixes by dataset; where there are
    several, the number of scales chooses."""
    train: int | None
    """Training images, None where there is no agreed number."""

    @property
    def named(self) -> bool:
        """Whether the dataset is one of `lsgm data ls`, not a folder that the user brings."""
        return not self.dataset.startswith("./")

    def multipliers(self, args: Arguments) -> tuple[int, ...]:
        """Return the channel multipliers of the score network's levels. Raises CheckpointError."""
        scales = args.whole("num_scales_dae")
        if len(self.levels) == 1 and 1 <= scales <= len(self.levels[0]):
            return self.levels[0][:scales]  # the authors' code leaves out the lowest resolutions
        for levels in self.levels:
            if len(levels) == scales:
                return levels
        known = " or ".join(str(len(levels)) for levels in self.levels)
        known = known if len(self.levels) > 1 else f"at most {known}"
        raise CheckpointError(
            f"the checkpoint's argument 'num_scales_dae' is {scales}, and the authors' code has {known} "
            f"levels for '{args.values['dataset']}'; its model cannot be built here"
        )

    def steps(self, args: Arguments, epochs: int) -> int | None:
        """Return the optimiser steps of ``epochs``: every process sees whole batches of its share alone."""
        if self.train is None:
            return None
        processes = args.whole("num_proc_node", 1) * args.whole("num_process_per_node", 1)
        batch = args.whole("batch_size")
        if min(processes, batch) < 1:
            raise CheckpointError(
                f"the checkpoint's argument 'batch_size' is {batch} on {processes} processes; give the file "
                "as the authors' code wrote it"
            )
        return epochs * (math.ceil(self.train / processes) // batch)


_IMAGES = {
    "mnist": Images("mnist", 1, 28, 2, True, False, ((1, 1),), 60_000),
    "omniglot": Images("omniglot", 1, 28, 2, True, False, ((1, 1, 1),), 24_345),
    "cifar10": Images("cifar10", 3, 32, 0, False, True, ((1, 1, 1),), 50_000),
    "celeba_256": Images("celebahq256", 3, 256, 0, False, True, _FACES, 27_000),
    "ffhq": Images("./ffhq", 3, 256, 0, False, True, _FACES, None),
    "lsun_church_256": Images("./lsun_church_256", 3, 256, 0, False, True, _FACES, None),
}


def images_of(args: Arguments) -> Images:
    """Return the images that a model was trained on. Raises CheckpointError for a dataset without levels."""
    return args.choice("dataset", _IMAGES)

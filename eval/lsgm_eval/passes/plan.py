"""What is gathered of images on their way: for each extractor, accumulators that merge and can be kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.errors import UserError
from lsgm_eval.extractors.base import Classifies, Extractor, Spatial
from lsgm_eval.features import Collector
from lsgm_eval.inception_score import SPLITS, ClassSums

__all__ = ["Accumulator", "Accumulators", "Branch", "branches", "class_sums"]


class Accumulator(Protocol):
    """Sums over images that do not depend on how these come: by which batches, processes or interruptions."""

    def add(self, features: NDArray[Any], index: NDArray[np.int64]) -> None:
        """Take the features [B, D] of the images whose numbers in the whole pass are ``index`` [B]."""
        ...

    def merge(self, other: Self) -> None:
        """Take everything that another accumulator has seen, of other images."""
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return named arrays from which `load` makes the same sums; they hold until the next `add`."""
        ...

    def load(self, state: dict[str, NDArray[Any]]) -> None:
        """Take what `state` returned in place of everything seen so far. Raises DataError for all else."""
        ...

    def holds(self, numbers: NDArray[np.int64]) -> bool:
        """Return whether what has been seen is the images numbered ``numbers`` [N], each once."""
        ...


Accumulators = Callable[[Extractor, int], Mapping[str, Accumulator]]
"""From an extractor and the number of images of the whole pass to accumulators of its pooled features."""


def class_sums(extractor: Extractor, count: int) -> dict[str, Accumulator]:
    """Return {"classes": ClassSums} of an extractor that classifies, by which the Inception Score comes free.

    Empty for other extractors, and for fewer images than the score has splits.
    """
    if not isinstance(extractor, Classifies) or count < SPLITS:
        return {}

    def logits(features: NDArray[Any]) -> Tensor:
        return extractor.class_logits(torch.from_numpy(features))

    return {"classes": ClassSums(count, logits=logits)}


@dataclass(frozen=True)
class Branch:
    """One extractor, and all that is gathered of what it makes of the images."""

    extractor: Extractor
    features: Collector
    spatial: Collector | None
    """Moments of the spatial features, where the extractor has them (sFID, arXiv:2103.03841)."""
    others: Mapping[str, Accumulator]

    def take(self, images: Tensor, index: NDArray[np.int64]) -> NDArray[np.float32]:
        """Extract once, give every accumulator its rows of the images uint8 [B, C, H, W], and return them.

        What is returned are the pooled features [B, D].
        """
        if self.spatial is not None and isinstance(self.extractor, Spatial):
            pooled, spatial = self.extractor.with_spatial(images)
            self.spatial.add(spatial, index)
        else:
            pooled = self.extractor(images)
        features = np.asarray(pooled)
        self.features.add(features, index)
        for accumulator in self.others.values():
            accumulator.add(features, index)
        return features

    def parts(self) -> dict[str, Accumulator]:
        """Return all accumulators by names under which their states can lie in one file."""
        spatial: dict[str, Accumulator] = {} if self.spatial is None else {"spatial": self.spatial}
        return {"features": self.features, **spatial, **{f"other-{k}": v for k, v in self.others.items()}}


def branches(extractors: Sequence[Extractor], count: int, accumulators: Accumulators) -> dict[str, Branch]:
    """Return an empty branch for each extractor, by its name, for a pass of ``count`` images.

    Raises UserError for two extractors of one name, whose numbers could not be told apart.
    """
    found: dict[str, Branch] = {}
    for extractor in extractors:
        if extractor.name in found:
            raise UserError(f"two extractors are called '{extractor.name}': give each feature space once")
        found[extractor.name] = Branch(
            extractor,
            Collector(extractor.dim),
            Collector(extractor.spatial_dim) if isinstance(extractor, Spatial) else None,
            accumulators(extractor, count),
        )
    return found

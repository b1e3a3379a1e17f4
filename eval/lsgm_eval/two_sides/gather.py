"""Features of both sides of a comparison: each through every network once, kept in the cache by content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lsgm.config import SamplerConfig
from lsgm.distributed import World
from lsgm.files.cache import cache_dir
from lsgm.structure import to_dict
from lsgm_eval.cells import cell_key
from lsgm_eval.code_version import code_version
from lsgm_eval.extractors.base import Extractor
from lsgm_eval.features import FeatureStats
from lsgm_eval.measure.quality import Drawing
from lsgm_eval.measure.space import Gathered
from lsgm_eval.model_specs import packages_of
from lsgm_eval.passes import Pass, run_pass
from lsgm_eval.reference import Reference, given_reference
from lsgm_eval.statistics_file import read_statistics
from lsgm_eval.two_sides.side import Side

__all__ = ["Taken", "as_reference", "as_samples", "take"]


@dataclass(frozen=True)
class Taken:
    """A side, which of its images were taken, and what the networks made of them."""

    side: Side
    numbers: NDArray[np.int64]
    """Empty where there are statistics alone."""
    found: Pass | None
    how: Drawing
    seed: int
    """Of the subset."""

    @property
    def sha256(self) -> str:
        """Hash of the very images that were taken."""
        return hashlib.sha256(f"{self.side.sha256} ".encode() + self.numbers.tobytes()).hexdigest()

    def said(self) -> str:
        """Return what must be said beside numbers of a subset, or an empty string."""
        total = self.side.total
        if total is None or len(self.numbers) == total or not len(self.numbers):
            return ""
        return (
            f"{len(self.numbers):,} of the {total:,} images of {self.side.name}, a uniform subset drawn with "
            f"seed {self.seed}"
        )


def take(
    side: Side,
    numbers: NDArray[np.int64],
    extractors: Sequence[Extractor],
    *,
    sampler: SamplerConfig,
    batch_size: int,
    world: World,
    seed: int,
) -> Taken:
    """Return the features of the images ``numbers`` of a side; nothing is extracted of statistics alone.

    What is gathered lies in the cache under the images' content, the networks and the code, so that the same
    call again extracts nothing, and an interrupted one goes on.
    """
    seeds = numbers.tolist()
    # Of ready images a sampler decides nothing, and must not part what is kept of them.
    how = Drawing(seeds, sampler if side.draws else SamplerConfig(), batch_size, world)
    if side.model is None or not extractors:
        return Taken(side, numbers[:0], None, how, seed)
    key = cell_key(
        {
            "model": side.model.sha256,
            "numbers": hashlib.sha256(numbers.tobytes()).hexdigest(),
            "sampler": to_dict(how.sampler),
            "extractors": [[net.name, net.sha256, net.resize] for net in extractors],
            "code": code_version("lsgm", "lsgm_eval", *packages_of(side.model)),
        }
    )
    found = run_pass(
        side.model,
        seeds,
        how.sampler,
        extractors,
        batch_size=batch_size,
        state_path=cache_dir() / "passes" / f"{key[:32]}.npz",
        world=world,
        accumulators=lambda *_: {},
    )
    return Taken(side, numbers, found, how, seed)


def as_reference(taken: Taken, extractor: Extractor, applies: bool) -> Reference:
    """Return a side as the reference in one space; ``applies`` says whether its statistics are of it."""
    remark = "; ".join(part for part in (taken.side.remark, taken.said()) if part)
    found, path = taken.found, taken.side.statistics if applies else None
    if found is None:
        assert path is not None
        return given_reference(path, extractor)
    stats, spatial = found.stats[extractor.name], found.spatial.get(extractor.name)
    if path is None:
        return Reference(stats, taken.sha256, spatial.moments if spatial else None, remark)
    given = given_reference(path, extractor)
    both = f"Frechet distances to the file's mu and sigma, all else to its {len(taken.numbers):,} images"
    return replace(
        given,
        stats=FeatureStats(given.stats.moments, stats.rows),
        remark="; ".join(part for part in (given.remark, both, remark) if part),
    )


def as_samples(taken: Taken, extractor: Extractor, applies: bool) -> Gathered:
    """Return a side as samples in one space; ``applies`` says whether its statistics are of it."""
    found = Gathered.of(taken.found, extractor) if taken.found is not None else None
    if taken.side.statistics is None or not applies:
        assert found is not None
        return found
    known = read_statistics(taken.side.statistics, extractor)
    rows = found.stats.rows if found is not None else np.empty((0, extractor.dim), np.float32)
    empty = np.empty((0, 0), np.float32)
    spatial = FeatureStats(known.spatial, empty) if known.spatial is not None else None
    return Gathered(FeatureStats(known.moments, rows), spatial, None, known.count is not None)

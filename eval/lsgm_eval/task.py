"""Tasks: what is measured on which images, as named, versioned data (`suites/*.toml`)."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from lsgm.config import DensityConfig, SamplerConfig, parse_convert, require, require_seeds
from lsgm.discovery import offers, package_folder
from lsgm.errors import ConfigError, UserError, did_you_mean
from lsgm.files.limits import Limit
from lsgm.files.names import shown
from lsgm.files.text import read_toml
from lsgm.results.metrics import DISTANCES, official_spaces, require_statistic
from lsgm.sampling import check_options
from lsgm.structure import from_dict

Method = Literal["nelbo", "iw", "ode"]
FEWEST = 40
"""Images of which a distance is told."""
DRAWN = Limit("LSGM_MOST_IMAGES", 10**7, "images")
"""Drawn under a task. A tier asks for 50,000 at most so far."""
Images = int | Literal["all"]
"""How many images are drawn in the place of a tier's number; all that there are, of ready images."""


@dataclass(frozen=True)
class SpaceSpec:
    """A feature space of a task, and what is measured in it."""

    extractor: str
    """As on the command line: ``inception``, ``inception-clean``, ``export:FILE.pt2``, ``torchscript:FILE``,
    ``dinov2:DIR`` or ``glyphs``."""
    name: str = ""
    """What follows the family in the names of its metrics (empty: the extractor's own name)."""
    statistics: tuple[str, ...] = DISTANCES

    def __post_init__(self) -> None:
        require(bool(self.extractor), "a feature space needs an extractor, such as 'inception'")
        require(
            bool(self.statistics), f"nothing is measured in the space of {self.extractor}: name a statistic"
        )
        for statistic in self.statistics:
            require_statistic(statistic)
        require(
            not (self.name and {self.extractor, self.name} & official_spaces()),
            f"the space of {self.extractor} cannot be called '{self.name}': FID is that of its own network",
        )


@dataclass(frozen=True)
class Closed:
    """A space whose network is not at hand, and the sentence that says which file is missing."""

    spec: SpaceSpec
    why: str


@dataclass(frozen=True)
class Tier:
    """How much is measured. Tiers are different protocols: their numbers are never mixed."""

    n_samples: int
    """Images drawn for the distances and the costs; 0 where the task measures likelihoods only."""
    nelbo_images: int
    """Images of the likelihood split scored by the score-matching bound, drawn at random."""
    ode_images: int
    """Images scored by the probability flow, a random part of those above; 0 leaves it out."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    """The sampler of the headline distances and costs."""
    nelbo: DensityConfig = field(default_factory=DensityConfig)
    """Draws of t per image."""
    ode: DensityConfig = field(default_factory=lambda: DensityConfig(method="ode"))
    """Tolerances and probes of the probability flow."""
    first_seed: int = 0
    """Samples have the seeds first_seed, first_seed + 1, ..."""
    curve_samples: int = 0
    """Images of every point of the NFE curve, all of one number because of the Frechet distance's bias."""
    curve: tuple[SamplerConfig, ...] = ()
    """The points of the NFE curve besides the headline sampler, whose first images give one as well."""
    reference_images: int = 0
    """Images of the reference split that distances are measured to, drawn at random; 0 takes all of them."""
    floor_images: int = 0
    """Images of the likelihood split measured like samples, to show what distance real new data have."""
    iw_images: int = 0
    """Images scored by the importance-weighted bound of a Normal prior; 0 leaves it out."""
    iw: DensityConfig = field(default_factory=lambda: DensityConfig(method="iw", samples=50))
    """Its draws per image: each costs a pass of the decoder."""
    iw_flow_images: int = 0
    """Images scored by the importance-weighted bound of a prior with a flow; 0 leaves it out."""
    iw_flow: DensityConfig = field(default_factory=lambda: DensityConfig(method="iw", samples=5))
    """Its draws per image: each costs a solve of the probability flow."""

    def __post_init__(self) -> None:
        for name in ("n_samples", "curve_samples", "reference_images", "floor_images"):
            count = getattr(self, name)
            require(count >= 0, f"{name.replace('_', '-')} is {count}; it cannot be negative")
        most = DRAWN.value
        require(
            self.n_samples <= most,
            f"n-samples is {self.n_samples}, and at most {most:,} images are drawn; if that is meant, set "
            f"{DRAWN.variable}={self.n_samples}",
        )
        require_seeds(self.first_seed, self.n_samples, "first-seed")
        require(
            self.n_samples == 0 or self.n_samples >= FEWEST,
            f"n-samples is {self.n_samples}; distances need at least {FEWEST} images, or 0 to leave them out",
        )
        require(
            self.reference_images == 0 or self.reference_images >= FEWEST,
            f"reference-images is {self.reference_images}; distances need at least {FEWEST}, or 0 for all",
        )
        require(self.nelbo_images >= 2, f"nelbo-images is {self.nelbo_images}; an error needs at least 2")
        for name, count in (
            ("ode-images", self.ode_images),
            ("iw-images", self.iw_images),
            ("iw-flow-images", self.iw_flow_images),
        ):
            require(0 <= count <= self.nelbo_images, f"{name} must lie in 0 .. nelbo-images")
            require(count != 1, f"{name} is 1; an error needs at least 2")
        require(self.nelbo.method == "nelbo", "nelbo.method must be 'nelbo'")
        require(self.ode.method == "ode", "ode.method must be 'ode'")
        require(self.iw.method == "iw", "iw.method must be 'iw'")
        require(self.iw_flow.method == "iw", "iw-flow.method must be 'iw'")
        require(
            not self.curve or FEWEST <= self.curve_samples <= min(self.n_samples, 10_000),
            "curve-samples must lie in 40 .. min(n-samples, 10000)",
        )
        require(self.sampler not in self.curve, "the headline sampler is a point of the curve already")

    def drawing(self, images: Images | None, first_seed: int | None = None) -> Tier:
        """Return the tier with another number of drawn images, from another seed on.

        A curve's points are of no more images than that. Raises ConfigError for too few of them, a seed that
        cannot be, and where the tier draws none.
        """
        for given, option in ((images, "--images"), (first_seed, "--first-seed")):
            require(
                given is None or self.n_samples > 0,
                f"the task measures likelihoods only and draws no images: leave {option} out",
            )
        if images is None and first_seed is None:
            return self
        if images == "all":
            require(first_seed is None, "--images all takes every ready image: leave --first-seed out")
            return self
        count = self.n_samples if images is None else images
        require(
            images is None or count >= FEWEST, f"images is {count}; distances need at least {FEWEST} images"
        )
        points, seed = min(self.curve_samples, count), self.first_seed if first_seed is None else first_seed
        return replace(self, n_samples=count, curve_samples=points, first_seed=seed)

    def other_seed(self, first_seed: int | None) -> int | None:
        """Return the first seed where it is not the tier's own, None where it is."""
        return None if first_seed == self.first_seed else first_seed

    def config_for(self, method: Method, has_prior: bool) -> DensityConfig:
        """Return how a bound is estimated for a model with a diffusion (``has_prior``) or a Normal prior."""
        if method == "iw":
            return self.iw_flow if has_prior else self.iw
        return self.ode if method == "ode" else self.nelbo

    def images_for(self, method: Method, has_prior: bool) -> int:
        """Return how many images a bound is measured on; 0 leaves it out."""
        if method == "iw":
            return self.iw_flow_images if has_prior else self.iw_images
        return self.ode_images if method == "ode" else self.nelbo_images


@dataclass(frozen=True)
class Task:
    """A dataset, the splits and seeds that fix its images, and the feature space of its distances."""

    name: str
    version: int
    summary: str
    dataset: str
    spaces: tuple[SpaceSpec, ...] = ()
    """The feature spaces of sample quality; none where likelihoods alone are measured."""
    tiers: dict[str, Tier] = field(default_factory=dict)
    reference_split: str = "train"
    """Distances are measured to this split."""
    likelihood_split: str = "test"
    """Likelihoods are measured on this split."""
    binarisation_seed: int = 0
    """Seed of the one binarisation of both splits, where pixels are binary."""
    bits: int | None = None
    """Bits per sub-pixel whose likelihood is measured, the upper ones (None: the dataset's own)."""
    levels: dict[str, str] = field(default_factory=dict)
    """Dataset sha256 -> sha256 of the levels of the likelihood split that it must give."""
    note: str = ""
    """Printed with every distance."""
    convert: str | None = None
    """What is allowed for images by path that are not plain greyscale or RGB (`lsgm.data.imagefile`)."""

    def __post_init__(self) -> None:
        for what, name in (("the task", self.name), *(("a tier", name) for name in self.tiers)):
            # Folders and rows are named after both, `name@version/tier`.
            plain = bool(name.strip()) and name.isprintable() and not name.startswith((".", "-"))
            require(
                plain and not set(name) & set("/\\@"),
                f"{what} cannot be called '{shown(name)[:60]}': give letters, numerals and dashes",
            )
        require(self.bits is None or 1 <= self.bits <= 8, f"bits is {self.bits}; give 1 to 8")
        parse_convert(self.convert or "")
        for name, tier in self.tiers.items():
            require(
                bool(self.spaces) or tier.n_samples == tier.floor_images == 0,
                f"tier {name} asks for distances and the task has no feature space: add [[spaces]] with an "
                "extractor, or set n-samples and floor-images to 0",
            )

    def tier(self, name: str) -> Tier:
        """Return a tier. Raises ConfigError for an unknown one."""
        if name not in self.tiers:
            hint = did_you_mean(name, self.tiers) or f"; it has {', '.join(self.tiers)}"
            raise ConfigError(f"task {self.name}@{self.version} has no tier '{name}'{hint}")
        return self.tiers[name]

    def identity(
        self,
        tier: str,
        *,
        limit: int | None = None,
        custom: bool = False,
        images: Images | None = None,
        seed: int | None = None,
    ) -> str:
        """Return ``glyphs@2/quick``, the task column of a result row.

        Fewer scored images than the tier's (``limit``), another number of drawn ones (``images``), another
        first seed of these (``seed``) and other settings of the estimator (``custom``) are other protocols:
        ``glyphs@2/full-limit-100``, ``glyphs@2/quick-images-500``, ``glyphs@2/quick-images-all``,
        ``glyphs@2/quick-seed-1000``, ``glyphs@2/quick-custom``.
        """
        fewer = "" if limit is None else f"-limit-{limit}"
        drawn = "" if images is None else f"-images-{images}"
        drawn += "" if seed is None else f"-seed-{seed}"
        return f"{self.name}@{self.version}/{tier}{fewer}{drawn}{'-custom' * custom}"


def _shipped() -> dict[str, Path]:
    """Return the files of installed tasks by name: ours, then those of other packages (`lsgm.suites`)."""
    found: dict[str, Path] = {}
    suites = offers("lsgm.suites")
    for name in sorted(suites, key=lambda name: (name != "eval", name)):
        folder = package_folder(suites[name].value)
        for file in sorted(folder.glob("*.toml")) if folder else ():
            found.setdefault(file.stem, file)
    return found


def task_names() -> tuple[str, ...]:
    """Return the names of the installed tasks."""
    return tuple(sorted(_shipped()))


def load_task(name: str) -> Task:
    """Return the task ``glyphs``, ``glyphs@2``, or that of a TOML file of one's own.

    Raises UserError for an unknown name or another version, ConfigError for a file that is no TOML, and for a
    key or value that is wrong.
    """
    if name.endswith(".toml"):
        if not os.path.lexists(name):
            raise UserError(f"cannot read the task {name} (there is none): give a TOML file")
        return _task(read_toml(Path(name), ConfigError, "give the TOML file of a task"), name)
    plain, _, version = name.partition("@")
    shipped = _shipped()
    if plain not in shipped:
        hint = did_you_mean(plain, shipped) or f"; the tasks are {', '.join(sorted(shipped))}"
        raise UserError(f"unknown task '{plain}'{hint}")
    task = _task(read_toml(shipped[plain], ConfigError), f"suites/{plain}.toml")
    if version and version != str(task.version):
        raise UserError(
            f"task {plain} is at version {task.version} here, not {version}: its numbers are not comparable; "
            f"ask for {plain}@{task.version} or install the release that has {plain}@{version}"
        )
    return task


def _task(mapping: dict[str, Any], where: str) -> Task:
    task = from_dict(Task, mapping, where)
    for name, tier in task.tiers.items():
        for sampler in (tier.sampler, *tier.curve):
            check_options(sampler, f"{where}: in [tiers.{name}] a sampler's ")
    return task

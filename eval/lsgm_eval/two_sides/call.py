"""Two sets of images, or their statistics, in one call, with all that is told beside their distances."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lsgm.config import SamplerConfig, require
from lsgm.devices import pick_device
from lsgm.distributed import World, join
from lsgm.errors import UserError, did_you_mean
from lsgm.progress import aligned
from lsgm.results import Row
from lsgm.results.files import keep_rows
from lsgm.results.metrics import family_of
from lsgm_eval.features.statistics import UNKNOWN_COUNT
from lsgm_eval.measure.quality import closed_rows, sampling, space_rows
from lsgm_eval.measure.space import Space
from lsgm_eval.rows import Context
from lsgm_eval.run.manifest import write_manifest
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.reference import Reference
from lsgm_eval.task import Task, Tier
from lsgm_eval.two_sides.networks import Network, open_networks, size_remark
from lsgm_eval.two_sides.sides import Side, SideLike, Taken, as_reference, as_samples, open_side, take

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Counts", "Distances", "Number", "Settings", "compare", "fid"]

VERSION = 1
"""Of the protocol: rows of another one do not compare."""
MOMENTS = ("frechet", "spatial_frechet")
"""What is told of all images; the rest is of the rows of features that are kept."""


@dataclass(frozen=True)
class Settings:
    """How many images are taken, and how."""

    images: int | None = None
    """Of either side a uniform subset of so many, or so many drawn (None: all)."""
    reference_images: int | Literal["all"] | None = None
    """The same of the reference alone (None: as of the samples)."""
    seed: int = 0
    """Of the subsets."""
    extractor: tuple[str, ...] = ()
    batch_size: int = 64
    first_seed: int = 0
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        for name in ("images", "reference_images"):
            count = getattr(self, name)
            wrong = isinstance(count, int) and count < 2
            require(not wrong, f"{name.replace('_', '-')} is {count}; a distance needs at least 2 images")
        require(self.batch_size >= 1, f"batch-size is {self.batch_size}; it must be at least 1")
        require(self.first_seed >= 0, f"first-seed is {self.first_seed}; it cannot be negative")

    @property
    def of_reference(self) -> int | None:
        """How many images of the reference are taken; None for all."""
        chosen = self.images if self.reference_images is None else self.reference_images
        return None if chosen == "all" else chosen

    @property
    def tier(self) -> str:
        """What tells the protocol of a row from others."""
        if self.images is None and self.of_reference is None:
            return "all"
        parts = [f"images-{self.images or 'all'}"]
        if self.of_reference != self.images:
            parts.append(f"reference-{self.of_reference or 'all'}")
        return "-".join(parts + ([f"seed-{self.seed}"] if self.seed else []))


@dataclass(frozen=True)
class Counts:
    """How many images of how many a number is of, on either side; None where a file does not say."""

    samples: int | None
    samples_of: int | None
    """How many there are; None where a model draws as many as are wanted."""
    reference: int | None
    reference_of: int | None


@dataclass(frozen=True)
class Number:
    """A metric with its 95 % interval; ``value`` is None where ``note`` says why it cannot be told."""

    metric: str
    value: float | None
    low: float | None
    high: float | None
    counts: Counts
    note: str


@dataclass(frozen=True)
class Distances:
    """All numbers of one comparison, by their names: ``found["fid"].value``.

    ``rows`` are those that `lsgm fid --out` writes; ``not_measured`` says which feature spaces are not at
    hand and why.
    """

    reference: str
    samples: str
    numbers: tuple[Number, ...]
    rows: tuple[Row, ...]
    not_measured: tuple[str, ...] = ()

    def __getitem__(self, metric: str) -> Number:
        """Return the number of that name. Raises UserError, which names those that there are."""
        found = next((number for number in self.numbers if number.metric == metric), None)
        if found is None:
            names = [number.metric for number in self.numbers]
            hint = did_you_mean(metric, names) or f"; there are {', '.join(names)}"
            raise UserError(f"no '{metric}' was measured{hint}")
        return found

    @property
    def value(self) -> float:
        """The first distance: FID by torch-fidelity's protocol, unless others were asked for.

        Raises UserError where nothing could be told, with the reason.
        """
        found = next((number.value for number in self.numbers if number.value is not None), None)
        if found is None:
            raise UserError(self.numbers[0].note if self.numbers else "nothing was measured")
        return found

    def row(self) -> dict[str, Any]:
        """Return all numbers flat: ``fid``, ``fid_low``, ``fid_high``, ..., and the counts of the first."""
        counts = self.numbers[0].counts
        flat: dict[str, Any] = {
            "reference": self.reference,
            "samples": self.samples,
            "n": counts.samples,
            "n_of": counts.samples_of,
            "reference_n": counts.reference,
            "reference_n_of": counts.reference_of,
        }
        for number in self.numbers:
            flat |= {
                number.metric: number.value,
                f"{number.metric}_low": number.low,
                f"{number.metric}_high": number.high,
            }
        return flat

    def frame(self) -> pd.DataFrame:
        """Return `row` as a frame of one row, for `pandas.concat`."""
        import pandas as pd

        return pd.DataFrame([self.row()])

    def table(self) -> list[str]:
        """Return aligned lines: metric, value, interval, and the images of either side."""
        cells = [("metric", "value", "95 % interval", "samples", "reference")]
        for number in self.numbers:
            value = "-" if number.value is None else f"{number.value:.5g}"
            interval = "" if number.low is None else f"{number.low:.5g} .. {number.high:.5g}"
            counts = number.counts
            cells.append(
                (
                    number.metric,
                    value,
                    interval,
                    _count(counts.samples, counts.samples_of),
                    _count(counts.reference, counts.reference_of),
                )
            )
        return aligned(cells)

    def notes(self) -> list[str]:
        """Return what must be said: of all numbers once, then of each."""
        parts = {number.metric: number.note.split("; ") for number in self.numbers if number.note}
        shared = [
            part
            for part in next(iter(parts.values()), [])
            if len(parts) == len(self.numbers) and all(part in others for others in parts.values())
        ]
        own = {name: [p for p in dict.fromkeys(said) if p not in shared] for name, said in parts.items()}
        lines = [f"{name}: {'; '.join(said)}" for name, said in own.items() if said]
        return [*dict.fromkeys(shared), *lines]


def fid(
    reference: SideLike,
    samples: SideLike,
    *,
    images: int | None = None,
    reference_images: int | Literal["all"] | None = None,
    seed: int = 0,
    extractor: str | Sequence[str] = (),
    batch_size: int = 64,
    device: str | torch.device = "auto",
    first_seed: int = 0,
    sampler: SamplerConfig | None = None,
    convert: str = "",
) -> Distances:
    """Return FID and its relatives between a reference and samples, as ``lsgm fid`` prints them.

    Either side is what the command takes (a folder, zip, npz or npy of images, a run or checkpoint, a data
    set and split such as ``cifar10:train``, an npz of mu and sigma), or images in memory, uint8 [N, C, H, W].

    Args:
        reference: What is compared with.
        samples: What is measured: the intervals are of these images' scatter, with the reference fixed.
        images: Of either side a uniform subset of so many, named by ``seed``; of a model so many are drawn.
        reference_images: The same of the reference alone, ``"all"`` for all of its images.
        seed: Of the subsets.
        extractor: Names of feature spaces as on the command line (default: both Inception protocols).
        batch_size: Images at a time; no number depends on it but for rounding.
        device: Where networks run.
        first_seed: Of the images that a model draws.
        sampler: By which it draws them.
        convert: Words that allow files which are not plain 8-bit greyscale or RGB, as ``"grey,alpha"``.

    Raises:
        UserError: what is said of sides that cannot be opened or compared, and of weights that are missing.
    """
    words = (extractor,) if isinstance(extractor, str) else tuple(extractor)
    settings = Settings(
        images, reference_images, seed, words, batch_size, first_seed, sampler or SamplerConfig()
    )
    world = join(pick_device(str(device)))
    theirs = open_side(reference, device=world.device, name="reference", convert=convert)
    ours = open_side(samples, device=world.device, name="samples", convert=convert)
    return compare(theirs, ours, settings, world)


def compare(
    reference: Side,
    samples: Side,
    settings: Settings,
    world: World,
    *,
    out: Path | None = None,
    command: Sequence[str] = (),
) -> Distances:
    """Return the numbers of two sides; with ``out`` their rows and ``command``'s manifest are written there.

    Raises UserError as `fid` does.
    """
    reference, samples = reference.beside(samples), samples.beside(reference)
    drawn = settings.sampler != SamplerConfig() or settings.first_seed
    require(
        not drawn or reference.draws or samples.draws,
        "neither side is a model that draws images: leave the sampler and --first-seed out",
    )
    chosen = [
        side.numbers(count, settings.seed, settings.first_seed)
        for side, count in ((reference, settings.of_reference), (samples, settings.images))
    ]
    networks, closed = open_networks(settings.extractor, reference, samples, world.device)
    theirs, ours = (
        take(
            side,
            numbers,
            [network.extractor for network in networks],
            sampler=settings.sampler,
            batch_size=settings.batch_size,
            world=world,
            seed=settings.seed,
        )
        for side, numbers in zip((reference, samples), chosen, strict=True)
    )
    task = _task(reference, networks)
    manifest = None
    if out is not None and world.main:
        sides = (reference, samples)
        models = {side.word: side.model for side in sides if side.model is not None and not side.identity}
        manifest = write_manifest(
            out, command, models, task, settings.tier, reference.identity or None, device=world.device
        )
    job = _Measuring(theirs, ours, settings, task, manifest)
    numbers, rows = [], []
    for network in networks if world.main else ():
        found, made = job.measure(network)
        numbers += found
        rows += made
    if out is not None and world.main:
        keep_rows(out / "results.jsonl", rows + closed_rows(job.context, closed, {"n": None}))
    why = tuple(f"{space.spec.extractor}: {space.why}" for space in closed)
    return Distances(reference.name, samples.name, tuple(numbers), tuple(rows), why)


class _Measuring:
    """Two sides whose features are known, and what all rows of them share."""

    def __init__(
        self, reference: Taken, samples: Taken, settings: Settings, task: Task, manifest: str | None
    ) -> None:
        self.reference, self.samples, self.settings = reference, samples, settings
        dataset = reference.side.identity or f"{reference.side.name}@images@{reference.sha256}"
        self.context = Context(
            task.identity(settings.tier),
            samples.side.name,
            samples.side.sha256,
            dataset,
            uuid.uuid4().hex[:12],
            manifest,
        )

    def measure(self, network: Network) -> tuple[list[Number], list[Row]]:
        """Return the numbers in one space, and their rows."""
        reference = as_reference(self.reference, network.extractor, network.reference)
        gathered = as_samples(self.samples, network.extractor, network.samples)
        space = Space(network.spec, network.extractor, reference)
        sides = self.reference.side, self.samples.side
        remarks = [self.samples.side.remark, self.samples.said(), size_remark(network.extractor, *sides)]
        if self.samples.found is not None and self.samples.sha256 == self.reference.sha256:
            remarks.append("both sides are the same images, which a kernel distance takes for two samples")
        note = "; ".join(part for part in remarks if part)
        rows, _ = space_rows(self.context, gathered, space, self._shared(gathered), note)
        return [self._number(row, network, gathered, reference) for row in rows], rows

    def _shared(self, gathered: Gathered) -> dict[str, Any]:
        """Return the fields of a row on how the samples came to be."""
        split = self.reference.side.split
        if self.samples.found is None or self.samples.side.model is None:
            return {"n": gathered.stats.moments.count if gathered.counted else None, "split": split}
        fields = sampling(self.samples.side.model, self.samples.found, self.samples.how)
        if fields["n_of"] is not None:
            fields["seeds"] = None  # those of a subset are no span
        return fields | {"split": split}

    def _number(self, row: Row, network: Network, found: Gathered, reference: Reference) -> Number:
        """Return a row as a number, with the images that it is of."""
        moments = family_of(row.metric) in MOMENTS
        sides = (
            (self.samples, found.stats, network.samples),
            (self.reference, reference.stats, network.reference),
        )
        counts = [
            count
            for taken, stats, statistics in sides
            for count in _counted(
                taken, stats.moments.count, len(stats.rows), moments=moments, statistics=statistics
            )
        ]
        value, low, high = row.value, row.ci_low, row.ci_high
        return Number(row.metric, value, low, high, Counts(*counts), row.note or "")


def _counted(
    taken: Taken, count: int, rows: int, *, moments: bool, statistics: bool
) -> tuple[int | None, int | None]:
    """Return how many images of how many a number is of, on one side; (None, None) where a file keeps it."""
    if statistics and moments:
        return (None, None) if count >= UNKNOWN_COUNT else (count, count)
    if taken.found is None:
        return None, None
    return len(taken.numbers) if moments else rows, taken.side.total


def _task(reference: Side, networks: Sequence[Network]) -> Task:
    """Return the protocol as a task, whose name rows and manifests carry."""
    return Task(
        "fid",
        VERSION,
        "two sets of images, or their statistics, by lsgm fid",
        dataset=reference.identity.partition("@")[0] or reference.name,
        spaces=tuple(network.spec for network in networks),
        tiers={"all": Tier(n_samples=0, nelbo_images=2, ode_images=0)},
        reference_split=reference.split or "",
    )


def _count(n: int | None, of: int | None) -> str:
    if n is None:
        return "unknown"
    if of is None:
        return f"{n:,}"
    return f"all {n:,}" if n == of else f"{n:,} of {of:,}"

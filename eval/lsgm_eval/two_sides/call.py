"""Two sets of images, or their statistics, in one call, with all that is told beside their distances."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from lsgm.config import SamplerConfig, require
from lsgm.devices import pick_device
from lsgm.distributed import World, join
from lsgm.errors import UserError, did_you_mean
from lsgm.files.names import spelt
from lsgm.progress import aligned
from lsgm.results import Row
from lsgm.results.files import keep_rows
from lsgm.results.metrics import family_of
from lsgm_eval.features.statistics import UNKNOWN_COUNT
from lsgm_eval.measure.quality import closed_rows, sampling, space_rows
from lsgm_eval.measure.space import Space
from lsgm_eval.rows import Context, value_cells
from lsgm_eval.run.manifest import describe_call, write_manifest
from lsgm_eval.task import Task, Tier
from lsgm_eval.two_sides.sides import Network, SideLike, Taken, open_networks, open_side, size_remark, take

if TYPE_CHECKING:
    import pandas as pd

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
        cells: list[tuple[str, ...]] = [("metric", "value", "95 % interval", "samples", "reference")]
        for number in self.numbers:
            told, counts = value_cells(number.value, number.low, number.high), number.counts
            sides = (counts.samples, counts.samples_of), (counts.reference, counts.reference_of)
            cells.append((number.metric, *told, *(_count(*side) for side in sides)))
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
    return compare(reference, samples, settings, join(pick_device(str(device))), convert=convert)


def compare(
    first: SideLike,
    second: SideLike,
    settings: Settings,
    world: World,
    *,
    convert: str = "",
    out: Path | None = None,
    command: Sequence[str] = (),
    again: Sequence[str] = (),
) -> Distances:
    """Return the numbers of a reference and samples; with ``out`` their rows are written there.

    Their manifest says that ``command`` was typed, and that ``again`` makes the rows once more. Raises
    UserError as `fid` does.
    """
    theirs = open_side(first, device=world.device, name="reference", convert=convert)
    ours = open_side(second, device=world.device, name="samples", convert=convert)
    reference, samples = theirs.beside(ours), ours.beside(theirs)
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
    taken = [
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
    ]
    task = Task(
        "fid",
        VERSION,
        "two sets of images, or their statistics, by lsgm fid",
        dataset=reference.identity.partition("@")[0] or reference.name,
        spaces=tuple(network.spec for network in networks),
        tiers={"all": Tier(n_samples=0, nelbo_images=2, ode_images=0)},
        reference_split=reference.split or "",
    )
    manifest = None
    if out is not None and world.main:
        sides = (reference, samples)
        models = {side.word: side.model for side in sides if side.model is not None and not side.identity}
        dataset = reference.identity or None
        about = describe_call(command, models, task, settings.tier, dataset, world.device)
        manifest = write_manifest(out, replace(about, again=tuple(map(spelt, again))))
    context = Context(
        task.identity(settings.tier),
        samples.name,
        samples.sha256,
        reference.identity or f"{reference.name}@images@{taken[0].sha256}",
        uuid.uuid4().hex[:12],
        manifest,
    )
    found = [
        pair for network in networks if world.main for pair in _measured(context, network, taken[0], taken[1])
    ]
    rows = [row for row, _ in found]
    if out is not None and world.main:
        keep_rows(out / "results.jsonl", rows + closed_rows(context, closed, {"n": None}))
    why = tuple(f"{space.spec.extractor}: {space.why}" for space in closed)
    return Distances(reference.name, samples.name, tuple(number for _, number in found), tuple(rows), why)


def _measured(context: Context, network: Network, theirs: Taken, ours: Taken) -> Iterator[tuple[Row, Number]]:
    """Yield what is measured in one space: rows, and the same with the images of either side."""
    reference = theirs.as_reference(network.extractor, network.reference)
    gathered = ours.as_samples(network.extractor, network.samples)
    remarks = [ours.side.remark, ours.said, size_remark(network.extractor, theirs.side, ours.side)]
    if ours.found is not None and ours.sha256 == theirs.sha256:
        remarks.append("both sides are the same images, which a kernel distance takes for two samples")
    if ours.found is None or ours.side.model is None:
        shared: dict[str, Any] = {"n": gathered.stats.moments.count if gathered.counted else None}
    else:
        shared = sampling(ours.side.model, ours.found, ours.how)
        if shared["n_of"] is not None:
            shared["seeds"] = None  # those of a subset are no span
    shared["split"] = theirs.side.split
    space = Space(network.spec, network.extractor, reference)
    sides = (ours, gathered.stats, network.samples), (theirs, reference.stats, network.reference)
    for row in space_rows(context, gathered, space, shared, "; ".join(filter(None, remarks)))[0]:
        moments = family_of(row.metric) in MOMENTS
        counts: list[int | None] = []
        for taken, stats, file in sides:
            count = stats.moments.count
            if file and moments:  # nobody knows how many where the file does not say
                counts += [None, None] if count >= UNKNOWN_COUNT else [count, count]
            elif taken.found is None:
                counts += [None, None]
            else:
                counts += [len(taken.numbers) if moments else len(stats.rows), taken.side.total]
        yield row, Number(row.metric, row.value, row.ci_low, row.ci_high, Counts(*counts), row.note or "")


def _count(n: int | None, of: int | None) -> str:
    if n is None:
        return "unknown"
    if of is None:
        return f"{n:,}"
    return f"all {n:,}" if n == of else f"{n:,} of {of:,}"

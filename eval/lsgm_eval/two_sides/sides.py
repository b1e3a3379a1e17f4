"""Both sides of a comparison (images, a model that draws, a split, or statistics), and networks for them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, dataset_names, load, test_levels
from lsgm.data.registry import DATASETS
from lsgm.data.splits import subset
from lsgm.distributed import World
from lsgm.errors import DataError, UserError, did_you_mean
from lsgm.files.regular import listed, open_regular
from lsgm.files.write import cache_dir
from lsgm.generative import GenerativeModel, Pixels
from lsgm.results.manifest import digest_of
from lsgm.runs.checkpoint import located
from lsgm.structure import to_dict
from lsgm_eval.cache import code_version
from lsgm_eval.features.extractor import Extractor, ImageShape, check_spec, load_extractor
from lsgm_eval.features.statistics import read_statistics, space_of, statistics_in
from lsgm_eval.features.weights import CLEAN_INCEPTION, FIDELITY_INCEPTION, joined
from lsgm_eval.measure.quality import Drawing
from lsgm_eval.metrics.moments import FeatureStats
from lsgm_eval.models import (
    ImageModel,
    MemoryImages,
    check_name,
    from_array,
    is_run,
    is_source,
    open_model,
    open_source,
    packages_of,
)
from lsgm_eval.samples.collect import Gathered
from lsgm_eval.samples.gather import Pass, run_pass
from lsgm_eval.samples.reference import Reference, given_reference
from lsgm_eval.task import Closed, SpaceSpec

SideLike = str | Path | Tensor | NDArray[Any]
KINDS = (
    "a folder, zip, npz or npy of images, a run directory or checkpoint, a data set and split such as "
    "cifar10:train, or an npz of mu and sigma"
)


@dataclass(frozen=True)
class Side:
    """What one side is, before it is known how many of its images are taken."""

    name: str
    """What tables call it."""
    model: GenerativeModel | None
    """Its images, where there are any."""
    statistics: Path | None = None
    """Its mean and covariance, where it is a file of them; there may be images in the same file."""
    total: int | None = None
    """How many images there are; None where a model draws as many as are wanted."""
    split: str | None = None
    remark: str = ""
    """What must be said beside every number that it is used for."""
    identity: str = ""
    """``name@version@sha256`` of a data set."""
    word: str = ""
    """By which it was named."""
    in_grey: Callable[[], Side] | None = None
    """The same images before they were binarised, where they were."""

    @property
    def pixels(self) -> Pixels | None:
        """The kind of its images; None of statistics alone."""
        return None if self.model is None else self.model.pixels

    @property
    def sha256(self) -> str:
        """Hash of what its images are made of, or of the file of statistics."""
        if self.model is not None:
            return self.model.sha256
        with open_regular(cast(Path, self.statistics)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of its images."""
        return None if self.pixels is None else self.pixels.shape

    @property
    def draws(self) -> bool:
        """Whether a model draws its images."""
        return self.model is not None and self.total is None

    def beside(self, other: Side) -> Side:
        """Return this side in grey values where the other has them, to which bits do not compare."""
        grey = other.pixels is not None and other.pixels.kind != "binary"
        return self.in_grey() if self.in_grey is not None and grey else self

    def numbers(self, images: int | None, seed: int, first_seed: int) -> NDArray[np.int64]:
        """Return which images are taken: all, a uniform subset of ``images``, or the seeds that are drawn.

        None are of statistics alone. Raises UserError where a model is not told how many to draw, or where
        there are fewer than asked for.
        """
        if self.model is None:
            return np.arange(0)
        if self.total is not None and self.total < 2:
            raise UserError(f"{self.name} has 1 image: a distance is of sets, give at least 2 images")
        if self.total is None:
            if images is None:
                raise UserError(
                    f"{self.name} draws its images: say how many by --images N (the protocol of published "
                    "numbers is 50,000)"
                )
            return np.arange(first_seed, first_seed + images)
        if images is not None and images > self.total:
            raise UserError(
                f"{self.name} has {self.total:,} images and {images:,} are asked for: a protocol never "
                "shrinks by itself, ask for fewer or leave the number out"
            )
        return subset(self.total, self.total if images is None else images, seed)


def open_side(
    what: SideLike, *, device: torch.device | str = "cpu", name: str = "", convert: str = ""
) -> Side:
    """Return the side that a word, a path or an array names; ``name`` is that of an array.

    ``convert`` are words of `lsgm.data.imagefile` for files that are not plain. A word may be ``NAME=PATH``.
    Raises UserError for a word that leads nowhere, and whatever the reader of images, runs or statistics says
    of a damaged one.
    """
    if not isinstance(what, str | Path):
        return _ready(ImageModel(from_array(what, name or "array"), name or "array"))
    return replace(_named(what, device, convert), word=str(what))


def _named(what: str | Path, device: torch.device | str, convert: str) -> Side:
    word = str(what)
    if not word:
        raise UserError(f"a side is named by an empty word: give {KINDS}")
    if isinstance(what, str) and (split := _dataset(word)) is not None:
        return split
    called, equals, rest = word.partition("=")
    named = bool(equals) and "/" not in called and not Path(word).exists()
    if named:
        check_name(called)
    path = located(Path(rest if named else word).expanduser())
    if path.suffix.lower() == ".npz" and path.is_file() and (held := statistics_in(path)):
        label = called if named else path.stem
        return _ready(open_source(path, label, convert), path) if "arr_0" in held else Side(label, None, path)
    if is_source(path) and path.exists():
        return _ready(open_source(path, called if named else None, convert))
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is none of what can be measured: give {KINDS}")
    if not path.exists() and ("/" in word or ":" not in (rest if named else word)):
        raise UserError(f"{path} does not exist: give {KINDS}")
    if path.is_dir() and not (is_run(path) or path.name.startswith("step-")):
        if listed(path, "*"):
            return _ready(open_source(path, None, convert))  # which says what is there instead of images
        raise UserError(f"{path} holds neither images nor a checkpoint: give {KINDS}")
    model = open_model(word, device=device)
    return Side(model.name, model, remark=getattr(model, "remark", ""))


def _ready(images: ImageModel, statistics: Path | None = None) -> Side:
    lossy, how, total = images.images.lossy, getattr(images.images, "how", ""), len(images)
    said = [f"files of {images.name} are converted: {how}"] if how else []
    if lossy:
        said.append(
            f"{lossy:,} of the {total:,} files of {images.name} are JPEG or lossy WebP, whose artefacts move "
            "distances"
        )
    model = cast(GenerativeModel, images)
    return Side(images.name, model, statistics, total, remark="; ".join(said))


def _dataset(word: str) -> Side | None:
    """Return the side of ``cifar10:train``; None for a word that is no data set's."""
    name, colon, split = word.partition(":")
    if Path(word).expanduser().exists() or "/" in name:
        return None
    if name not in dataset_names():
        hint = did_you_mean(name, dataset_names())
        if colon and hint and "." not in name and "=" not in name:
            raise UserError(f"there is no data set '{name}'{hint}")
        return None
    if not split:
        raise UserError(f"{name} has several splits: say which, as {name}:train or {name}:test")
    return _split(load(name), split, grey=False)


def _split(images: ImageSet, split: str, *, grey: bool) -> Side:
    """Return a split; that called ``train`` is all that was published as such, also what validates here."""
    carved = split == "train" and DATASETS[images.name].carved
    parts = (f"{split}+val" if carved else split).split("+")
    for part in parts:
        if part not in images.splits:
            raise DataError(f"{images.name} has no split '{part}'; it has {', '.join(images.splits)}")
    tensors = [images.split(part) for part in parts]
    label = f"{images.name}:{split}"
    said = [f"{label} is {'+'.join(parts)}, all that was published as training images"] if carved else []
    kind = "binary" if images.pixels == "binary" and not grey else "discrete"
    shades = images.pixels == "binary" and any(bool(((t > 0) & (t < 255)).any()) for t in tensors)
    if kind == "binary":
        tensors = [test_levels(images, part, 0) * 255 for part in parts]
        said += [f"{label} is binarised with seed 0"] if shades else []
    elif shades:
        said += [f"{label} is taken in its grey values, as the other side has them"]
    pixels = Pixels(*images.image_shape, *(("binary", 1) if kind == "binary" else ("discrete", 8)))
    digest = hashlib.sha256(f"{images.identity} {'+'.join(parts)} {kind} 0".encode()).hexdigest()
    ready = MemoryImages(label, "a data set", tensors, pixels, digest)
    return Side(
        label,
        cast(GenerativeModel, ImageModel(ready, label)),
        total=len(ready),
        split="+".join(parts),
        remark="; ".join(said),
        identity=images.identity,
        in_grey=(lambda: _split(images, split, grey=True)) if shades and not grey else None,
    )


# Features of both sides of a comparison: each through every network once, kept in the cache by content


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

    @property
    def said(self) -> str:
        """What must be said beside numbers of a subset, or an empty string."""
        total, count = self.side.total, len(self.numbers)
        if total is None or count in (0, total):
            return ""
        return (
            f"{count:,} of the {total:,} images of {self.side.name}, a uniform subset drawn with seed "
            f"{self.seed}"
        )

    def as_reference(self, extractor: Extractor, file: Path | None) -> Reference:
        """Return the side as the reference in one space, of which ``file`` has statistics, if it is one."""
        remark = "; ".join(filter(None, (self.side.remark, self.said)))
        if file is None:
            have = self._found(extractor)
            spatial = have.spatial.moments if have.spatial else None
            return Reference(have.stats, self.sha256, spatial, remark)
        given = given_reference(file, extractor)
        if self.found is None:
            return given
        both = f"Frechet distances to the file's mu and sigma, all else to its {len(self.numbers):,} images"
        return replace(
            given,
            stats=FeatureStats(given.stats.moments, self._found(extractor).stats.rows),
            remark="; ".join(filter(None, (given.remark, both, remark))),
        )

    def as_samples(self, extractor: Extractor, file: Path | None) -> Gathered:
        """Return the side as samples in one space, of which ``file`` has statistics, if it is one."""
        if file is None:
            return self._found(extractor)
        known, empty = read_statistics(file, extractor), np.empty((0, 0), np.float32)
        rows = np.empty((0, extractor.dim), np.float32)
        rows = rows if self.found is None else self._found(extractor).stats.rows
        spatial = FeatureStats(known.spatial, empty) if known.spatial is not None else None
        return Gathered(FeatureStats(known.moments, rows), spatial, None, known.count is not None)

    def _found(self, extractor: Extractor) -> Gathered:
        assert self.found is not None
        return self.found.of(extractor)


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
    key = digest_of(
        {
            "model": side.model.sha256,
            "numbers": hashlib.sha256(numbers.tobytes()).hexdigest(),
            "sampler": to_dict(how.sampler),
            "extractors": [[net.name, net.sha256, net.resize] for net in extractors],
            "code": code_version("lsgm", "lsgm_eval", *packages_of(side.model)),
        }
    )
    state = cache_dir() / "passes" / f"{key[:32]}.npz"
    found = run_pass(
        side.model, seeds, how.sampler, extractors, batch_size=batch_size, state_path=state, world=world
    )
    return Taken(side, numbers, found, how, seed)


# The networks of a comparison: opened where images need them, known by name where files say it all

PROTOCOLS = ("inception", "inception-clean")
"""The two that people quote as FID: torch-fidelity's and clean-fid's."""
INCEPTION_DIM = 2048
_PUBLISHED = {
    "inception": (FIDELITY_INCEPTION, "tensorflow1-bilinear-299"),
    "inception-clean": (CLEAN_INCEPTION, "clean-fid-pil-bicubic-299"),
}
DISTANCES = ("frechet", "spatial-frechet", "kernel")


@dataclass(frozen=True)
class Network:
    """A network, and what is measured in its features."""

    spec: SpaceSpec
    extractor: Extractor
    reference: Path | None
    """The reference's file of statistics, where it is one and of these features."""
    samples: Path | None
    """The same of the samples."""


def open_networks(
    words: Sequence[str], reference: Side, samples: Side, device: torch.device
) -> tuple[list[Network], list[Closed]]:
    """Return the networks named by ``words`` that serve both sides, and the others with their reasons.

    Without words they are those of `PROTOCOLS`. Raises what is wrong with one that was asked for, or with the
    first where none serves: DataError for weights or statistics, UserError for images that it does not take.
    """
    for word in words:
        check_spec(word)
    if reference.model is None and samples.model is None:
        return [_by_files(words, reference, samples)], []
    found: list[Network] = []
    closed: list[Closed] = []
    errors: list[DataError] = []
    # Precision and recall are told once, in the first space; the second protocol has no names for them.
    for word in words or PROTOCOLS:
        known = not words and word == "inception-clean" and bool(found)
        name = "glyphs" if word == "glyphs" else ""
        spec = SpaceSpec(word, name, DISTANCES if known else (*DISTANCES, "precision-recall"))
        try:
            shape = reference.shape or samples.shape
            assert shape is not None
            extractor = load_extractor(word, shape, device=device)
            _check_shapes(extractor, reference, samples)
            files = [_file_of(side, extractor, alone=len(words) == 1) for side in (reference, samples)]
            found.append(Network(spec, extractor, files[0], files[1]))
        except DataError as error:
            if words:
                raise _with_glyphs(error, reference, samples) from error
            closed.append(Closed(spec, str(error)))
            errors.append(error)
    if not found:
        raise _with_glyphs(joined(errors), reference, samples)
    return found, closed


def _with_glyphs(error: DataError, reference: Side, samples: Side) -> DataError:
    """Return an error of networks that are not at hand, with the one that always is where it fits."""
    if (reference.shape or samples.shape) != (1, 28, 28):
        return error
    return DataError(f"{error}; or take the features that ship with the package: --extractor glyphs")


def _file_of(side: Side, extractor: Extractor, *, alone: bool) -> Path | None:
    """Return a side's statistics where they are of this network's features; its images serve where not.

    Those that do not say of which network they are, are taken as `_assumed` says; of another network they are
    where it alone was asked for. Raises DataError where they are not and there are no images.
    """
    if side.statistics is None:
        return None
    theirs = space_of(side.statistics)
    assumed = _assumed(side.statistics)
    ours = extractor.name == (theirs.name or assumed) or (alone and not theirs.name)
    if side.model is not None and not (ours and theirs.dim == extractor.dim):
        return None
    if not theirs.name and not ours:
        raise DataError(
            f"{side.statistics} does not say of which network its mu and sigma are, and is taken as "
            f"{assumed}'s (clean-fid has 'clean' in its files' names; pytorch-fid, ADM and EDM write those "
            f"of inception): if they are {extractor.name}'s, ask for --extractor {extractor.name} alone"
        )
    read_statistics(side.statistics, extractor)  # says what else is wrong
    return side.statistics


def _assumed(path: Path) -> str:
    """Return whose features statistics are that do not say it, by what the tools call such files."""
    return "inception-clean" if "clean" in path.stem.lower() else "inception"


def _check_shapes(extractor: Extractor, reference: Side, samples: Side) -> None:
    """Raise UserError in the words of both sides where a network does not take the images of either."""
    for side, other in ((reference, samples), (samples, reference)):
        if side.shape is None:
            continue
        channels, *sides = extractor.image_shape
        wanted = (channels, *sides)
        # A network that takes any size takes grey images as well, and repeats them.
        free = sides == [None, None]
        if free or all(want in (None, got) for want, got in zip(wanted, side.shape, strict=True)):
            continue
        beside = f" and those of {other.name} are {_size(other.shape)}" if other.shape else ""
        raise UserError(
            f"the images of {side.name} are {_size(side.shape)}{beside}, and {extractor.name} takes "
            f"{_size(extractor.image_shape)}: bring all images to that"
        )


def size_remark(extractor: Extractor, reference: Side, samples: Side) -> str:
    """Return what a protocol that resizes does to images that are not of one size and colour, or nothing."""
    if not extractor.resize:
        return ""
    parts = []
    shapes = [side.shape for side in (reference, samples) if side.shape is not None]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = " and ".join(f"{side.name} {_size(side.shape)}" for side in (reference, samples))
        parts.append(
            f"images of different size ({sizes}) are each resized by {extractor.resize}, which the number "
            "measures as well"
        )
    if any(height != width for _, height, width in shapes):
        parts.append(f"rectangles are made square by {extractor.resize}, their proportions lost")
    if len({shape[0] for shape in shapes}) > 1:
        grey = next(side.name for side in (reference, samples) if side.shape and side.shape[0] == 1)
        parts.append(f"the grey images of {grey} are repeated over three channels and compared with colours")
    return "; ".join(parts)


def _size(shape: ImageShape | None) -> str:
    return "x".join("any" if side is None else str(side) for side in shape or ())


def _by_files(words: Sequence[str], reference: Side, samples: Side) -> Network:
    """Return the space of two files of statistics, which need no network; they must be of the same one."""
    paths = [side.statistics for side in (reference, samples) if side.statistics is not None]
    told = [space_of(path) for path in paths]
    space = next((space for space in told if space.name), told[0])
    if len(words) > 1 or (words and (space.name or words[0] not in PROTOCOLS)):
        raise UserError(
            "both sides are statistics, whose network is fixed: leave --extractor out, or give images"
        )
    if not space.name and space.dim == INCEPTION_DIM:
        assumed = {words[0]} if words else {_assumed(path) for path in paths}
        if len(assumed) > 1:
            raise DataError(
                f"by their names {paths[0]} and {paths[1]} are of different protocols: if they are of one, "
                "name it by --extractor"
            )
        (name,) = assumed
        weights, resize = _PUBLISHED[name]
        space = replace(space, name=name, sha256=weights.sha256, resize=resize)
    published = {word: weights.sha256 for word, (weights, _) in _PUBLISHED.items()}
    space = replace(
        space,
        name=space.name or "statistics",
        spatial_dim=max(each.spatial_dim for each in told),
        official=published.get(space.name) == space.sha256,
    )
    for path in paths:
        read_statistics(path, space)  # of this very space, whole and symmetric
    spec = SpaceSpec("statistics", statistics=(*DISTANCES, "precision-recall"))
    return Network(spec, space, reference.statistics, samples.statistics)

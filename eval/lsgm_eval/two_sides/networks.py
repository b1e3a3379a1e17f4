"""The networks of a comparison: opened where images need them, known by name where files say it all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lsgm.errors import DataError, UserError
from lsgm_eval.features.extractor import Extractor, ImageShape, check_spec, load_extractor
from lsgm_eval.features.statistics import read_statistics, space_of
from lsgm_eval.features.weights import CLEAN_INCEPTION, FIDELITY_INCEPTION, joined
from lsgm_eval.task import Closed, SpaceSpec
from lsgm_eval.two_sides.sides import Side

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

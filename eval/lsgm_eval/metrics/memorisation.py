"""Does a model repeat its training images? Nearest training neighbours, calibrated by held-out images.

A small distance to the training set means nothing by itself: in a dense place every honest image has one.
What held-out images of the same population are at says what is ordinary, within the error of how few they
are: the threshold is one of their distances, and another draw of them would have another. Distances are
Euclidean in whatever rows are given, pixels or features; copies that were shifted or recoloured are found in
features only.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.special import betaincinv
from torch import Tensor

from lsgm.errors import UserError
from lsgm.files.write import atomic_path
from lsgm_eval.metrics.intervals import Interval, binomial_interval, difference_ends
from lsgm_eval.metrics.moments import Array
from lsgm_eval.metrics.precision_recall import StoredRows, nearest


@dataclass(frozen=True)
class Memorisation:
    """Where samples lie beside the training images, and how unusual that is."""

    distance: Array
    """Of every sample to its nearest training image, [N]."""
    index: NDArray[np.int64]
    """Number of that training image, [N]."""
    threshold: float
    """The q quantile of held-out images' distances: one of them."""
    held_out_share: float
    """Share of held-out images within the threshold; q but for ties."""
    share: float
    """Share of samples within the threshold."""
    excess: Interval
    """``share`` - ``held_out_share``, whose interval has the errors of both: it covers how much likelier a
    sample is within the threshold than an image of the population, 0 for an honest model."""
    closer: Interval
    """P(a sample is closer than a held-out image), ties half: 0.5 for an honest model, 1 for copies."""
    c_t: float
    """`three_sample_z`; below about -3 is copying, far above 0 is a poor fit."""

    def closest(self, count: int) -> NDArray[np.int64]:
        """Return the numbers of the ``count`` samples nearest to a training image, nearest first."""
        return np.argsort(self.distance, kind="stable")[:count]

    def random(self, count: int, seed: int = 0) -> NDArray[np.int64]:
        """Return the numbers of ``count`` samples drawn without looking, by ``seed``."""
        return np.random.default_rng(seed).permutation(len(self.distance))[:count]


def memorisation(
    samples: NDArray[Any],
    training: StoredRows,
    held_out: NDArray[Any],
    *,
    quantile: float = 0.01,
) -> Memorisation:
    """Return how close samples [N, D] come to training rows [M, D], beside held-out rows [H, D].

    Raises UserError where there are so few held-out images that the quantile lies below the first of them,
    for fewer than 2 samples, and for features that are not finite; ValueError for a quantile outside (0, 1).
    """
    if not 0 < quantile < 1:
        raise ValueError(f"the quantile must lie between 0 and 1, not {quantile}")
    if len(held_out) * quantile < 1:
        raise UserError(
            f"a quantile of {quantile:g} needs at least {int(np.ceil(1 / quantile))} held-out images and "
            f"there are {len(held_out)}: give more, or a larger quantile"
        )
    if len(samples) < 2:
        raise UserError(f"memorisation needs at least 2 samples and there are {len(samples)}: ask for more")
    found = nearest(samples, training)
    distance, ordinary = found.distance[:, 0], nearest(held_out, training).distance[:, 0]
    threshold = float(np.quantile(ordinary, quantile, method="inverted_cdf"))
    return Memorisation(
        distance=distance,
        index=found.index[:, 0],
        threshold=threshold,
        held_out_share=float((ordinary <= threshold).mean()),
        share=float((distance <= threshold).mean()),
        excess=excess_share(distance, ordinary, threshold),
        closer=_closer(distance, ordinary),
        c_t=three_sample_z(distance, ordinary),
    )


def three_sample_z(distance: NDArray[Any], held_out: NDArray[Any]) -> float:
    """Return the data-copying statistic C_T of arXiv:2004.05675 with one cell, from distances [N] and [H].

    z = (U - N H / 2) / sigma, U the Mann-Whitney count of pairs in which the sample is farther from the
    training set than the held-out image, and sigma^2 = N H (N + H + 1) / 12 less the correction for ties.
    Standard Normal for an honest model: negative means copying. 0 where all distances are equal.
    """
    n, h = len(distance), len(held_out)
    both = np.concatenate([distance, held_out])
    _, ties = np.unique(both, return_counts=True)
    total = n + h
    variance = (
        n * h / 12 * (total + 1 - float((ties.astype(float) ** 3 - ties).sum()) / (total * (total - 1)))
    )
    if variance <= 0:
        return 0.0
    ordered = np.sort(held_out)
    nearer, tied = np.searchsorted(ordered, distance), np.searchsorted(ordered, distance, side="right")
    count = float((nearer + tied).sum()) / 2
    return (count - n * h / 2) / float(np.sqrt(variance))


def excess_share(distance: Array, held_out: Array, threshold: float) -> Interval:
    """Return the share of samples within the threshold less that of held-out images, by `difference_ends`.

    Samples do not know the threshold: theirs is a binomial share. It is itself a held-out distance, the m-th
    of H, so that the population's share within it follows Beta(m, H - m + 1), whatever the law of distances
    is; where distances are tied its upper end is that of a share. A threshold that lies high by chance raises
    both shares alike and cancels.
    """
    n, h = len(distance), len(held_out)
    within, m = int((distance <= threshold).sum()), int((held_out <= threshold).sum())
    tied = int((held_out == threshold).sum()) > 1
    low = betaincinv(m, h - m + 1, 0.025)
    high = 1.0 if m == h else betaincinv(m + tied, h - m + 1 - tied, 0.975)
    ours = binomial_interval(within, n)
    share = m / h
    ends = difference_ends(share, (float(low), float(high)), ours.value, (ours.low, ours.high))
    error = float(np.hypot(ours.standard_error, np.sqrt(share * (1 - share) / h)))
    return Interval(ours.value - share, *ends, error)


def _closer(distance: Array, held_out: Array) -> Interval:
    """Return P(sample closer) with DeLong's error (1988), from the placements of each side in the other.

    Where no two placements differ, as for perfect copies, the error is that of one image.
    """
    of_samples, of_held_out = 1 - _placements(distance, held_out), _placements(held_out, distance)
    variance = of_samples.var(ddof=1) / len(distance) + of_held_out.var(ddof=1) / len(held_out)
    value, finest = float(of_samples.mean()), 1 / min(len(distance), len(held_out))
    normal = Interval.normal(value, max(float(np.sqrt(variance)), finest))
    return Interval(value, max(normal.low, 0.0), min(normal.high, 1.0), normal.standard_error)


def _placements(values: Array, among: Array) -> Array:
    """Return the share of ``among`` that lies below each value, ties counted half."""
    ordered = np.sort(among)
    below, not_above = np.searchsorted(ordered, values), np.searchsorted(ordered, values, side="right")
    return (below + not_above) / (2 * len(among))


# A picture of samples above their nearest training images: the closest ones, and some drawn at random

GAP, LINE, INK, GROUND = 8, 18, (32, 32, 32), (255, 255, 255)
PAIRS_IN_A_ROW = 10


def write_neighbours(
    path: Path, found: Memorisation, samples: Tensor, training: Tensor, chosen: dict[str, list[int]]
) -> Path:
    """Write one PNG with a band of pairs per entry of ``chosen``, heading -> numbers of samples in ``found``.

    ``samples`` uint8 [P, C, H, W] are the chosen samples, entry after entry (made again from their seeds, for
    instance), and ``training`` [P, C, H, W] their nearest training images, ``found.index`` of the same
    numbers. Below each pair stand its distance and the training image's number; a star marks a distance
    within the held-out threshold. Raises ValueError where the shapes do not fit or nothing is chosen.
    """
    numbers = [number for band in chosen.values() for number in band]
    if samples.shape != training.shape or samples.ndim != 4 or len(samples) != len(numbers):
        raise ValueError(
            f"{len(numbers)} pairs need as many samples and training images of one shape, not "
            f"{tuple(samples.shape)} and {tuple(training.shape)}"
        )
    if not numbers:
        raise ValueError("a figure of neighbours needs at least one pair")
    tiles = [_tile(samples[i], training[i], found, number) for i, number in enumerate(numbers)]
    title = (
        f"sample above, nearest training image below; * within {found.threshold:.4g}, as are "
        f"{found.held_out_share:.2%} of held-out images and {found.share:.2%} of samples"
    )
    sheet = _sheet(tiles, {heading: len(band) for heading, band in chosen.items()}, title)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")
    return path


def _tile(sample: Tensor, training: Tensor, found: Memorisation, number: int) -> Image.Image:
    """Return one pair, enlarged to at least 64 pixels, with its distance written below."""
    pair = torch.cat([sample, training], dim=1).expand(3, -1, -1).permute(1, 2, 0).cpu().numpy()
    picture = Image.fromarray(np.ascontiguousarray(pair))
    factor = -(-64 // picture.width)
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    tile = Image.new("RGB", (picture.width, picture.height + 2 * LINE), GROUND)
    tile.paste(picture)
    distance = float(found.distance[number])
    _write(tile, (0, picture.height + 2), f"{distance:.3g}{'*' if distance <= found.threshold else ''}")
    _write(tile, (0, picture.height + LINE), f"#{found.index[number]}")
    return tile


def _sheet(tiles: list[Image.Image], bands: dict[str, int], title: str) -> Image.Image:
    """Return the tiles under their bands' headings, at most PAIRS_IN_A_ROW to a row, the title on top."""
    width, height = tiles[0].width + GAP, tiles[0].height + GAP
    rows = sum(-(-count // PAIRS_IN_A_ROW) for count in bands.values())
    text = max(ImageDraw.Draw(tiles[0]).textlength(line, font=_font()) for line in (title, *bands))
    wide = max(min(PAIRS_IN_A_ROW, max(bands.values())) * width + GAP, int(text) + 2 * GAP)
    sheet = Image.new("RGB", (wide, rows * height + (len(bands) + 1) * (LINE + GAP) + GAP), GROUND)
    _write(sheet, (GAP, GAP), title)
    top, remaining = LINE + 2 * GAP, iter(tiles)
    for heading, count in bands.items():
        _write(sheet, (GAP, top), heading)
        top += LINE + GAP
        for place in range(count):
            row, column = divmod(place, PAIRS_IN_A_ROW)
            sheet.paste(next(remaining), (GAP + column * width, top + row * height))
        top += -(-count // PAIRS_IN_A_ROW) * height
    return sheet


def _write(picture: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(picture).text(place, text, fill=INK, font=_font())


def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default()

"""Golden rows: what a checkpoint measured when they were written, how sure that was, and why they changed.

One JSON file for each checkpoint. Three kinds of rows stand in it:

- `ReplayRow`: numbers of single images at fixed seeds. The same code and weights give them again, up to
  rounding, whose size was recorded.
- `ImagesRow`: sub-pixels of images drawn at fixed seeds, of which rounding may turn over a few.
- `EstimateRow`: the mean or the distance that a table would show, measured several times with other seeds.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.files.limits import Limit
from lsgm.files.names import shown
from lsgm.files.text import read_table
from lsgm.files.write import atomic_path
from lsgm.hub import hub_name
from lsgm.structure import from_dict, to_dict

LARGEST = 100_000
"""Bytes of a golden file at most: it lies in a repository, and its differences are read."""

WORK = Limit("LSGM_MOST_GATE_WORK", 200_000, "evaluations")
"""Of a network, for one image, that a plan may ask for: minutes of one core, ten times the default plan's."""

FARTHEST = 1e100
"""Of a golden number: differences, squares and sums of some are numbers still."""

MOST_LEVELS = 2**24
"""Sub-pixels of all drawn images: the gate keeps 784 of each."""


@dataclass(frozen=True)
class Plan:
    """How much the gate measures. Golden rows hold for one plan, and so it is written beside them."""

    replay_images: int = 64
    """Images whose bound is replayed, term by term."""
    replay_draws: int = 2
    """Times per image of it."""
    flow_images: int = 4
    """Images whose probability flow is replayed; 0 leaves it out."""
    flow_steps: int = 10
    """Heun steps of it: fixed ones, since an adaptive solver turns a rounding into another step. So few give
    a number to be repeated, and no likelihood to be quoted."""
    drawn: int = 16
    """Images drawn again at fixed seeds."""
    sampler: SamplerConfig = field(default_factory=lambda: SamplerConfig("heun", steps=5))
    """How all images are drawn."""
    images: int = 512
    """Images of every estimated bound."""
    draws: int = 8
    """Times per image of the score-matching bound: its noise falls with their root."""
    iw_samples: int = 10
    """Draws per image of a Normal prior's importance-weighted bound."""
    samples: int = 100
    """Images of every estimated distance; 0 leaves distances out."""
    reference_images: int = 2000
    """Images of the reference split that they are measured to, drawn at random; 0 takes all."""
    repeats: int = 12
    """How often every estimate was measured with seeds of its own when the rows were written."""

    def __post_init__(self) -> None:
        require(self.replay_images >= 2, f"replay-images is {self.replay_images}; give at least 2")
        require(self.images >= 2, f"images is {self.images}; an error needs at least 2")
        require(self.repeats >= 2, f"repeats is {self.repeats}; their spread needs at least 2")
        require(self.samples == 0 or self.samples >= 40, f"samples is {self.samples}; give 0, or 40 or more")
        require(
            self.reference_images == 0 or self.reference_images >= 40,
            f"reference-images is {self.reference_images}; give 0 for all, or 40 or more",
        )
        counts = (self.flow_images, self.drawn)
        require(min(counts) >= 0, "flow-images and drawn cannot be negative")
        positive = (self.replay_draws, self.flow_steps, self.draws, self.iw_samples)
        require(min(positive) >= 1, "draws, flow-steps and iw-samples must be at least 1")
        # What would take a day is refused, and the largest part of its work named.
        steps = max(self.sampler.steps, len(self.sampler.times)) * (1 + self.sampler.corrector_steps)
        parts = {
            "replay-images x replay-draws": self.replay_images * self.replay_draws,
            "flow-images x flow-steps": 2 * self.flow_images * self.flow_steps,
            "drawn x steps": self.drawn * steps,
            "images x draws": self.images * self.draws,
            "images x iw-samples": self.images * self.iw_samples,
            "samples x steps": self.samples * steps,
        }
        largest, most = max(parts, key=lambda name: parts[name]), WORK.value
        whole = sum(parts.values())
        require(
            whole <= most,
            f"the plan takes {whole:,} evaluations of a network, most of them {largest}, and at most "
            f"{most:,} are made; ask for fewer, or set {WORK.variable}={whole}",
        )
        wide = max(self.repeats, self.reference_images)
        require(wide <= most, f"repeats or reference-images is {wide}; give at most {most}")


@dataclass(frozen=True)
class ReplayRow:
    """Numbers of images at fixed seeds, with the rounding they are known to."""

    kind: Literal["replay"]
    unit: str
    values: tuple[float, ...]
    """One for each image."""
    largest: float
    """Largest difference of one image between ways of computing the same number."""
    mean: float
    """Largest mean difference over all images between two such ways."""
    ways: tuple[str, ...]
    """The ways that were tried besides the gate's own."""

    @property
    def value(self) -> float:
        """The mean over the images."""
        return float(np.mean(self.values))

    def __post_init__(self) -> None:
        require(len(self.values) >= 1, "a replayed row needs the numbers of at least one image")
        require(
            all(abs(value) <= FARTHEST for value in (*self.values, self.largest)),
            "a replayed row holds a value that is not finite, or as good as that",
        )
        require(0 < self.mean <= self.largest < math.inf, "the differences must satisfy 0 < mean <= largest")


@dataclass(frozen=True)
class ImagesRow:
    """Sub-pixels of drawn images, and how many of them other ways of computing turned over."""

    kind: Literal["images"]
    shape: tuple[int, ...]
    """Images by sub-pixels of each."""
    packed: str
    """The levels uint8: deflated, in base 64."""
    flips: int
    """Most sub-pixels that a way of computing turned over."""
    ways: tuple[str, ...]

    def __post_init__(self) -> None:
        require(len(self.shape) == 2 and min(self.shape) >= 1, "the shape is images by sub-pixels")
        require(
            math.prod(self.shape) <= MOST_LEVELS,
            f"the shape is {list(self.shape)}, and at most {MOST_LEVELS:,} sub-pixels are kept",
        )
        require(0 <= self.flips <= math.prod(self.shape), "flips cannot be negative or more than sub-pixels")
        self.levels()

    @property
    def unit(self) -> str:
        """What the value is in."""
        return "level"

    @property
    def value(self) -> float:
        """The mean level."""
        return float(self.levels().mean())

    def levels(self) -> NDArray[np.uint8]:
        """Return the levels uint8 [images, sub-pixels]. Raises ConfigError for text that holds others."""
        try:
            # Never more than the shape says: a line of text may hold gigabytes of zeros.
            inflater, wanted = zlib.decompressobj(), math.prod(self.shape)
            raw = inflater.decompress(base64.b64decode(self.packed, validate=True), wanted + 1)
            if not inflater.eof or len(raw) != wanted:
                raise ValueError(f"they are not the {wanted:,} levels of the shape {list(self.shape)}")
            return np.frombuffer(raw, dtype=np.uint8).reshape(self.shape)
        except (binascii.Error, zlib.error, ValueError) as error:
            raise ConfigError(
                f"the drawn images are damaged ({error}): restore the file or write it again"
            ) from error


@dataclass(frozen=True)
class EstimateRow:
    """A mean or a distance, and how much measuring it again with other seeds moves it."""

    kind: Literal["estimate"]
    unit: str
    higher_is_better: bool
    value: float
    """Mean of the repeats."""
    error: float
    """Standard error of one measurement of the same images (of a distance: of new samples)."""
    df: float
    """Degrees of freedom that the error was estimated with."""
    repeats: int
    image_error: float | None = None
    """Standard error over images, as a table's interval shows it; None of a distance."""
    per_image: tuple[float, ...] = ()
    """Mean of the repeats for every image, so that a model trained anew is compared in pairs."""
    cut: tuple[float, ...] = ()
    """Of a mean over images: values below the first count as it, and above the second as that."""

    def __post_init__(self) -> None:
        numbers = (self.value, self.error, self.df, *self.per_image, *self.cut)
        finite = all(abs(number) <= FARTHEST for number in numbers)
        require(finite, "an estimate holds a number that is not finite, or as good as that")
        require(self.error > 0 and self.df >= 1, "an estimate needs a positive error and df of at least 1")
        require(self.repeats >= 2, "an estimate needs at least 2 repeats")
        require(len(self.per_image) != 1, "an estimate of one image has no error over images")
        require(len(self.cut) == (2 if self.per_image else 0), "values of images are cut at two ends")
        require(list(self.cut) == sorted(self.cut), "values of images are cut at a lower end, then an upper")

    def cut_values(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Return the values of images [N] with those beyond the ends moved there; NaN stays."""
        low, high = self.cut
        return np.asarray(np.asarray(values, dtype=np.float64).clip(low, high))


Row = ReplayRow | ImagesRow | EstimateRow


@dataclass(frozen=True)
class Change:
    """Why golden rows were written, and what stood there before."""

    date: str
    reason: str
    git_revision: str | None
    checkpoint_sha256: str
    versions: dict[str, str] = field(default_factory=dict)
    before: dict[str, float] = field(default_factory=dict)
    """The values of the rows that moved, as they were: of images, the mean level."""


@dataclass(frozen=True)
class Golden:
    """All golden rows of a checkpoint, and what has to be the same for them to mean anything."""

    format: Literal[1]
    model: str
    checkpoint_sha256: str
    task: str
    """``glyphs@2``."""
    dataset: str
    split: str
    levels_sha256: str
    """Of the bits or levels that are scored."""
    spaces: dict[str, str]
    """The networks and references of the distances, by the names of their feature spaces."""
    plan: Plan
    rows: dict[str, Row]
    history: tuple[Change, ...]
    """The newest change last."""

    def __post_init__(self) -> None:
        require(bool(self.rows), "there is no row in it; write it again by --update --reason TEXT")
        require("" not in self.rows, "a row has no name; write it again by --update --reason TEXT")


def default_golden(checkpoint: Path) -> Path:
    """Return where the golden rows of a checkpoint lie: ``reports/golden/<its folder's name>.json``.

    Raises UserError for links that lead round in a circle.
    """
    on_hub = hub_name(checkpoint)
    try:
        name = checkpoint.resolve().name if on_hub is None else on_hub.repo.partition("/")[2]
    except (OSError, RuntimeError) as error:
        raise UserError(f"{shown(str(checkpoint))} leads nowhere ({error}); name a checkpoint") from error
    return Path("reports") / "golden" / f"{name}.json"


def read_golden(path: Path) -> Golden:
    """Return the golden rows of a file.

    Raises UserError where there is no file, DataError where it is no JSON object, ConfigError naming the key
    that is unknown, missing or of a wrong type, each with what to do next.
    """
    if not os.path.lexists(path):
        raise UserError(
            f"the golden rows {shown(str(path))} cannot be read (there are none): give --golden FILE, or "
            "write them by `lsgm gate CHECKPOINT --update --reason TEXT`"
        )
    mapping = read_table(path, DataError, "restore the file, or write it again by --update --reason TEXT")
    if type(version := mapping.get("format", 1)) is int and version > 1:
        raise ConfigError(
            f"{shown(str(path))} has format {version} and this version reads format 1: update lsgm-bench"
        )
    return from_dict(Golden, mapping, shown(str(path)))


def write_golden(path: Path, golden: Golden) -> None:
    """Write golden rows, atomically, with one row's numbers to a line. Raises UserError above `LARGEST`."""
    text = _layout(to_dict(golden), 0) + "\n"
    size = len(text.encode())
    if size > LARGEST:
        raise UserError(
            f"the golden rows would take {size:,} bytes and {LARGEST:,} are allowed: ask for fewer --images"
        )
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _layout(value: Any, depth: int) -> str:
    """Return JSON with tables one key to a line and lists of numbers in one, in the order of the fields."""
    if isinstance(value, dict) and value:
        lines = [
            f"{json.dumps(key, ensure_ascii=False)}: {_layout(item, depth + 1)}"
            for key, item in value.items()
        ]
        ends = "{}"
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        lines, ends = [_layout(item, depth + 1) for item in value], "[]"
    else:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    start = "\n" + "  " * depth
    return ends[0] + ",".join(f"{start}  {line}" for line in lines) + start + ends[1]


def rounded(values: NDArray[Any] | float, digits: int = 9) -> tuple[float, ...]:
    """Return numbers to so many digits: nine keep a float32 apart from its neighbours."""
    return tuple(float(f"{value:.{digits}g}") for value in np.atleast_1d(values).tolist())


def pack(levels: NDArray[np.uint8]) -> str:
    """Return levels uint8 as text: deflated, in base 64."""
    return base64.b64encode(zlib.compress(levels.tobytes(), 9)).decode("ascii")

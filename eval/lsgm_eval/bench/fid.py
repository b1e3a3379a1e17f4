"""``lsgm bench fid``: what a Frechet distance and the pass behind it cost, beside the field's packages."""

from __future__ import annotations

from dataclasses import dataclass

from lsgm.config import require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.options import parse

HELP = "time and memory of Frechet distances and of the pass, beside torch-fidelity and clean-fid"

DESCRIPTION = """Measure four parts in one run. `distance`: the Frechet distance of given moments, by this
package, by SciPy's sqrtm of the product of covariances (clean-fid, pytorch-fid), and by numpy's eigvals of it
(torch-fidelity). `memory`: the peak of a pass over a model of free images, by their number, each in a process
of its own. `pass`: a pass over ready images against its extractor alone. `packages`: the same PNG files end
to end with torch-fidelity and clean-fid. Ways are taken in turn. Inception's weights are random unless
given, which costs the same."""

EXAMPLES = (
    "lsgm bench fid",
    "lsgm bench fid --only distance --repeats 5",
    "lsgm bench fid --only pass,packages --weights pt_inception-2015-12-05.pth --images 256",
)

PARTS = ("distance", "memory", "pass", "packages")


@dataclass(frozen=True)
class FidBenchOptions:
    """Options of ``lsgm bench fid``."""

    only: str = ",".join(PARTS)
    """Parts to measure, between commas."""
    dim: int = 2048
    """Features of the distance."""
    rows: int = 5000
    """Feature rows behind each of its two covariances."""
    counts: str = "1000,10000,50000"
    """Numbers of images whose peak memory is measured, between commas."""
    images: int = 64
    """Images of the pass and of the packages."""
    size: int = 32
    """Their height and width in pixels."""
    batch: int = 16
    """Images to a batch."""
    weights: str | None = None
    """Weights of torch-fidelity's Inception-v3; None: random ones."""
    script: str | None = None
    """A TorchScript extractor to time the pass with as well, which takes images of --size."""
    repeats: int = 3
    """Rounds of every part but memory."""
    seed: int = 1
    """Seed of features, images and random weights."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        for name in ("dim", "rows", "images", "size", "batch"):
            require(getattr(self, name) >= 2, f"{name} is {getattr(self, name)}; give at least 2")
        require(self.repeats >= 1, f"repeats is {self.repeats}; give at least 1")
        for part in self.parts:
            hint = did_you_mean(part, PARTS) or f"; there is {', '.join(PARTS)}"
            require(part in PARTS, f"there is no part '{part}'{hint}")
        require(bool(self.image_counts), "counts lists no number of images")

    @property
    def parts(self) -> list[str]:
        """Return the parts to measure."""
        return [part.strip() for part in self.only.split(",") if part.strip()]

    @property
    def image_counts(self) -> list[int]:
        """Return the numbers of ``counts``. Raises ConfigError where one is not a number above 0."""
        words = [word.strip() for word in self.counts.split(",") if word.strip()]
        if not all(word.isdecimal() and int(word) for word in words):
            raise ConfigError(f"counts is '{self.counts}'; give whole numbers above 0 between commas")
        return [int(word) for word in words]


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(FidBenchOptions, argv, prog="lsgm bench fid", description=DESCRIPTION, examples=EXAMPLES)
    import torch

    from lsgm.bench.measuring import describe, machine, publish
    from lsgm_eval.bench.fid_memory import measure_memory
    from lsgm_eval.bench.fid_ways import installed, measure_distance, measure_packages, measure_pass, page

    measures = {
        "distance": measure_distance,
        "memory": lambda options: measure_memory(options.image_counts),
        "pass": measure_pass,
        "packages": measure_packages,
    }
    about = machine(torch.device("cpu")) | installed()
    rows = [{"part": part, **row} for part in options.parts for row in measures[part](options)]
    told = page(rows, about=describe(about), versions=installed())
    publish("fid", [row | about for row in rows], told, as_json=options.json)
    return 0

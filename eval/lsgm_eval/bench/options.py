"""What ``lsgm bench fid`` takes, free of torch: its help is shown without, and every part is told by it."""

from __future__ import annotations

from dataclasses import dataclass

from lsgm.bench.options import OnDevice
from lsgm.config import require
from lsgm.errors import ConfigError, did_you_mean

PARTS = ("distance", "reading", "memory", "pass", "packages")


@dataclass(frozen=True, kw_only=True)
class FidBenchOptions(OnDevice):
    """Options of ``lsgm bench fid``."""

    only: str = ",".join(PARTS)
    """Parts to measure, between commas."""
    dim: int = 2048
    """Features of the distance."""
    rows: int = 5000
    """Feature rows behind each of its two covariances."""
    counts: str = "1000,10000,50000"
    """Numbers of images whose peak memory is measured, between commas."""
    files: int = 50_000
    """Files of 32 x 32 pixels that are read, and a hundredth as many of 256 x 256."""
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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dim", "rows", "files", "images", "size", "batch"):
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

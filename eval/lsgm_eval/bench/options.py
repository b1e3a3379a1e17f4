"""What ``lsgm bench fid`` takes, free of torch: its help is shown without, and every part is told by it."""

from __future__ import annotations

from dataclasses import dataclass

from lsgm.bench.options import OnDevice, numbers
from lsgm.config import require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.options import between_commas

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
        return between_commas(self.only)

    @property
    def image_counts(self) -> list[int]:
        """Return the numbers of ``counts``. Raises ConfigError where one is not a number above 0."""
        words = between_commas(self.counts)
        if not all(word.isdecimal() and int(word) for word in words):
            raise ConfigError(f"counts is '{self.counts}'; give whole numbers above 0 between commas")
        return [int(word) for word in words]


WORK = ("train", "samples", "likelihood")
"""What processes share."""


@dataclass(frozen=True, kw_only=True)
class ProcessesBenchOptions(OnDevice):
    """Options of ``lsgm bench processes``."""

    recipe: str = "cifar10-small"
    """Name of a recipe or path of a TOML file."""
    only: str = ",".join(WORK)
    """What is measured, between commas."""
    processes: str = ""
    """Numbers of processes, between commas; unless given 1 and 2, on CUDA 1 and as many as there are GPUs."""
    steps: int = 20
    """Steps of the last stage in a round, of which the first three do not count."""
    train_batch: int | None = None
    """Images of a step, over all processes; the stage's own number unless given."""
    sharded: bool = False
    """Shard the stage's weights over the processes (FSDP2) where there are several."""
    images: int = 64
    """Images that are drawn and extracted in a round, and whose bound is taken."""
    batch: int = 16
    """Of these to a batch."""
    sampler_steps: int = 5
    """Steps of Heun's method to draw them."""
    extractor: str = ""
    """Feature space of the images (`lsgm eval --help`); unless given Inception-v3 with random weights."""
    rounds: int = 5
    """Times that every number of processes is timed, in turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("images", "batch", "sampler_steps", "rounds"):
            require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}; give at least 1")
        require(self.steps >= 4, f"steps is {self.steps}; three do not count: give at least 4")
        for part in self.parts:
            hint = did_you_mean(part, WORK) or f"; there is {', '.join(WORK)}"
            require(part in WORK, f"there is no part '{part}'{hint}")
        require(all(count >= 1 for count in self.counts), "processes must be numbers of at least 1")

    @property
    def parts(self) -> list[str]:
        """What to measure."""
        return between_commas(self.only)

    @property
    def counts(self) -> list[int]:
        """Numbers of processes as given, or none. Raises ConfigError for what is no number."""
        return numbers(self.processes, "processes", int) if self.processes.strip() else []

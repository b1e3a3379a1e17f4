"""``lsgm bench coverage``: how often 95 % intervals cover, on laws of known answers and on real features."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from lsgm.config import require
from lsgm.options import parse

HELP = "how often the intervals of means and distances cover what they say"

DESCRIPTION = """Draw many times from laws whose answers are known, heavy tails among them, and count how
often 95 % intervals cover: the mean, the expectation of the plug-in Frechet distance at this n (the mean of
all repeats), the populations' MMD^2. `below` and `above` are the shares of intervals that end too soon;
`even` is what the estimate +- 1.96 standard errors covers. With `--features` the same of two finite
populations: draws from the rows of a file."""

EXAMPLES = (
    "lsgm bench coverage",
    "lsgm bench coverage --repeats 2000",
    "lsgm bench coverage --features both.npz",
)


@dataclass(frozen=True)
class CoverageOptions:
    """Options of ``lsgm bench coverage``."""

    repeats: int = 400
    """Intervals of each law."""
    features: Path | None = None
    """An npz with arrays `model` and `reference` [N, D]: rows of real features to draw from as well."""
    images: str = "100,300,1000"
    """Numbers of images of the draws from --features, between commas."""
    seed: int = 1
    """Seed of all draws."""
    json: bool = False
    """Print the rows as JSON lines instead of the table."""

    def __post_init__(self) -> None:
        require(self.repeats >= 2, f"repeats is {self.repeats}; give at least 2")
        words = self.images.split(",")
        good = all(word.strip().isdecimal() and int(word) >= 3 for word in words)
        require(good, f"images is '{self.images}'; give whole numbers of 3 or more between commas")


def run(argv: list[str]) -> int:
    """Count, then print; the exit status is 0."""
    options = parse(
        CoverageOptions, argv, prog="lsgm bench coverage", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.bench.measuring import columns, publish
    from lsgm.progress import bar
    from lsgm_eval.bench.laws import coverage, worlds, worlds_of

    chosen = list(worlds())
    if options.features is not None:
        chosen += worlds_of(options.features, [int(word) for word in options.images.split(",")])
    rows = []
    with bar(total=len(chosen), desc="laws", unit="law") as progress:
        for world in chosen:
            rows.append(coverage(world, options.repeats, options.seed))
            progress.update()
    shares = {name: f"{{{name}:.3f}}" for name in ("covered", "below", "above", "even")}
    heads = {"interval": "{statistic}", "law": "{law}", "n": "{n:,}", "dim": "{dim:,}", **shares}
    error = math.sqrt(0.95 * 0.05 / options.repeats)
    said = f"{options.repeats} repeats, nominally 0.95: a share is known to {error:.3f}."
    publish("coverage", rows, f"{columns(heads, rows)}\n\n{said}", as_json=options.json)
    return 0

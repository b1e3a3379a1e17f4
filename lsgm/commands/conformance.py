"""``lsgm conformance``: whether this package computes what a golden folder says, stage by stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lsgm.config import require
from lsgm.options import Positional, arg, parse

HELP = "compare every stage of a model with reference vectors, in float64"

DESCRIPTION = """Read a folder of a model with reference values, build the model in float64, run every stage
that it has values for, and print the largest absolute and relative error of each. The folder is a golden one
(checkpoint.pt, meta.json, io.safetensors) or holds a file that an original code wrote (checkpoint.pt, or
checkpoint.pth and config.toml of score_sde_pytorch, and expected.safetensors). What decides is
max|ours - golden| / max(1, max|golden|) against the tolerance, to which is added what a stage differs by on
purpose, for the reason that is printed. The exit status is 0 where nothing
failed, 1 where something did, 2 where the folder cannot be read. A stage whose values are absent is not
listed; one that cannot be run is listed as SKIP with the reason."""

EXAMPLES = (
    "lsgm conformance golden/mnist",
    "lsgm conformance golden/cifar10_fid --json > stages.jsonl",
    "lsgm conformance golden/omniglot --tolerance 1e-10 --verbose",
    "lsgm conformance upstream/score_sde/ncsnpp_ve",
)


@dataclass(frozen=True)
class ConformanceOptions:
    """Options of ``lsgm conformance``."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder."""
    tolerance: float = 1e-9
    """Largest error that a stage of the forward pass may have."""
    gradient_tolerance: float = 1e-7
    """Largest error that any gradient may have."""
    verbose: bool = False
    """List every gradient, not only the worst of each part."""
    json: bool = False
    """Print one JSON object per stage instead of the table."""

    def __post_init__(self) -> None:
        require(self.tolerance > 0, f"tolerance is {self.tolerance}; it must be above 0")
        require(
            self.gradient_tolerance > 0,
            f"gradient-tolerance is {self.gradient_tolerance}; it must be above 0",
        )


def run(argv: list[str]) -> int:
    """Run the stages and print them; 0 where nothing failed."""
    options = parse(
        ConformanceOptions, argv, prog="lsgm conformance", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.conformance.stage import Tolerances, as_json, as_lines, passed, summary
    from lsgm.conformance.stages import conform_folder

    tolerances = Tolerances(options.tolerance, options.gradient_tolerance)
    results = conform_folder(options.folder, tolerances)
    if options.json:
        print("\n".join(map(as_json, results)))
    else:
        print("\n".join([*as_lines(results, verbose=options.verbose), "", summary(results)]))
    return 0 if passed(results) else 1

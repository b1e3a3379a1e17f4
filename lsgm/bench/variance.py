"""``lsgm bench variance``: what control variates take out of the objective's noise."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lsgm.bench.tables import Row, table
from lsgm.commands.options import Positional, arg, parse
from lsgm.config import require
from lsgm.errors import ConfigError, DataError

__all__ = ["CHECKPOINTS", "HELP", "Options", "page", "run"]

HELP = "noise of the cross entropy and of its gradient, without and with control variates"

DESCRIPTION = """Measure how much one image's cross entropy, and the gradient that trains its VAE, vary over
draws of t and eps: as before, and less the error of a Normal prior's prediction, which is known in closed
form. The Normal law is N(0, I), or has the moments of training latents by channel, dimension or frequency.
Every form has the same expectation and sees the same draws. Without a checkpoint those of checkpoints/ are
measured whose dataset is at hand."""

EXAMPLES = (
    "lsgm bench variance",
    "lsgm bench variance checkpoints/glyphs-lsgm --images 64 --draws 64",
    "lsgm bench variance runs/mnist-small --json",
)

CHECKPOINTS = tuple(
    f"checkpoints/{name}"
    for name in ("glyphs-lsgm", "mnist-small/lsgm", "omniglot-small/lsgm", "cifar10-small/lsgm")
)
"""LSGMs that this repository keeps."""


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench variance``."""

    checkpoints: Annotated[Positional[tuple[str, ...]], arg(metavar="[CHECKPOINT...]")] = ()
    """Run or checkpoint directories of LSGMs; none: those of checkpoints/."""
    images: int | None = None
    """Held-out images of each; none takes 32, and fewer where they have more than 100,000 latents."""
    draws: int = 32
    """Draws of t and eps for the gradient, in eights of stratified times; for the value as many eights."""
    fit: int = 8000
    """Training images whose latents the Normal laws are fitted to."""
    seed: int = 0
    """Seed of latents, times and noise."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.images is None or self.images >= 2, f"images is {self.images}; give at least 2")
        require(
            self.draws >= 16 and self.draws % 8 == 0,
            f"draws is {self.draws}; give a multiple of 8, at least 16",
        )
        require(self.fit >= 2, f"fit is {self.fit}; give at least 2 images")


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench variance", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm.bench.control_variate import lsgm_problem, measure
    from lsgm.bench.machine import describe, machine
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    about = machine(device)
    rows: list[Row] = []
    for path in options.checkpoints or CHECKPOINTS:
        if not options.checkpoints and not Path(path).is_dir():
            print(f"lsgm: {path} is skipped: it is not here", file=sys.stderr)
            continue
        try:
            problem = lsgm_problem(
                path, images=options.images, fit=options.fit, seed=options.seed, device=device
            )
        except DataError as error:
            print(f"lsgm: {path} is skipped: {error}", file=sys.stderr)
            continue
        found = measure(problem, draws=options.draws, seed=options.seed)
        rows += [{**row, "path": path} for row in found]
    if not rows:
        raise ConfigError("nothing to measure; name an LSGM whose dataset is at hand")
    if options.json:
        print("\n".join(json.dumps({"bench": "variance", **row, **about}) for row in rows))
    else:
        print(page(rows, about=describe(about)))
    return 0


_VALUE = (
    "checkpoint",
    "compared with",
    "one draw, nats",
    "eight, nats",
    "fewer draws for equal error",
    "fewer eights",
)


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the machine, the table of values and that of gradients."""
    values = [row for row in rows if row["what"] == "value"]
    gradients = [row for row in rows if row["what"] == "gradient"]
    first = values[0]
    worst = [max(row[name] or 0.0 for row in values) for name in ("error_one", "error_eight")]
    measured = {
        row[
            "path"
        ]: f"{row['checkpoint']}: {row['images']} {row['split']} images of {row['latents']} latents, "
        f"laws fitted to those of {row['fit']:,} training images"
        for row in values
    }
    return "\n\n".join(
        [
            "# Noise of the cross entropy within an image",
            about,
            f"{'; '.join(measured.values())}. Seed {first['seed']}.",
            "## The value",
            table(_VALUE, map(_value, values)),
            "Standard deviations over t and eps, root mean of the images' variances, with importance-sampled "
            f"times of the likelihood weighting: of one draw, and of the mean of eight stratified ones, "
            f"{first['draws']} eights of each image. Fewer draws: the variance as before over this one. "
            "Standard errors over images of the deviations are at most "
            f"{worst[0]:.0%} and {worst[1]:.0%} of them.",
            "## The gradient with respect to z_0",
            table(_heads(gradients), _gradients(gradients)),
            f"Variances over {first['draws']} draws of one time, summed over dimensions and averaged over "
            "images, for the prior's weightings, whose times the VAE shares; in brackets how many times "
            "fewer draws have the same error. Squared mean: of the expected gradient, which all forms share. "
            "Standard errors over images of the roots are at most "
            f"{max(row['error'] or 0.0 for row in gradients):.0%} of them.",
        ]
    )


def _value(row: Row) -> list[str]:
    stds = [_number(row[f"std_{end}"]) for end in ("one", "eight")]
    return [row["checkpoint"], row["form"], *stds, *(_times(row[f"fewer_{end}"]) for end in ("one", "eight"))]


def _heads(rows: Sequence[Row]) -> list[str]:
    """Return the head: a weighting whose times are not the matched ones says so, where that holds for all."""
    matched: dict[str, set[bool]] = {}
    for row in rows:
        matched.setdefault(row["weighting"], set()).add(row["importance_sampling"])
    uniform = {name for name, ways in matched.items() if ways == {False}}
    heads = (f"{name}, uniform times" if name in uniform else name for name in matched)
    return ["checkpoint", "compared with", *heads]


def _gradients(rows: Sequence[Row]) -> list[list[str]]:
    """Return a line per checkpoint and form, and one of the checkpoint's scale."""
    lines: list[list[str]] = []
    for path in dict.fromkeys(row["path"] for row in rows):
        own = [row for row in rows if row["path"] == path]
        name = own[0]["checkpoint"]
        for form in dict.fromkeys(row["form"] for row in own):
            these = [row for row in own if row["form"] == form]
            cells = [f"{_number(row['variance'])} ({_times(row['fewer'])})" for row in these]
            lines.append([name, form, *cells])
        scale = {row["weighting"]: _number(row["squared_mean"]) for row in own}
        lines.append([name, "squared mean", *scale.values()])
    return lines


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{_number(ratio)} ×"


def _number(x: float) -> str:
    """Return three digits, without powers of ten where it is large."""
    return f"{float(f'{x:.3g}'):,.0f}" if x >= 100 else f"{x:.3g}"

"""``lsgm interpolate``: the way from one image to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lsgm.commands.looked_at import LookOptions, as_files_have
from lsgm.config import require
from lsgm.options import parse

HELP = "go from one image to another, in the latents or along the probability flow"

DESCRIPTION = """Go from the first image to the second, from the third to the fourth, and so on.

In the latents: from one draw of q(z | x) to the other on a great circle. Along the flow: up the probability
flow to noise, across, and down again, so that what lies between is what the prior draws. OUT.png has a row
for each pair; OUT.npz has `way`, uint8 [pairs, steps, height, width, channels]."""

EXAMPLES = (
    "lsgm interpolate runs/glyphs glyphs:test --along flow",
    "lsgm interpolate runs/photos ./holiday --limit 2 --steps 12 --mean",
)


@dataclass(frozen=True)
class InterpolateOptions(LookOptions):
    """Options of `lsgm interpolate`."""

    steps: int = 8
    """Images of a way, both ends included."""
    along: Literal["latents", "flow"] = "latents"
    """Straight through the latents, or through the noise that they come from."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.steps >= 2, f"steps is {self.steps}; a way has two ends at least")
        require(self.limit >= 2, f"limit is {self.limit}; a way takes two images")


def run(argv: list[str]) -> int:
    """Go the ways, write picture and npz, and say where they are."""
    options = parse(
        InterpolateOptions, argv, prog="lsgm interpolate", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.pictures import sheet

    model, place = options.opened("interpolate")
    images = options.read(model, options.limit)
    require(len(images) >= 2, f"{options.images} has one image; a way takes two")
    pairs = len(images) // 2
    way = model.interpolate(
        images[0 : 2 * pairs : 2],
        images[1 : 2 * pairs : 2],
        options.steps,
        along=options.along,
        seeds=range(options.seed, options.seed + pairs),
        mean=options.mean,
    )
    place.write(
        sheet(way),
        {"way": as_files_have(way)},
        {"model": model.name, "pairs": pairs, "steps": options.steps, "along": options.along}
        if options.json
        else None,
    )
    return 0

"""``lsgm recalibrate``: a model whose batch normalisation expects what the prior draws."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.config import SamplerConfig, require, require_seeds, require_sizes
from lsgm.files.limits import BATCH, DRAWS
from lsgm.files.write import claim
from lsgm.options import Positional, arg, given_options, parse

if TYPE_CHECKING:
    from lsgm.runs.load import OpenedCheckpoint

HELP = "take a model's statistics anew: the decoder's over draws from the prior, or the latents' moments"

EXAMPLES = (
    "lsgm recalibrate runs/celeba runs/celeba-recalibrated",
    "lsgm recalibrate runs/celeba runs/celeba-cool --batches 200 --sampler.temperature 0.9",
    "lsgm recalibrate runs/older runs/older-with-moments --moments",
)


@dataclass(frozen=True)
class RecalibrateOptions:
    """Options of `lsgm recalibrate`."""

    model: Annotated[Positional[Path], arg(metavar="RUN")]
    """A run directory, one of its checkpoints, or hf://OWNER/NAME of the Hub."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The run directory to write, of an exported model a folder like it; every other command takes it."""
    moments: bool = False
    """Instead of the decoder's statistics take the moments of the training images' latents, which the bound's
    control variate compares with: of models that were trained before training kept any."""
    images: int = 10_000
    """With moments: how many training images are encoded."""
    batches: int = 100
    """Batches over which the statistics are averaged."""
    batch_size: int = 64
    """Images of each, which are normalised by their own statistics while they are decoded."""
    seed: int = 0
    """The images drawn depend on it alone, and are none that `lsgm sample` draws."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print what was done as one JSON line on standard output."""
    sampler: SamplerConfig = field(default_factory=SamplerConfig)

    def __post_init__(self) -> None:
        require(self.batches >= 1, f"batches is {self.batches}; it takes at least 1")
        require(self.batch_size >= 2, f"batch-size is {self.batch_size}; a batch's variance takes at least 2")
        require_seeds(self.seed, 1, "seed")
        require_sizes(self, BATCH, "batch_size")
        require_sizes(self, DRAWS, "batches")
        require(self.images >= 2, f"images is {self.images}; a variance takes at least 2")


def run(argv: list[str]) -> int:
    """Draw the batches, write the model, and say where it is."""
    options = parse(RecalibrateOptions, argv, prog="lsgm recalibrate", description=HELP, examples=EXAMPLES)
    from lsgm.devices import pick_device
    from lsgm.runs.derived import decoder_of, re_estimate, refuse_existing, write_recalibrated
    from lsgm.runs.load import measurable, open_checkpoint
    from lsgm.sampling import check_options

    check_options(options.sampler, given=given_options(argv, "sampler"))
    refuse_existing(claim(options.out))
    opened = open_checkpoint(options.model, "ema")
    if options.moments:
        return _moments(options, opened, ["lsgm", "recalibrate", *argv])
    decoder = decoder_of(opened)
    model = measurable(opened, pick_device(options.device), "ema")
    re_estimate(model, decoder, _batches(options), options.sampler)
    how = {
        "batches": options.batches,
        "batch_size": options.batch_size,
        "seed": options.seed,
        "sampler": asdict(options.sampler) if model.has_prior else None,
        "temperature": options.sampler.temperature,
    }
    saved = write_recalibrated(options.out, opened, how, ["lsgm", "recalibrate", *argv])
    if options.json:
        print(json.dumps({"model": model.name, "checkpoint": str(saved), **how}))
    else:
        images = options.batches * options.batch_size
        print(f"statistics of {images} drawn images written to {options.out}; `lsgm sample {options.out}`")
    return 0


def _moments(options: RecalibrateOptions, opened: OpenedCheckpoint, argv: list[str]) -> int:
    from lsgm.devices import pick_device
    from lsgm.train.prepare import fit_moments, training_levels, write_fitted

    opened.networks.to(pick_device(options.device))
    levels = training_levels(opened, options.images)
    fit_moments(opened, levels, seed=options.seed)
    saved = write_fitted(options.out, opened, len(levels), argv)
    if options.json:
        print(json.dumps({"checkpoint": str(saved), "images": len(levels), "seed": options.seed}))
    else:
        print(f"moments of the latents of {len(levels):,} training images written to {options.out}")
    return 0


def _batches(options: RecalibrateOptions) -> Iterator[list[int]]:
    from lsgm.progress import bar
    from lsgm.runs.derived import seeds_of

    with bar(total=options.batches, desc="recalibrating", unit="batch") as progress:
        for batch in range(options.batches):
            yield seeds_of(options.seed, batch, options.batch_size)
            progress.update(1)

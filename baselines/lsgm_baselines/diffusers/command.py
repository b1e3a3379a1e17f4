"""``lsgm import diffusers``: a DDPM pipeline's folder, or a `UNet2DModel`'s, becomes a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lsgm.options import Positional, arg, parse

HELP = "folders of the diffusers library: a DDPM pipeline, or a UNet2DModel alone"

DESCRIPTION = """Turn a DDPM of the diffusers library into a run directory.

The folder is one that save_pretrained has written: of a pipeline whose parts are a UNet2DModel and a
scheduler, or of a UNet2DModel alone, for which the DDPMScheduler's defaults hold. Nothing in it is executed
and the library need not be installed. An option that has no equal here is refused by its name, and nothing is
written."""

EXAMPLES = (
    "lsgm import diffusers ddpm-cifar10-32 runs/ddpm-cifar10 --data cifar10",
    "lsgm sample runs/ddpm-cifar10 --sampler.name ddim --sampler.steps 50",
    "lsgm import diffusers my-unet runs/mine --scheduler scheduler_config.json",
)


@dataclass(frozen=True)
class DiffusersOptions:
    """Options of `lsgm import diffusers`."""

    folder: Annotated[Positional[Path], arg(metavar="DIR")]
    """The folder that save_pretrained has written."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Run directory to write; its name becomes the model's."""
    data: str = "unknown"
    """Name of the images that the model was trained on, for the record."""
    scheduler: Path | None = None
    """A scheduler_config.json to take instead of the folder's own."""
    clip: bool = False
    """Clamp every predicted image as the scheduler does (clip_sample); the flow then has kinks, so that
    high-order and adaptive solvers gain less and likelihoods mean little."""


def run(argv: list[str]) -> int:
    """Import the folder, and say what was found and where it lies now."""
    options = parse(
        DiffusersOptions, argv, prog="lsgm import diffusers", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.data.places import file_sha256
    from lsgm.files.names import shown
    from lsgm.files.write import claim
    from lsgm.interop.taken import recorded, write_imported
    from lsgm.runs.derived import refuse_existing
    from lsgm_baselines.diffusers.read import convert, read_folder

    claim(options.out)
    refuse_existing(options.out)
    folder = read_folder(options.folder, options.scheduler)
    native = convert(folder, data=options.data, clip=options.clip)
    source = {
        "format": "diffusers",
        "folder": shown(options.folder.resolve().name),
        "file": folder.weights_file.name,
        "sha256": file_sha256(folder.weights_file),
        "network": recorded(folder.network),
        "scheduler": recorded(folder.scheduler),
    }
    # How long it was trained is not in the folder.
    command = ["lsgm", "import", "diffusers", *argv]
    write_imported(options.out, native, source, command, stage="score", step=0)
    recipe, scheduler = native.recipe, folder.options
    network, betas = recipe.network, recipe.betas
    numbers = sum(tensor.numel() for tensor in native.raw.values())
    origin = "the library's defaults" if folder.scheduler is None else scheduler._class_name
    sampler = f"; its scheduler is the sampler {scheduler.sampler} here" if scheduler.sampler else ""
    print(
        f"UNet2DModel of {network.in_channels} x {network.sample_size}^2 pixels, {numbers:,} numbers, "
        f"predicts {recipe.prediction}"
    )
    print(f"{betas.steps} training times, betas {betas.schedule} ({origin}){sampler}")
    print(recipe.remark)
    print(f"written to {options.out}; `lsgm sample {options.out}` draws from it")
    return 0

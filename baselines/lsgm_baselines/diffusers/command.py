"""``lsgm import diffusers``: a DDPM pipeline's folder, or a `UNet2DModel`'s, becomes a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.generative import Pixels
    from lsgm_baselines.diffusers.read import Folder
    from lsgm_baselines.diffusers.recipe import DDPMRecipe

__all__ = ["HELP", "DiffusersOptions", "run"]

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

PREFIX = "prior.network.unet."
"""What stands before the names of the library's tensors here."""


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
    from lsgm.files.write import claim
    from lsgm.interop.taken import Native, write_imported
    from lsgm.runs.derived import refuse_existing
    from lsgm_baselines.diffusers.read import read_folder, recipe_of

    claim(options.out)
    refuse_existing(options.out)
    folder = read_folder(options.folder, options.scheduler)
    recipe = recipe_of(
        folder.network,
        folder.network_file,
        folder.scheduler,
        folder.scheduler_file,
        data=options.data,
        clip=options.clip,
    )
    state = _state_dict(folder, recipe)
    native = Native(recipe, _pixels(recipe, folder), state, state)
    source, command = _source(options, folder), ["lsgm", "import", "diffusers", *argv]
    # How long it was trained is not in the folder.
    write_imported(options.out, native, source, command, stage="score", step=0)
    print("\n".join(_found(folder, recipe, state)))
    print(f"written to {options.out}; `lsgm sample {options.out}` draws from it")
    return 0


def _pixels(recipe: DDPMRecipe, folder: Folder) -> Pixels:
    from lsgm.errors import CheckpointError, ConfigError
    from lsgm.generative import Pixels

    side = recipe.network.sample_size
    try:
        return Pixels(recipe.network.in_channels, side, side, "discrete", 8)
    except ConfigError as error:
        raise CheckpointError(f"{folder.network_file}: {error}") from None


def _state_dict(folder: Folder, recipe: DDPMRecipe) -> dict[str, Tensor]:
    """Return the weights under this package's names, each checked against the network's shapes."""
    from lsgm.errors import CheckpointError, ConfigError
    from lsgm.interop.taken import named, refuse_larger
    from lsgm_baselines.diffusers.model import empty_networks, sde_of

    try:
        sde_of(recipe.betas)
    except ConfigError as error:
        raise CheckpointError(f"{folder.scheduler_file}: {error}") from None
    network = recipe.network
    layers = network.layers_per_block * len(network.block_out_channels)
    refuse_larger(str(folder.network_file), "network", layers, len(folder.tensors))
    drawn = empty_networks(recipe, _pixels(recipe, folder), folder.network_file)
    wanted = {
        name.removeprefix(PREFIX): tensor
        for name, tensor in drawn.state_dict().items()
        if name.startswith(PREFIX)
    }
    for name in sorted(wanted.keys() | folder.tensors.keys()):
        ours, theirs = wanted.get(name), folder.tensors.get(name)
        if ours is None or theirs is None:
            what = "lacks" if theirs is None else "holds, beyond what its config.json describes,"
            raise CheckpointError(
                f"{folder.weights_file} {what} the tensor '{named(name)}'; give weights and config.json "
                "of one model"
            )
        if ours.shape != theirs.shape:
            raise CheckpointError(
                f"{folder.weights_file}: '{name}' is {list(theirs.shape)} and must be {list(ours.shape)}; "
                "give weights and config.json of one model"
            )
    return {f"{PREFIX}{name}": tensor for name, tensor in folder.tensors.items()}


def _source(options: DiffusersOptions, folder: Folder) -> dict[str, Any]:
    """Return where the model comes from, as JSON values."""
    from lsgm.data.places import file_sha256
    from lsgm.files.names import shown
    from lsgm.interop.taken import recorded

    return {
        "format": "diffusers",
        "folder": shown(options.folder.resolve().name),
        "file": folder.weights_file.name,
        "sha256": file_sha256(folder.weights_file),
        "network": recorded(folder.network),
        "scheduler": recorded(folder.scheduler),
    }


def _found(folder: Folder, recipe: DDPMRecipe, state: dict[str, Tensor]) -> list[str]:
    from lsgm_baselines.diffusers.read import sampler_of, scheduler_of

    betas = recipe.betas
    options = scheduler_of(folder.scheduler or {}, folder.scheduler_file or folder.network_file)
    origin = "the library's defaults" if folder.scheduler is None else options._class_name
    sampler = sampler_of(options)
    return [
        f"UNet2DModel of {recipe.network.in_channels} x {recipe.network.sample_size}^2 pixels, "
        f"{sum(tensor.numel() for tensor in state.values()):,} numbers, predicts {recipe.prediction}",
        f"{betas.steps} training times, betas {betas.schedule} ({origin})"
        + (f"; its scheduler is the sampler {sampler} here" if sampler else ""),
        recipe.remark,
    ]

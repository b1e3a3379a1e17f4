"""``lsgm import nvlabs``: a checkpoint of the LSGM authors' released code becomes a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from torch import Tensor

    from lsgm.interop.nvlabs.read import Official
    from lsgm.interop.taken import Native
    from lsgm.recipes.recipe import LSGMRecipe

HELP = "checkpoints of the authors' code: checkpoint.pt, checkpoint_fid.pt, checkpoint_nll.pt"

DESCRIPTION = """Turn a checkpoint of the LSGM authors' code (arXiv:2106.05931) into a run directory.

All kinds of its files are told apart by their content: the last weights with the averaged ones in the
optimiser's state, the averaged ones alone, and the VAE of stage 1. Nothing in the file is executed. A file
with anything missing, surplus or not known is refused, and nothing is written."""

EXAMPLES = (
    "lsgm import nvlabs checkpoint_fid.pt runs/cifar10-official",
    "lsgm sample runs/cifar10-official --sampler.name dopri5",
    "lsgm train runs/mnist-official/config.toml --init-from runs/mnist-official --out runs/mine",
)

KINDS = {
    "raw": "the last weights, and the prior's averaged ones from the optimiser's state",
    "last": "the last weights alone, without the optimiser's state that had the averaged ones",
    "averaged": "the prior's averaged weights alone, which stand for the last ones too",
    "vae": "the VAE of stage 1, without a score prior",
}
"""What each kind of file holds."""


@dataclass(frozen=True)
class NvlabsOptions:
    """Options of `lsgm import nvlabs`."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The authors' checkpoint."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Run directory to write; its name becomes the model's."""
    reference_compat: bool = False
    """Evaluate as the authors' code does: dropped channels are not masked, and its slips are repeated."""
    ignore: tuple[str, ...] = ()
    """Names of arguments in the file that are not known here and change nothing."""


def run(argv: list[str]) -> int:
    """Import the file, and say what was found and where it lies now."""
    options = parse(
        NvlabsOptions, argv, prog="lsgm import nvlabs", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.files.write import claim
    from lsgm.interop.nvlabs.convert import convert
    from lsgm.interop.nvlabs.read import read_checkpoint
    from lsgm.interop.taken import write_imported
    from lsgm.runs.derived import refuse_existing

    claim(options.out)
    refuse_existing(options.out)
    official = read_checkpoint(options.file)
    native = convert(official, reference_compat=options.reference_compat, ignore=options.ignore)
    write_imported(
        options.out,
        native,
        _source(options, official),
        ["lsgm", "import", "nvlabs", *argv],
        stage="stage1" if official.prior is None else "stage2",
        step=official.step,
    )
    print("\n".join(_found(official, native, compat=options.reference_compat)))
    print(f"written to {options.out}; `lsgm sample {options.out}` draws from it")
    return 0


def _source(options: NvlabsOptions, official: Official) -> dict[str, Any]:
    """Return where the model comes from, as JSON values."""
    from lsgm.data.places import file_sha256
    from lsgm.files.names import shown
    from lsgm.interop.nvlabs.read import ignored
    from lsgm.interop.taken import recorded

    reasons = ignored(official.args, options.ignore)
    return {
        "format": "nvlabs",
        "file": shown(options.file.name),
        "sha256": file_sha256(options.file),
        "holds": KINDS[official.kind],
        "epoch": official.epoch,
        "global_step": official.step,
        "reference_compat": options.reference_compat,
        "args": recorded(official.args),
        "args_ignored": reasons,
    }


def _found(official: Official, native: Native[LSGMRecipe], *, compat: bool) -> list[str]:
    from lsgm.interop.nvlabs.convert import channels_in_use, empty_networks
    from lsgm.model.lsgm import parameter_counts

    counts = parameter_counts(empty_networks(native.recipe, native.pixels))
    if official.prior is None:
        del counts["prior"]
    lines = [
        f"{KINDS[official.kind]}; epoch {official.epoch}, step {official.step}",
        "parameters: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()),
    ]
    active = native.ema.get("prior.active")
    if active is not None and not compat:
        lines += _inactive(active, channels_in_use(official, native.recipe).seen_again, native)
    if official.rule == "adam":
        lines.append("stepped by torch's Adam, which adds weight decay to the gradient, as the recipe says")
    return lines


def _inactive(active: Tensor, again: int, native: Native[LSGMRecipe]) -> list[str]:
    """Say which channels of z_0 are masked, or why none is where the run was to drop some."""
    count, of = int((~active).sum()), f"of {active.numel()} channels of z_0"
    lines = [f"inactive: {count} {of}, masked again"] if count else []
    if again:
        lines.append(
            f"seen again: {again} {of}, dropped at first, when a resumed run "
            "of the authors' code had forgotten its mask; they are left as they were trained"
        )
    elif not count and native.recipe.stage2.drop_inactive:
        lines.append(
            f"inactive: 0 {of}, though the run was to drop those without information: "
            "neither moments nor weights nor logits in the file show that it did"
        )
    return lines

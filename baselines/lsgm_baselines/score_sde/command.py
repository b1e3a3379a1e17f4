"""``lsgm import score-sde``: a checkpoint of score_sde_pytorch becomes a run directory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from lsgm.conformance.stage import Result, Tolerances

HELP = "checkpoints of score_sde_pytorch: DDPM++ and NCSN++ with VP, sub-VP or VE"

CHECKPOINT = "checkpoint.pth"
"""The file of a folder that `lsgm conformance` hands to `conform`."""

DESCRIPTION = """Turn a checkpoint of score_sde_pytorch (arXiv:2011.13456) into a run directory.

Its files do not say what model they hold: name the configuration that it was trained with, or give a TOML
file of that configuration's settings, all in one table. Both the last and the averaged weights are taken;
the averaged ones are measured. Nothing in the file is executed. A file with anything missing, surplus or not
known is refused, and nothing is written."""

EXAMPLES = (
    "lsgm import score-sde checkpoint_26.pth runs/ddpmpp --config vp/cifar10_ddpmpp_continuous",
    "lsgm import score-sde checkpoint_24.pth runs/ncsnpp --config ve/cifar10_ncsnpp_continuous",
    "lsgm import score-sde mine.pth runs/mine --config mine.toml",
)


@dataclass(frozen=True)
class ScoreSDEOptions:
    """Options of `lsgm import score-sde`."""

    file: Annotated[Positional[Path], arg(metavar="FILE")]
    """The checkpoint."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """Run directory to write; its name becomes the model's."""
    config: Annotated[str, arg(metavar="NAME")]
    """Configuration that it was trained with, as in configs/ there, or a TOML file of its settings."""


def run(argv: list[str]) -> int:
    """Import the file, and say what was found and where it lies now."""
    options = parse(
        ScoreSDEOptions, argv, prog="lsgm import score-sde", description=DESCRIPTION, examples=EXAMPLES
    )
    from lsgm.data.places import file_sha256
    from lsgm.files.names import shown
    from lsgm.files.write import claim
    from lsgm.interop.taken import write_imported
    from lsgm.runs.derived import refuse_existing
    from lsgm_baselines.score_sde.convert import convert, read_checkpoint
    from lsgm_baselines.score_sde.settings import find_config

    claim(options.out)
    refuse_existing(options.out)
    config = find_config(options.config)
    checkpoint = read_checkpoint(options.file)
    native = convert(checkpoint, config)
    source = {
        "format": "score-sde",
        "file": shown(options.file.name),
        "sha256": file_sha256(options.file),
        "step": checkpoint.step,
        "ema_decay": checkpoint.decay,
        "config": shown(Path(options.config).name) if options.config.endswith(".toml") else options.config,
        "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(config).items()},
    }
    command = ["lsgm", "import", "score-sde", *argv]
    write_imported(options.out, native, source, command, stage="score", step=checkpoint.step)
    parameters = sum(value.numel() for value in checkpoint.raw.values())
    print(f"last and averaged weights; step {checkpoint.step}; {parameters:,} parameters")
    print(f"written to {options.out}; `lsgm sample {options.out}` draws from it")
    return 0


def conform(folder: Path, tolerances: Tolerances) -> list[Result]:
    """Compare a checkpoint with what score_sde_pytorch computes of it: see the module `convert`."""
    from lsgm_baselines.score_sde.convert import conform as conform_folder

    return conform_folder(folder, tolerances)

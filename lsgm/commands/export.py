"""``lsgm export``: a run's averaged weights as a small folder that describes itself."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import UseAppendAction

from lsgm.config import require
from lsgm.files.write import claim
from lsgm.options import Positional, arg, parse

HELP = "keep a run's averaged weights, small, with a model card"

DESCRIPTION = """Write a run's averaged weights, `state.json`, model card and `config.json` into a new folder.

Every command takes the folder for a model, and `lsgm push` puts it on the Hugging Face Hub, for which its
files are named. It holds neither optimisers nor raw weights: a new run may start from it (`lsgm train RECIPE
--init-from OUT`), but the old one goes on in its own directory alone."""

EXAMPLES = (
    "lsgm export runs/mnist-small checkpoints/mnist-small/lsgm",
    "lsgm export runs/mnist-small checkpoints/mnist-small/vae --stage stage1 --name mnist-small-vae",
    "lsgm export --card checkpoints/mnist-small/lsgm --measured results.jsonl --license apache-2.0",
)


@dataclass(frozen=True)
class ExportOptions:
    """Options of `lsgm export`."""

    model: Annotated[Positional[Path | None], arg(metavar="RUN")] = None
    """A run directory or one of its checkpoints."""
    out: Annotated[Positional[Path | None], arg(metavar="OUT")] = None
    """The folder to write."""
    stage: str = ""
    """Take the last checkpoint of this stage: that of an LSGM's stage1 is a VAE with a Normal prior."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What weights are rounded to; whatever is long in one dimension only stays float32."""
    name: str = ""
    """What tables call the model; the run's name unless given, with the stage where that is not the last."""
    card: Path | None = None
    """Only write the model card of this exported folder anew."""
    measured: tuple[Path, ...] = ()
    """Result files (JSON lines); the card shows their rows of these very weights."""
    limit: UseAppendAction[tuple[str, ...]] = ()
    """A sentence for the card on what the model is not good for; may be repeated."""
    license: str = ""
    """The licence of the weights, by the Hub's identifier (apache-2.0); the card has none unless given."""
    json: bool = False
    """Print what was written as one JSON line on standard output."""

    def __post_init__(self) -> None:
        if self.card is not None:
            require(
                self.model is None,
                "--card rewrites the card of a folder that is there; leave out RUN and OUT",
            )
        else:
            require(
                self.model is not None and self.out is not None,
                "give the run and the folder to write, `lsgm export RUN OUT`, or --card with a folder",
            )


def run(argv: list[str]) -> int:
    """Write the folder, or its card, and say where it is."""
    options = parse(ExportOptions, argv, prog="lsgm export", description=DESCRIPTION, examples=EXAMPLES)
    if options.card is not None:
        from lsgm.runs.export import write_card

        card = write_card(options.card, options.measured, options.limit, options.license)
        print(json.dumps({"card": str(card)}) if options.json else f"{card} written")
        return 0
    assert options.model is not None
    assert options.out is not None
    _export(options, options.model, options.out)
    return 0


def _export(options: ExportOptions, source: Path, out: Path) -> None:
    from lsgm.runs.checkpoint import weights_file
    from lsgm.runs.export import checkpoint_to_export, export, write_card

    claim(out)
    checkpoint = checkpoint_to_export(source, options.stage)
    state = export(
        checkpoint,
        out,
        dtype=options.dtype,
        name=options.name,
        limits=options.limit,
        license=options.license,
    )
    if options.measured:
        write_card(out, options.measured)
    file = state["files"][weights_file(state)]
    if options.json:
        print(json.dumps({"name": state["name"], "out": str(out), "step": state["step"], **file}))
    else:
        print(
            f"{state['name']}, step {state['step']}, in {file['bytes']:,} bytes: {out}; `lsgm sample {out}`"
        )

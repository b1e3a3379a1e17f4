"""``lsgm push``: an exported model on the Hugging Face Hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lsgm.options import Positional, arg, parse

HELP = "put an exported model on the Hugging Face Hub"

DESCRIPTION = """Put a folder that `lsgm export` wrote on the Hugging Face Hub.

The repository is made where there is none. Every command then takes `hf://OWNER/NAME` for the model. Sign in
first, by `hf auth login` or the variable HF_TOKEN; `pip install 'lsgm-bench[hub]'` brings what this needs.
HF_ENDPOINT names another server than huggingface.co."""

EXAMPLES = (
    "lsgm push checkpoints/mnist-small/lsgm me/mnist-small",
    "lsgm push checkpoints/mnist-small/lsgm me/mnist-small@rounder --private",
    "lsgm sample hf://me/mnist-small --out pictures",
)


@dataclass(frozen=True)
class PushOptions:
    """Options of `lsgm push`."""

    folder: Annotated[Positional[Path], arg(metavar="FOLDER")]
    """A folder that `lsgm export` wrote; of what else lies in it nothing is sent."""
    name: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    """The repository, with @BRANCH after it for another branch than main, which must be there."""
    private: bool = False
    """Make a new repository that others do not see."""
    replace: bool = False
    """Put the model over whatever else is there; the history of the repository keeps that."""
    json: bool = False
    """Print what was done as one JSON line on standard output."""


def run(argv: list[str]) -> int:
    """Send the files, and say where they are."""
    options = parse(PushOptions, argv, prog="lsgm push", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm.hub import parse_name
    from lsgm.runs.push import push

    name = parse_name(options.name)
    done = push(options.folder.expanduser(), name, private=options.private, replace=options.replace)
    if options.json:
        print(json.dumps({"name": str(name), **done._asdict()}))
    else:
        said = "is" if done.changed else "was there already, and is"
        print(f"{name} {said} at commit {done.commit[:12]}: {done.url}; `lsgm sample {name}`")
    return 0

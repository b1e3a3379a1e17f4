"""``lsgm import``: models trained by other code become run directories of this one; the format is a word."""

from __future__ import annotations

import importlib

from lsgm.errors import ConfigError, did_you_mean

__all__ = ["FORMATS", "HELP", "run"]

HELP = "turn a checkpoint of the LSGM authors' code into a run of this one"

FORMATS = {"nvlabs": "lsgm.interop.nvlabs.command"}
"""The module, with ``HELP`` and ``run(argv)``, that reads each format."""


def run(argv: list[str]) -> int:
    """Import a file of the format that the first word names, with the words after it."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_page())
        return 0
    name, *rest = argv
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS) or f"; there is {', '.join(FORMATS)}"
        raise ConfigError(f"there is no format '{name}'{hint}")
    return int(importlib.import_module(FORMATS[name]).run(rest))


def _page() -> str:
    from lsgm.cli import help_line

    width = max(map(len, FORMATS))
    return "\n".join(
        [
            "usage: lsgm import FORMAT FILE OUT [OPTIONS]",
            "",
            "Turn a model trained by other code into a run directory that every other command takes.",
            "Nothing in the file is executed.",
            "",
            *(f"  {name:<{width}}  {help_line(module)}" for name, module in FORMATS.items()),
            "",
            "examples:",
            "  lsgm import nvlabs checkpoint_fid.pt runs/cifar10-official",
            "  lsgm import nvlabs --help",
        ]
    )

"""``lsgm import``: models trained by other code become run directories of this one; the format is a word.

Packages offer formats through the entry-point group ``lsgm.importers``: each is a module with ``HELP: str``,
one line, and ``run(argv: list[str]) -> int``, which takes the words after the format; with ``CHECKPOINT`` and
``conform`` it also takes part in `lsgm conformance`. The list of formats is printed without importing any.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint

from lsgm.discovery import offers
from lsgm.errors import ConfigError, did_you_mean

__all__ = ["HELP", "run"]

HELP = "turn a checkpoint of other code into a run of this one"


def run(argv: list[str]) -> int:
    """Import a file of the format that the first word names, with the words after it."""
    formats = offers("lsgm.importers")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_page(formats))
        return 0
    name, *rest = argv
    if name not in formats:
        hint = did_you_mean(name, formats) or f"; there is {', '.join(formats)}"
        raise ConfigError(f"there is no format '{name}'{hint}")
    return int(formats[name].load().run(rest))


def _page(formats: Mapping[str, EntryPoint]) -> str:
    from lsgm.cli import help_line

    width = max((len(name) for name in formats), default=0)
    return "\n".join(
        [
            "usage: lsgm import FORMAT FILE OUT [OPTIONS]",
            "",
            "Turn a model trained by other code into a run directory that every other command takes.",
            "Nothing in the file is executed.",
            "",
            *(f"  {name:<{width}}  {help_line(point.value)}" for name, point in formats.items()),
            "",
            "examples:",
            "  lsgm import nvlabs checkpoint_fid.pt runs/cifar10-official",
            "  lsgm import nvlabs --help",
        ]
    )

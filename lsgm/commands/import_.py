"""``lsgm import``: models trained by other code become run directories of this one; the format is a word.

Packages offer formats through the entry-point group ``lsgm.importers``: each is a module with ``HELP: str``,
one line, and ``run(argv: list[str]) -> int``, which takes the words after the format; with ``CHECKPOINT`` and
``conform`` it also takes part in `lsgm conformance`. The list of formats is printed without importing any.
"""

from __future__ import annotations

from lsgm.discovery import choose, offers

HELP = "turn a checkpoint of other code into a run of this one"

_PAGE = """usage: lsgm import FORMAT FILE OUT [OPTIONS]

Turn a model trained by other code into a run directory that every other command takes.
Nothing in the file is executed.

{list}

examples:
  lsgm import nvlabs checkpoint_fid.pt runs/cifar10-official
  lsgm import nvlabs --help"""


def run(argv: list[str]) -> int:
    """Import a file of the format that the first word names, with the words after it."""
    formats = offers("lsgm.importers")
    name, rest = choose(argv, formats, page=_PAGE, what="format")
    return int(formats[name].load().run(rest)) if name else 0

"""``lsgm bench``: what things cost on this machine, one benchmark a word.

A benchmark of this package is an entry of `lsgm.bench.options.BENCHMARKS` and the module of its name; one of
another package is a module with ``HELP`` and ``run(argv) -> int`` in the entry-point group ``lsgm.bench``.
"""

from __future__ import annotations

import importlib

from lsgm.bench.options import BENCHMARKS
from lsgm.discovery import choose, offers
from lsgm.options import parse

HELP = "measure what training, likelihoods and sampling cost on this machine"

_PAGE = """usage: lsgm bench WHAT [OPTIONS]

Measure what things cost on this machine; a Markdown table, or JSON lines with --json.

{list}

examples:
  lsgm bench train
  lsgm bench train --help"""


def run(argv: list[str]) -> int:
    """Run the benchmark that the first word names, with the words after it."""
    others = offers("lsgm.bench")
    own = {name: benchmark.help for name, benchmark in BENCHMARKS.items()}
    name, rest = choose(argv, {**own, **others}, page=_PAGE, what="benchmark")
    if not name:
        return 0
    if name in others:
        return int(others[name].load().run(rest))
    kind = BENCHMARKS[name]
    options = parse(
        kind,
        rest,
        prog=f"lsgm bench {name}",
        description=kind.description,
        examples=kind.examples,
        may_be_empty=kind.may_be_empty,
    )
    return int(importlib.import_module(f"lsgm.bench.{name}").run(options))

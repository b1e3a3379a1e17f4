"""``lsgm bench``: what things cost on this machine, one benchmark a word."""

from __future__ import annotations

import importlib

from lsgm.bench import benchmarks
from lsgm.errors import ConfigError, did_you_mean

__all__ = ["HELP", "run"]

HELP = "measure what training, likelihoods and sampling cost on this machine"


def run(argv: list[str]) -> int:
    """Run the benchmark that the first word names, with the words after it."""
    known = benchmarks()
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_page(known))
        return 0
    what, *rest = argv
    if what not in known:
        hint = did_you_mean(what, known) or f"; there is {', '.join(known)}"
        raise ConfigError(f"there is no benchmark '{what}'{hint}")
    return int(importlib.import_module(known[what]).run(rest))


def _page(known: dict[str, str]) -> str:
    from lsgm.cli import help_line

    width = max(map(len, known))
    return "\n".join(
        [
            "usage: lsgm bench WHAT [OPTIONS]",
            "",
            "Measure what things cost on this machine; a Markdown table, or JSON lines with --json.",
            "",
            *(f"  {name:<{width}}  {help_line(module)}" for name, module in known.items()),
            "",
            "examples:",
            "  lsgm bench train",
            "  lsgm bench train --help",
        ]
    )

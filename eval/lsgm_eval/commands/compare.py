"""``lsgm compare``: what changed between two runs, in configuration, code, data and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from lsgm.config import require
from lsgm.logs import log
from lsgm.options import Positional, arg, parse

if TYPE_CHECKING:
    from lsgm_eval.compare.facts import Compared

HELP = "two runs side by side: what changed in config, code, data, and B - A of every number"

DESCRIPTION = """Show what changed from run A to run B: configuration, code, data, training, and every number
that both have, as B - A with a 95 % interval.

Likelihoods are compared image by image, and distances seed by seed, where both folders hold what that
takes; other numbers by their recorded intervals, marked as unpaired. What cannot be compared is said, with
the reason. A folder with results alone says where its model was trained, and that run is read where it is
still there."""

EXAMPLES = (
    "lsgm compare runs/a runs/b",
    "lsgm compare results/before results/after --model lsgm",
    "lsgm compare results/both results/both --model A=lsgm,B=sgm",
    "lsgm compare results/before results/after --fail-if-worse   # for CI: status 1 where B is worse",
    "lsgm compare runs/a runs/b --md > difference.md",
)


@dataclass(frozen=True)
class CompareOptions:
    """CompareOptions of ``lsgm compare``."""

    run_a: Annotated[Positional[Path], arg(metavar="RUN_A")]
    """A training run, a checkpoint (hf://OWNER/NAME is one), or a folder of results (results.jsonl); or all
    in one."""
    run_b: Annotated[Positional[Path], arg(metavar="RUN_B")]
    """Another one; differences are B - A."""
    model: str = ""
    """Where a folder holds several models: NAME, or A=NAME,B=NAME (default: those of equal names)."""
    json: bool = False
    """Print differences and numbers as JSON lines on standard output."""
    md: bool = False
    """Print a Markdown document."""
    fail_if_worse: bool = False
    """End with status 1 where B is worse in a number, judged together with all others (Holm, 5 %)."""

    def __post_init__(self) -> None:
        require(not (self.json and self.md), "--json and --md are two formats: give one of them")


def run(argv: list[str]) -> int:
    """Compare two runs; 0, or with --fail-if-worse 1 where the second one is worse."""
    options = parse(CompareOptions, argv, prog="lsgm compare", description=DESCRIPTION, examples=EXAMPLES)
    from lsgm_eval.compare.facts import compare_runs, to_json_rows, to_markdown, to_text

    found = compare_runs(options.run_a, options.run_b, options.model)
    if options.json:
        for row in to_json_rows(found):
            print(row)
    else:
        print(to_markdown(found) if options.md else to_text(found))
    return _judge(found) if options.fail_if_worse else 0


def _judge(found: Compared) -> int:
    """Name what is worse on standard error. Raises UserError where there was nothing to judge."""
    from lsgm.errors import UserError

    if not found.judged:
        raise UserError(
            "no number of both runs could be judged, so that --fail-if-worse has no answer: measure both "
            "under one task and tier"
        )
    for line in found.worse:
        gap = line.difference
        if gap is not None and gap.low is not None:
            names = line.models[0] if line.models[0] == line.models[1] else " and ".join(line.models)
            log.error(
                f"worse: {line['task']} {line.metric} of {names}: B - A is {gap.value:+.3g} "
                f"[{gap.low:+.3g}, {gap.high:+.3g}]"
            )
    return 1 if found.worse else 0

"""``lsgm eval``: measure models under a named task."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import UseAppendAction

from lsgm.commands.options import Positional, arg, parse

__all__ = ["HELP", "Options", "run"]

HELP = "measure models: distances, likelihoods, cost, all with intervals"

EXAMPLES = (
    "lsgm eval glyphs --model runs/glyphs-lsgm",
    "lsgm eval glyphs --model lsgm=runs/a --model vae=runs/b --tier quick --out results/both",
    "lsgm eval mnist --model my_package.models:factory --tier smoke --json > rows.jsonl",
    "lsgm eval glyphs --model runs/glyphs-lsgm --only nelbo   # one measurement; the same command resumes",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm eval``."""

    task: Annotated[Positional[str], arg(metavar="TASK")]
    """A task of `lsgm ls tasks`, or a TOML file of your own."""
    model: UseAppendAction[tuple[str, ...]] = ()
    """Run directory, checkpoint or package.module:factory, named by NAME= before it; repeat for more."""
    tier: str = "quick"
    """How much is measured: smoke, quick or full; numbers of different tiers are never comparable."""
    out: Path | None = None
    """Folder of results.jsonl, samples/ and per-image/ (default: results/TASK-TIER)."""
    only: UseAppendAction[tuple[Literal["quality", "nelbo", "iw", "ode", "curve"], ...]] = ()
    """Measure this alone; may be repeated."""
    batch_size: int = 250
    """Images at a time; no number but the seconds depends on it."""
    device: str = "auto"
    """Where the model runs, such as cpu or cuda."""
    allow_failures: bool = False
    """Leave out images whose likelihood cannot be told, and say how many, instead of ending at the first."""
    json: bool = False
    """Print the rows as JSON lines on standard output instead of a table."""


def run(argv: list[str]) -> int:
    """Evaluate the models named on the command line; 0 where every number was measured."""
    options = parse(
        Options,
        argv,
        prog="lsgm eval",
        description="Measure models under a named task: every number with its interval and its cost.",
        examples=list(EXAMPLES),
    )
    return _run(options)


def _run(options: Options) -> int:
    """Import what is heavy, evaluate, print."""
    from lsgm.devices import pick_device
    from lsgm.errors import UserError
    from lsgm_eval.model_specs import open_model
    from lsgm_eval.runner import MEASUREMENTS, evaluate
    from lsgm_eval.tasks import load_task

    if not options.model:
        raise UserError("there is nothing to measure; name a run with --model DIR")
    if options.batch_size < 1:
        raise UserError(f"batch-size is {options.batch_size}; it must be at least 1")
    task = load_task(options.task)
    task.tier(options.tier)
    device = str(pick_device(options.device))
    models = [open_model(spec, device=device) for spec in options.model]
    out = options.out or Path("results") / f"{task.name}-{options.tier}"
    rows = evaluate(
        models,
        task,
        options.tier,
        out,
        only=options.only or MEASUREMENTS,
        batch_size=options.batch_size,
        device=device,
        allow_failures=options.allow_failures,
    )
    if options.json:
        for row in rows:
            print(json.dumps(row, allow_nan=False))
    else:
        print("\n".join(_table(rows)))
    print(f"lsgm: rows in {out / 'results.jsonl'}, sample grids in {out / 'samples'}", file=sys.stderr)
    return 0


def _table(rows: list[dict[str, Any]]) -> list[str]:
    """Return aligned lines: model, metric, value, interval, n, sampler."""
    cells = [("model", "metric", "value", "95 % interval", "n", "sampler")]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.5g}"
        interval = "" if row["ci_low"] is None else f"{row['ci_low']:.5g} .. {row['ci_high']:.5g}"
        n = "" if row["n"] is None else str(row["n"])
        cells.append((row["model"], row["metric"], value, interval, n, row["sampler"] or ""))
    widths = [max(len(line[k]) for line in cells) for k in range(len(cells[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]

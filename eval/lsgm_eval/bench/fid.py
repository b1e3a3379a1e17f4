"""``lsgm bench fid``: what a Frechet distance and the pass behind it cost, beside the field's packages."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from lsgm.options import parse
from lsgm_eval.bench.options import Options

__all__ = ["HELP", "run"]

HELP = "time and memory of Frechet distances and of the pass, beside torch-fidelity and clean-fid"

DESCRIPTION = """Measure four parts in one run. `distance`: the Frechet distance of given moments, by this
package, by SciPy's sqrtm of the product of covariances (clean-fid, pytorch-fid), and by numpy's eigvals of it
(torch-fidelity). `memory`: the peak of a pass over a model of free images, by their number, each in a process
of its own. `pass`: a pass over ready images against its extractor alone. `packages`: the same PNG files end
to end with torch-fidelity and clean-fid. Ways are taken in turn. Inception's weights are random unless
given, which costs the same."""

EXAMPLES = (
    "lsgm bench fid",
    "lsgm bench fid --only distance --repeats 5",
    "lsgm bench fid --only pass,packages --weights pt_inception-2015-12-05.pth --images 256",
)


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench fid", description=DESCRIPTION, examples=EXAMPLES)
    import torch

    from lsgm.bench.measuring import describe, machine
    from lsgm_eval.bench.fid_ways import installed, page

    about = machine(torch.device("cpu")) | installed()
    rows = [{"part": part, **row} for part in options.parts for row in _measures()[part](options)]
    if options.json:
        print("\n".join(json.dumps({"bench": "fid", **row, **about}) for row in rows))
    else:
        print(page(rows, about=describe(about), versions=installed()))
    return 0


def _measures() -> dict[str, Callable[[Options], list[dict[str, Any]]]]:
    from lsgm_eval.bench.fid_memory import measure_memory
    from lsgm_eval.bench.fid_ways import measure_distance, measure_packages, measure_pass

    return {
        "distance": lambda o: measure_distance(o.dim, o.rows, repeats=o.repeats, seed=o.seed),
        "memory": lambda o: measure_memory(o.image_counts),
        "pass": measure_pass,
        "packages": measure_packages,
    }

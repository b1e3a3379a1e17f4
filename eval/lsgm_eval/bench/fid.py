"""``lsgm bench fid``: what a Frechet distance and the pass behind it cost, beside the field's packages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from lsgm.options import parse
from lsgm_eval.bench.options import FidBenchOptions

HELP = "time and memory of Frechet distances and of the pass, beside torch-fidelity and clean-fid"

DESCRIPTION = """Measure five parts in one run. `distance`: the Frechet distance of given moments, by this
package, by SciPy's sqrtm of the product of covariances (clean-fid, pytorch-fid), and by numpy's eigvals of it
(torch-fidelity). `reading`: folders of PNG files by a loop over Pillow, and by one and two workers. `memory`:
the peak of a pass over a model of free images, by their number, each in a process of its own. `pass`: a pass
over ready images against its extractor alone, on --device; the other parts are the processor's. `packages`:
the same PNG files end to end with torch-fidelity and clean-fid. Ways are taken in turn. Inception's weights
are random unless given, which costs the same."""

EXAMPLES = (
    "lsgm bench fid",
    "lsgm bench fid --only distance --repeats 5",
    "lsgm bench fid --only pass,packages --weights pt_inception-2015-12-05.pth --images 256",
)


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(FidBenchOptions, argv, prog="lsgm bench fid", description=DESCRIPTION, examples=EXAMPLES)
    import torch

    from lsgm.bench.measuring import measured
    from lsgm_eval.bench.fid_memory import measure_memory
    from lsgm_eval.bench.fid_reading import measure_reading
    from lsgm_eval.bench.fid_ways import installed, measure_distance, measure_packages, measure_pass, page

    measures: dict[str, Callable[[FidBenchOptions, torch.device], list[dict[str, Any]]]] = {
        "distance": lambda options, device: measure_distance(options),
        "reading": lambda options, device: measure_reading(options),
        "memory": lambda options, device: measure_memory(options.image_counts),
        "pass": measure_pass,
        "packages": lambda options, device: measure_packages(options),
    }

    def rows(device: torch.device) -> list[dict[str, Any]]:
        found = ((part, row) for part in options.parts for row in measures[part](options, device))
        return [{"part": part, **row, **installed()} for part, row in found]

    return measured("fid", options, rows, partial(page, versions=installed()))

"""One pass from a model's seeds to everything that is measured of its images."""

from __future__ import annotations

from lsgm_eval.passes.plan import Accumulator, Accumulators, Branch, class_sums
from lsgm_eval.passes.run import Pass, run_pass

__all__ = ["Accumulator", "Accumulators", "Branch", "Pass", "class_sums", "run_pass"]

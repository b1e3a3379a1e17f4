"""The harness: quality, likelihood and cost of any generative model, with intervals, under named tasks.

``lsgm_eval.evaluate(models, task)``, ``nfe_curve(models, task)`` and ``fid(reference, samples)`` are `lsgm
eval`, `lsgm nfe` and `lsgm fid` in one call; ``as_model`` is what they make of a path or of a class of one's
own. A name is loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsgm_eval.models import as_model
    from lsgm_eval.python import evaluate, nfe_curve
    from lsgm_eval.two_sides.call import fid

__all__ = ["as_model", "evaluate", "fid", "nfe_curve"]

_PLACES = {
    "as_model": "lsgm_eval.models",
    "evaluate": "lsgm_eval.python",
    "fid": "lsgm_eval.two_sides.call",
    "nfe_curve": "lsgm_eval.python",
}


def __getattr__(name: str) -> Any:
    """Load what the package offers when it is asked for: ``lsgm --help`` imports the package alone."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module 'lsgm_eval' has no attribute '{name}'")

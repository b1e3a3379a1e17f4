"""Tables, figures and reports from result files. Imports no torch, needs no model, reads JSON lines only.

``lsgm_reports.report(frame, out)`` is `lsgm report` in one call, of the rows of a DataFrame.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsgm_reports.python import report

__all__ = ["report"]


def __getattr__(name: str) -> Any:
    """Load what the package offers when it is asked for."""
    if name == "report":
        return importlib.import_module("lsgm_reports.python").report
    raise AttributeError(f"module 'lsgm_reports' has no attribute '{name}'")

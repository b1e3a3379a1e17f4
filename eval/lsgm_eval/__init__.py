"""The harness: quality, likelihood and cost of any generative model, with intervals, under named tasks.

``lsgm_eval.fid(reference, samples)`` is `lsgm fid` in one call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lsgm_eval.two_sides.call import fid

__all__ = ["fid"]


def __getattr__(name: str) -> Any:
    """Import what the package offers when it is asked for: ``lsgm --help`` imports the package alone."""
    if name == "fid":
        from lsgm_eval.two_sides.call import fid

        return fid
    raise AttributeError(f"module 'lsgm_eval' has no attribute '{name}'")

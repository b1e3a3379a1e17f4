"""The stages in the order in which a model runs, and the run itself."""

from __future__ import annotations

from lsgm.conformance.folder import Golden
from lsgm.conformance.model import load
from lsgm.conformance.prior_stages import PRIOR
from lsgm.conformance.stages import Result, Tolerances, examine
from lsgm.conformance.step_stages import AVERAGES, GRADIENTS, TIMES
from lsgm.conformance.vae_stages import DECODE, VAE_EVAL

__all__ = ["FAMILIES", "conform"]

FAMILIES = (VAE_EVAL, PRIOR, DECODE, TIMES, AVERAGES, GRADIENTS)
"""Eval mode first: the training step moves the running statistics of batch normalisation."""


def conform(golden: Golden, tolerances: Tolerances) -> list[Result]:
    """Compare a folder's model with its values; raises UserError where they do not belong together."""
    return examine(golden, load(golden), FAMILIES, tolerances)

"""The families of sample-quality metrics, and how a row's name says which family in which feature space."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FAMILIES", "HEADLINE", "OFFICIAL", "Named", "named"]

FAMILIES = {
    "frechet": (
        "Fréchet",
        "Fréchet distance to the reference images in the feature space '{space}', plug-in estimate: "
        "comparable at the same n only, and not a FID",
    ),
    "kernel": (
        "Kernel",
        "squared maximum mean discrepancy in the feature space '{space}' (polynomial, unbiased: may be < 0)",
    ),
    "inception_score": (
        "Class score",
        "exp of the mean KL from the average class probabilities to an image's, classified by '{space}': "
        "knows no reference, and is not an Inception Score",
    ),
    "precision": (
        "Precision",
        "share of samples that are nearer to some reference image than its own k-th neighbour is, in the "
        "feature space '{space}' (arXiv:1904.06991)",
    ),
    "recall": (
        "Recall",
        "share of reference images that are nearer to some sample than its own k-th neighbour is, in the "
        "feature space '{space}' (arXiv:1904.06991)",
    ),
    "density": (
        "Density",
        "number of reference images to which a sample is nearer than their k-th neighbour, over k, in the "
        "feature space '{space}' (arXiv:2002.09797): about 1 for the data itself, and it may exceed 1",
    ),
    "coverage": (
        "Coverage",
        "share of reference images that have a sample nearer than their k-th neighbour, in the feature "
        "space '{space}' (arXiv:2002.09797)",
    ),
    "frechet_infinity": (
        "Fréchet∞",
        "Fréchet distance in the feature space '{space}' extrapolated to infinitely many samples "
        "(arXiv:1911.07023), and not a FID",
    ),
    "spatial_frechet": (
        "Spatial Fréchet",
        "Fréchet distance of features that keep their place in the image, in the feature space '{space}', "
        "and not an sFID",
    ),
    "memorised": (
        "Memorised",
        "share of samples nearer to a training image than 1 in 100 held-out images is, less the share of "
        "held-out images, in the feature space '{space}': about 0 where nothing is copied",
    ),
}
"""Family -> label and meaning; the table's columns are in this order."""

HEADLINE = ("frechet", "kernel", "inception_score")
"""Families that a model is known by; the others are details."""

_INCEPTION = "of Inception-v3 features by torch-fidelity's protocol"
_CLEAN = "of Inception-v3 features by clean-fid's protocol, which resizes otherwise than torch-fidelity"
_SMALL = "fewer samples raise it, so that it compares at the same n only"

OFFICIAL = {
    "fid": ("frechet", "inception", "FID", f"Fréchet distance {_INCEPTION}; {_SMALL}"),
    "fid_clean": (
        "frechet",
        "inception-clean",
        "FID (clean-fid)",
        f"Fréchet distance {_CLEAN}: the two FIDs do not compare with each other; {_SMALL}",
    ),
    "kid": (
        "kernel",
        "inception",
        "KID",
        f"squared maximum mean discrepancy {_INCEPTION}, over all pairs (unbiased: may be < 0)",
    ),
    "kid_clean": (
        "kernel",
        "inception-clean",
        "KID (clean-fid)",
        f"squared maximum mean discrepancy {_CLEAN}, over all pairs (unbiased: may be < 0)",
    ),
    "inception_score": (
        "inception_score",
        "inception",
        "Inception Score",
        "exp of the mean KL from the average class probabilities to an image's, by Inception-v3 with "
        "torch-fidelity's protocol; it knows no reference",
    ),
    "fid_infinity": (
        "frechet_infinity",
        "inception",
        "FID∞",
        "FID by torch-fidelity's protocol extrapolated to infinitely many samples (arXiv:1911.07023)",
    ),
    "sfid": (
        "spatial_frechet",
        "inception",
        "sFID",
        "Fréchet distance of Inception-v3 features that keep their place in the image (arXiv:2103.03841)",
    ),
    **{
        family: (family, "inception", *FAMILIES[family])
        for family in ("precision", "recall", "density", "coverage", "memorised")
    },
}
"""Name of a metric as numbers are published under it -> family, space, label and meaning."""


@dataclass(frozen=True)
class Named:
    """What the name of a metric says: ``frechet_infinity_glyphs`` is a family in a feature space."""

    family: str
    space: str
    label: str
    meaning: str
    official: bool
    """Whether it is what others publish under this label."""


def named(metric: str) -> Named | None:
    """Return family and space of a metric's name, or None where it is of no feature space.

    Of several families that a name begins with the longest is meant.
    """
    if metric in OFFICIAL:
        family, space, label, meaning = OFFICIAL[metric]
        return Named(family, space, label, meaning.format(space=space), True)
    found = [family for family in FAMILIES if metric.startswith(f"{family}_")]
    if not found:
        return None
    family = max(found, key=len)
    space = metric.removeprefix(f"{family}_")
    label, meaning = FAMILIES[family]
    return Named(family, space, label, meaning.format(space=space), False)

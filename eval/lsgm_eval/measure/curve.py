"""The NFE curve: the distance to the data at every sampler setting of the task, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsgm.generative import GenerativeModel
from lsgm_eval.measure.quality import Drawing, as_distances, draw, first_images, sampling, space_rows
from lsgm_eval.measure.space import Gathered, Space
from lsgm_eval.passes.run import Pass
from lsgm_eval.rows import Context

__all__ = ["curve_point", "headline_point"]


def curve_point(
    context: Context, model: GenerativeModel, spaces: Sequence[Space], how: Drawing, split: str | None
) -> list[dict[str, Any]]:
    """Return the rows of one point: the spaces' statistics beside what an image costs, group ``curve``.

    All points of a curve use the same seeds, so that neighbours differ by the sampler alone.
    """
    found = draw(model, spaces, how)
    shared = sampling(model, found, how) | {"group": "curve", "split": split}
    rows = []
    for space in spaces:
        rows += space_rows(context, Gathered.of(found, space.extractor), space, shared, "")[0]
    return rows


def headline_point(
    context: Context,
    found: Pass,
    spaces: Sequence[Space],
    shared: dict[str, Any],
    count: int,
) -> list[dict[str, Any]]:
    """Return the headline run's point of the curve from its first ``count`` images, without drawing again.

    The Frechet distance is biased by its n, so that a curve holds points of one n only. ``count`` is at most
    the number of rows that a pass keeps of all its images.
    """
    nfe, start = found.nfe[:count].double(), int(str(shared["seeds"]).split("-")[0])
    known = shared["nfe_mean"] is not None
    flops = shared["flops_per_image"]
    if known and flops and shared["nfe_mean"]:
        decoder = shared["decoder_flops_per_image"]
        flops = decoder + (flops - decoder) * float(nfe.mean()) / shared["nfe_mean"]
    fields = shared | {
        "group": "curve",
        "n": count,
        "nfe_mean": float(nfe.mean()) if known else None,
        "nfe_max": float(nfe.max()) if known else None,
        **{key: _part(shared[key], count / len(found.nfe)) for key in ("seconds", "decoder_seconds")},
        "flops_per_image": flops,
        "seeds": f"{start}-{start + count - 1}",
    }
    rows = []
    for space in spaces:
        gathered = first_images(Gathered.of(found, space.extractor), count)
        rows += space_rows(context, gathered, as_distances(space), fields, "")[0]
    return rows


def _part(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else seconds * share

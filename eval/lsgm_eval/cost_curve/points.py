"""The points of a sweep: samplers x budgets, each that fits its model, the cheapest first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError
from lsgm.generative import GenerativeModel
from lsgm.sampling import Sampler, find_sampler
from lsgm_eval.measure.quality import Drawing, draw, sampling, space_rows
from lsgm_eval.measure.space import Space
from lsgm_eval.models.open import unwrapped
from lsgm_eval.rows import Context
from lsgm_eval.samples.gather import Pass

__all__ = ["REFERENCE", "check_fit", "curve_point", "expected_nfe", "headline_point", "plan_points"]

REFERENCE = SamplerConfig("dopri5", rtol=1e-5, atol=1e-5)
"""The procedure of arXiv:2106.05931: RK45 at 1e-5."""


def plan_points(
    samplers: Sequence[SamplerConfig], nfe: Sequence[int], tolerances: Sequence[float]
) -> tuple[SamplerConfig, ...]:
    """Return every sampler at every budget, the cheapest first and none twice.

    A fixed-step sampler takes the most steps that ``nfe`` evaluations allow, so that neighbouring budgets may
    be one point. Tolerances are those of the adaptive samplers, or of dopri5 where none is named. Raises
    ConfigError for a budget below a sampler's minimum and where a sampler has no budget at all.
    """
    fixed = [sampler for sampler in samplers if not find_sampler(sampler.name).adaptive]
    adaptive = [sampler for sampler in samplers if find_sampler(sampler.name).adaptive]
    require(bool(nfe) or not fixed, "--nfe is empty: give the budgets of the samplers with fixed steps")
    require(
        bool(tolerances) or not adaptive,
        f"--tol is empty: give the tolerances of {adaptive[0].name}" if adaptive else "",
    )
    points = [
        replace(sampler, steps=find_sampler(sampler.name).steps_within(budget, sampler))
        for sampler in fixed
        for budget in nfe
    ]
    for sampler in adaptive or [SamplerConfig(REFERENCE.name)]:
        points += [replace(sampler, rtol=tolerance, atol=tolerance) for tolerance in tolerances]
    return tuple(sorted(dict.fromkeys(points), key=expected_nfe))


def expected_nfe(point: SamplerConfig) -> float:
    """Return the evaluations of a point; of an adaptive solver's a guess, to order points by."""
    exact = find_sampler(point.name).evaluations(point)
    # A solver of order 5 takes steps of about tol^(1/5); the factor is what latents need at 1e-5.
    return float(exact) if exact is not None else 12.0 * point.rtol**-0.2


def check_fit(model: GenerativeModel, points: Iterable[SamplerConfig]) -> None:
    """Raise ConfigError for the first point whose sampler, grid or time end the model's SDE does not fit.

    Of a model that shows no SDE, as a factory's, nothing is known before it is drawn from.
    """
    sde = getattr(getattr(unwrapped(model), "prior", None), "sde", None)
    if sde is None:
        return
    from lsgm.sampling.grids import OPTIMISED, make_grid, time_end_of

    for point in points:
        sampler = find_sampler(point.name)
        try:
            _fits(sampler, sde.is_vp_like, type(sde).__name__)
            end, grid = time_end_of(sde, point.time_end), point.grid or sde.grid
            if not sampler.adaptive and grid != OPTIMISED:
                make_grid(sde, grid, 2, end)
        except ConfigError as error:
            raise ConfigError(f"{model.name}: {error}") from None


def _fits(sampler: Sampler, vp_like: bool, sde: str) -> None:
    require(
        vp_like or not sampler.vp_only,
        f"sampler '{sampler.name}' needs a variance preserving SDE (vp or geometric), not {sde}; "
        "leave it out of --samplers",
    )


# The NFE curve: the distance to the data at every sampler setting of the task, each with its interval


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
        rows += space_rows(context, found.of(space.extractor), space, shared, "")[0]
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
        gathered = found.of(space.extractor).first(count)
        rows += space_rows(context, gathered, space.with_distances(), fields, "")[0]
    return rows


def _part(seconds: float | None, share: float) -> float | None:
    return None if seconds is None else seconds * share

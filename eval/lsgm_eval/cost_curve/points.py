"""The points of curves: from the command line to those that fit a model, and what is measured of one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError, DataError, did_you_mean
from lsgm.files.text import parse_toml
from lsgm.generative import GenerativeModel
from lsgm.results import Row
from lsgm.results.metrics import families, family_of
from lsgm.sampling import check_options, find_sampler
from lsgm.sampling.drawing import check_sampler
from lsgm.sampling.grids import GRIDS, OPTIMISED, make_grid, time_end_of
from lsgm.structure import from_dict
from lsgm_eval.measure.quality import Drawing, draw, sampling, space_rows
from lsgm_eval.measure.space import Space
from lsgm_eval.rows import Context
from lsgm_eval.samples.gather import Pass

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
    sde = getattr(getattr(model, "prior", None), "sde", None)
    if sde is None:
        return
    for point in points:
        sampler = find_sampler(point.name)
        try:
            check_sampler(sampler, sde, point)
            end, grid = time_end_of(sde, point.time_end), point.grid or sde.grid
            if not sampler.adaptive and grid != OPTIMISED:
                make_grid(sde, grid, 2, end)
        except ConfigError as error:
            raise ConfigError(f"{model.name}: {error}") from None


def check_metric(name: str) -> str:
    """Return the family of a metric given by family (frechet) or in full (fid). Raises ConfigError."""
    family = name if name in families() else family_of(name)
    usable = [known for known in families() if known != "memorised"]
    if family is None or family not in usable:
        hint = did_you_mean(name, usable) or f"; give one of {', '.join(usable)}"
        raise ConfigError(f"there is no metric '{name}' to sweep{hint}")
    return family


def one_statistic(space: Space, family: str) -> Space:
    """Return the space with the one statistic that gives a family: all that a point of the sweep measures."""
    statistic = families()[family].statistic
    return replace(space, spec=replace(space.spec, statistics=(statistic,)), floor="")


# What the command line says of a sweep: samplers with their options, budgets, tolerances, targets

BUDGETS = {
    "steps": "the sweep sets steps by --nfe",
    "rtol": "the sweep sets tolerances by --tol",
    "atol": "the sweep sets tolerances by --tol",
    "times": "times are of one number of steps; name a grid",
    "grid": "write it as NAME@GRID",
}
NOTHING = ("", "none")


def sampler_of(word: str) -> SamplerConfig:
    """Return the sampler of ``NAME[@GRID][:OPTION=VALUE...]``, such as ``edm-heun@edm:churn=10:rho=5``.

    Options are the fields of `SamplerConfig` that are no budget. Raises ConfigError for an unknown sampler,
    grid or option, and for a value that the option cannot have.
    """
    head, *options = word.strip().split(":")
    name, at, grid = head.partition("@")
    sampler = find_sampler(name)
    where = f"sampler '{word.strip()}'"
    table: dict[str, Any] = {"name": name}
    if at:
        grids = (*GRIDS, OPTIMISED)
        require(grid in grids, f"{where}: there is no grid '{grid}'; there are {', '.join(grids)}")
        require(not sampler.adaptive, f"{where}: an adaptive solver chooses its own steps; leave out @{grid}")
        table["grid"] = grid
    for option in options:
        key, found, value = option.partition("=")
        key = key.replace("-", "_")
        require(bool(found), f"{where}: '{option}' is no option; write NAME:OPTION=VALUE, such as ddim:eta=1")
        require(key not in BUDGETS, f"{where}: {BUDGETS.get(key, '')}")
        require(key != "name" and key not in table, f"{where}: '{key}' is given twice; give it once")
        table[key] = _value(value)
    config = from_dict(SamplerConfig, table, where)
    check_options(config, f"{where}: ")
    return config


def budget_of(point: SamplerConfig) -> dict[str, str]:
    """Return the options of `lsgm nfe` that measure one point alone: samplers, nfe and tol."""
    sampler, plain = find_sampler(point.name), SamplerConfig(point.name)
    options = [
        f":{field.name}={str(value).lower()}"
        for field in fields(point)
        if field.name not in ("name", *BUDGETS)
        and (value := getattr(point, field.name)) != getattr(plain, field.name)
    ]
    word = "".join([point.name, f"@{point.grid}" if point.grid else "", *options])
    if sampler.adaptive:
        return {"samplers": word, "tol": str(point.rtol)}
    return {"samplers": word, "nfe": str(sampler.evaluations(point)), "tol": "none"}


def samplers_of(text: str) -> tuple[SamplerConfig, ...]:
    """Return the samplers of words between commas. Raises ConfigError for none, and for one given twice."""
    found = tuple(sampler_of(word) for word in text.split(",") if word.strip())
    require(bool(found), "--samplers names none; `lsgm ls samplers` lists them")
    for index, sampler in enumerate(found):
        require(sampler not in found[:index], f"the sampler {sampler.name} is given twice; give it once")
    return found


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return ``5,8,10`` as increasing numbers. Raises ConfigError for what is not a whole number above 0."""
    try:
        numbers = [int(word) for word in _words(text)]
    except ValueError:
        raise ConfigError(f"{option} is '{text}'; give whole numbers, such as 5,10,20") from None
    require(all(number > 0 for number in numbers), f"{option} is '{text}'; every number must be above 0")
    return tuple(sorted(set(numbers)))


def tolerances_of(text: str) -> tuple[float, ...]:
    """Return ``1e-1..1e-5`` (by decades) or ``1e-2,1e-4`` as falling tolerances; ``none`` is no tolerance.

    Raises ConfigError for a tolerance that is not above 0, and for ends that decades do not join.
    """
    first, dots, last = text.partition("..")
    if not dots:
        values = _numbers(text, "--tol", "1e-2,1e-4 or 1e-1..1e-5")
    else:
        (a,), (b,) = (_numbers(end, "--tol", "1e-1..1e-5") or (0.0,) for end in (first, last))
        decades = math.log10(a / b) if a > 0 and b > 0 else 0.0
        require(a > 0 and b > 0, f"--tol is {text}; an adaptive solver needs tolerances above 0, say 1e-5")
        whole = round(decades)
        require(
            abs(decades - whole) < 1e-9,
            f"--tol is {text}; its ends are {abs(decades):.3g} decades apart: join them by whole ones",
        )
        sign = 1 if whole >= 0 else -1
        # Read from text, so that 1e-1..1e-3 and 1e-1,1e-2,1e-3 name the same points to the bit.
        values = tuple(float(f"{a * 10.0 ** -(sign * k):.12g}") for k in range(abs(whole) + 1))
    require(
        all(0 < value < math.inf for value in values),
        f"--tol is {text}; an adaptive solver needs tolerances above 0, say 1e-5",
    )
    return tuple(sorted(set(values), reverse=True))


def targets_of(text: str) -> tuple[float, ...]:
    """Return the qualities to reach, in order. Raises ConfigError for what is not a number above 0."""
    values = _numbers(text, "--reach", "10,20")
    require(
        all(0 < value < math.inf for value in values),
        f"--reach is {text}; it is interpolated on a logarithmic scale, so give numbers above 0",
    )
    return tuple(dict.fromkeys(values))


def _numbers(text: str, option: str, example: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in _words(text))
    except ValueError:
        raise ConfigError(f"{option} is '{text}'; give numbers, such as {example}") from None


def _words(text: str) -> Sequence[str]:
    return [] if text.strip() in NOTHING else [word.strip() for word in text.split(",")]


def _value(text: str) -> Any:
    """Return a value as a recipe would hold it; a bare word is text."""
    try:
        return parse_toml(f"x = {text}", text)["x"]
    except DataError:
        return text


# The NFE curve: the distance to the data at every sampler setting of the task, each with its interval


def curve_point(
    context: Context, model: GenerativeModel, spaces: Sequence[Space], how: Drawing, split: str | None
) -> list[Row]:
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
    context: Context, found: Pass, spaces: Sequence[Space], shared: dict[str, Any], count: int
) -> list[Row]:
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
        **{
            key: shared[key] and shared[key] * (count / len(found.nfe))
            for key in ("seconds", "decoder_seconds")
        },
        "flops_per_image": flops,
        "seeds": f"{start}-{start + count - 1}",
    }
    rows = []
    for space in spaces:
        gathered = found.of(space.extractor).first(count)
        rows += space_rows(context, gathered, space.with_distances(), fields, "")[0]
    return rows

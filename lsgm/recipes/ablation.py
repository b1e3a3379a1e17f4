"""Ablations of an LSGM as data: which cells a study has, and what each changes in a recipe. Free of torch.

Three studies of arXiv:2106.05931: the SDE, the prior's weighting and importance sampling (its table 6), the
VAE trained with the prior or left as stage 1 made it, and the score with or without the Normal part (mixed).
A fourth is this project's own: the control variate of the VAE's cross entropy, which the paper does not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from lsgm.config import SDEConfig, require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.progress import aligned
from lsgm.recipes.recipe import LSGMRecipe

GEOMETRIC_END = 0.999
"""The geometric SDE's published variance at t = 1; its g^2 grows without bound as this nears 1."""

SDEName = Literal["vp", "geometric", "ve"]
WeightingName = Literal["ll", "un", "re"]


@dataclass(frozen=True)
class AblationCell:
    """One model of a study; what is not said is as in the cell that the studies share, `vp-ll-is`."""

    sde: SDEName = "vp"
    weighting: WeightingName = "ll"
    importance_sampling: bool = True
    joint: bool = True
    """Whether stage 2 trains the VAE with the prior."""
    mixed: bool = True
    """Whether the score is mixed with that of the Normal prior."""
    control_variate: bool = True
    """Whether the VAE's cross entropy has its control variate, the Normal prior's under the same noise."""

    @property
    def name(self) -> str:
        """The model's name: the SDE, the weighting, how t is drawn, and what else is changed."""
        drawn = "is" if self.importance_sampling else "uniform"
        changed = ["frozen"] * (not self.joint) + ["unmixed"] * (not self.mixed)
        changed += ["plain"] * (not self.control_variate)
        return "-".join([self.sde, self.weighting, drawn, *changed])

    def levels(self) -> dict[str, str]:
        """Return every factor's level, as tables print them."""
        return {
            "sde": self.sde,
            "weighting": self.weighting,
            "importance sampling": "yes" if self.importance_sampling else "no",
            "VAE": "joint" if self.joint else "frozen",
            "mixed score": "yes" if self.mixed else "no",
            "control variate": "yes" if self.control_variate else "no",
        }

    @property
    def note(self) -> str:
        """What follows from the formulas and a table should say."""
        if self.sde == "geometric" and self.weighting == "ll":
            return "uniform times are the importance sampling of ll with this SDE: both cells are one model"
        if self.sde == "ve" and self.weighting in ("ll", "un"):
            return "g^2 / sigma_t^2 is constant for this SDE, so that un is ll times a constant"
        return ""


SHARED = AblationCell()
"""The cell that all studies share, and that the others are compared with."""


@dataclass(frozen=True)
class AblationStudy:
    """Some factors, and a cell for each combination of their levels."""

    name: str
    factors: tuple[str, ...]
    """Keys of `AblationCell.levels`."""
    cells: tuple[AblationCell, ...]


SDES: tuple[SDEName, ...] = ("vp", "geometric", "ve")
WEIGHTINGS: tuple[WeightingName, ...] = ("ll", "un", "re")
_GRID = tuple(AblationCell(*levels) for levels in product(SDES, WEIGHTINGS, (True, False)))

STUDIES: Mapping[str, AblationStudy] = {
    study.name: study
    for study in (
        AblationStudy("sde-weighting-importance", ("sde", "weighting", "importance sampling"), _GRID),
        AblationStudy("frozen", ("VAE",), (SHARED, AblationCell(joint=False))),
        AblationStudy("mixed-score", ("mixed score",), (SHARED, AblationCell(mixed=False))),
        AblationStudy("control-variate", ("control variate",), (SHARED, AblationCell(control_variate=False))),
    )
}
"""The studies by name; together they have 21 cells."""


def choose_studies(words: str) -> list[AblationStudy]:
    """Return the studies that ``NAME,NAME`` or ``all`` asks for. Raises ConfigError for an unknown name."""
    names = list(dict.fromkeys(word.strip() for word in words.split(",")))
    if names == ["all"]:
        return list(STUDIES.values())
    for name in names:
        if name not in STUDIES:
            hint = did_you_mean(name, STUDIES) or f"; there are {', '.join(STUDIES)} and all"
            raise ConfigError(f"there is no study '{name}'{hint}")
    return [STUDIES[name] for name in names]


def all_cells(studies: Iterable[AblationStudy]) -> list[AblationCell]:
    """Return the studies' cells, each once, in order."""
    return list(dict.fromkeys(cell for study in studies for cell in study.cells))


def sde_of(
    cell: AblationCell, recipe: LSGMRecipe, ve_sigma2_max: float | Literal["data"] = "data"
) -> tuple[SDEConfig, float]:
    r"""Return the cell's SDE and its smallest time e, starting from the noise of the recipe's VP SDE.

    Their bounds then stand at one noise level, and they differ in the path from there:

    - geometric: \sigma_0^2 = \sigma_{min}^2 = \sigma_e^2 of the VP SDE, \sigma_{max}^2 = \sigma_1^2 but at
      most 0.999, e = 0;
    - ve: \sigma_{min}^2 = \sigma_e^2 / m_e^2 of the VP SDE, \sigma_{max}^2 = ve_sigma2_max, e = 0. This
      should be near the largest squared distance between two latents: its prior has to cover them all.

    Numbers have three digits. Raises ConfigError where the recipe's SDE is another, or has noise at t = 0.
    """
    sde, time_eps = recipe.prior.sde, recipe.prior.objective.time_eps
    require(
        sde.kind == "vp" and not sde.sigma2_0 and time_eps > 0,
        f"the recipe's SDE is {sde.kind} with sigma2-0 = {sde.sigma2_0} and time-eps = {time_eps}; an "
        "ablation starts from vp without noise at t = 0 and a time-eps above 0, as glyphs-small has",
    )
    if cell.sde == "vp":
        return sde, time_eps

    def var(t: float) -> float:
        return -math.expm1(-t * (sde.beta_start + 0.5 * t * (sde.beta_end - sde.beta_start)))

    low, high = var(time_eps), var(1.0)
    if cell.sde == "geometric":
        smallest, largest = _rounded(low), min(_rounded(high), GEOMETRIC_END)
        return SDEConfig("geometric", sigma2_0=smallest, sigma2_min=smallest, sigma2_max=largest), 0.0
    return SDEConfig("ve", sigma2_min=_rounded(low / (1.0 - low)), sigma2_max=ve_sigma2_max), 0.0


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def cell_options(
    cell: AblationCell, recipe: LSGMRecipe, ve_sigma2_max: float | Literal["data"] = "data"
) -> list[str]:
    """Return the options of `lsgm train` that turn the recipe into the cell.

    Raises ConfigError as `sde_of` does, and where the recipe's score is not mixed.
    """
    sde, time_eps = sde_of(cell, recipe, ve_sigma2_max)
    options = _pair("--prior.sde.kind", sde.kind)
    for name in ("sigma2_0", "sigma2_min", "sigma2_max"):
        if (value := getattr(sde, name)) is not None:
            options += _pair(f"--prior.sde.{name.replace('_', '-')}", value)
    options += _pair("--prior.objective.weighting", cell.weighting)
    options.append(_switch("prior.objective.importance-sampling", cell.importance_sampling))
    options += _pair("--prior.objective.time-eps", time_eps)
    if recipe.prior.objective.control_variate is not cell.control_variate:
        options.append(_switch("prior.objective.control-variate", cell.control_variate))
    require(
        recipe.prior.mixing_init is not None,
        "the recipe's score is not mixed; an ablation starts from one with a mixing-init",
    )
    if not cell.mixed:
        options += _pair("--prior.mixing-init", None)
    if recipe.stage2.drop_inactive:
        # Without mixing no channel can be dropped, so none is in any cell.
        options.append(_switch("stage2.drop-inactive", on=False))
    if not cell.joint:
        options.append(_switch("stage2.train-vae", on=False))
        options += _pair("--stage2.vae-times", "shared")
        options.append(_switch("stage2.ema-prior", on=False))
    return options


def _pair(option: str, value: object) -> list[str]:
    return [option, str(value)]


def _switch(name: str, on: bool) -> str:
    table, _, last = name.rpartition(".")
    return f"--{table}.{'' if on else 'no-'}{last}"


def summary(recipe_name: str, studies: Sequence[AblationStudy], failed: Mapping[str, str]) -> dict[str, Any]:
    """Return what ``ablation.json`` says: of each study its factors, the models' levels, and what failed.

    ``failed`` gives the sentence why there is no model of that name.
    """
    return {
        "format": 1,
        "title": f"Ablations of {recipe_name}",
        "recipe": recipe_name,
        "studies": [_study(study, failed) for study in studies],
    }


def _study(study: AblationStudy, failed: Mapping[str, str]) -> dict[str, Any]:
    models = {
        cell.name: {**{factor: cell.levels()[factor] for factor in study.factors}, "note": cell.note}
        for cell in study.cells
    }
    return {
        "name": study.name,
        "factors": list(study.factors),
        "models": models,
        "failed": {name: failed[name] for name in models if name in failed},
    }


def study_lines(
    study: AblationStudy, rows: Sequence[Mapping[str, Any]], failed: Mapping[str, str]
) -> list[str]:
    """Return a study as an aligned table: levels, bound and distance, and how far they are from `SHARED`'s.

    ``rows`` are the harness's, those of one protocol; differences are its paired ones, cell minus `SHARED`.
    """
    values = {(row["model"], row["metric"]): row for row in rows}
    distances = [row["metric"] for row in rows if (row["unit"], row["group"]) == ("distance", "quality")]
    metrics = ["nelbo_nats", *distances[:1]]
    head = ["model", *study.factors]
    for metric in metrics:
        head += [metric, f"- {SHARED.name}"]
    lines = [head]
    for cell in study.cells:
        line = [cell.name, *(cell.levels()[factor] for factor in study.factors)]
        for metric in metrics if cell.name not in failed else []:
            line.append(_shown(values.get((cell.name, metric))))
            line.append(_shown(values.get((f"{SHARED.name} - {cell.name}", f"paired_{metric}")), sign=-1))
        lines.append(line + [""] * (len(head) - len(line)))
    reasons = [f"{cell.name}: {failed[cell.name]}" for cell in study.cells if cell.name in failed]
    return [study.name, *aligned(lines), *reasons]


def _shown(row: Mapping[str, Any] | None, sign: int = 1) -> str:
    if row is None or row["value"] is None:
        return ""
    value = f"{sign * row['value']:.2f}"
    if row["ci_low"] is None or row["ci_high"] is None:
        return value
    return f"{value} ± {(row['ci_high'] - row['ci_low']) / 2:.2f}"

"""The cells of the ablations: what each changes, and that nothing else differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.commands import train
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.objective.bound import Objective
from lsgm.recipes import load_recipe
from lsgm.recipes.ablation import (
    SDES,
    SHARED,
    STUDIES,
    AblationCell,
    all_cells,
    cell_options,
    choose_studies,
    sde_of,
    study_lines,
    summary,
)
from lsgm.sde import make_sde
from lsgm.structure import to_dict

RECIPE = recipe_from(load_recipe("glyphs-small"), "glyphs-small")
CELLS = all_cells(STUDIES.values())
THREE_DIGITS = 5e-3
"""Largest relative error of a number rounded to three digits."""


def flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in tables.items():
        out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def differing(one: Any, other: Any) -> set[str]:
    """Return the dotted keys in which two recipes differ."""
    a, b = flat(to_dict(one)), flat(to_dict(other))
    return {key for key in a.keys() | b.keys() if a.get(key) != b.get(key)}


def trained(cell: AblationCell, path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> Any:
    """Return the recipe that `lsgm train` makes of a cell's options."""
    seen: list[Any] = []
    monkeypatch.setattr(train, "_train", lambda recipe, options, named: seen.append(recipe) or 0)
    recipe = tiny.recipe(changes)
    assert train.run([str(tiny.toml(path / "tiny.toml", changes)), *cell_options(cell, recipe)]) == 0
    return seen[0]


def objective(cell: AblationCell) -> Objective:
    sde, time_eps = sde_of(cell, RECIPE, ve_sigma2_max=1200.0)
    return Objective.make(
        make_sde(sde),
        weighting=cell.weighting,
        importance_sampling=cell.importance_sampling,
        time_eps=time_eps,
    )


def test_the_studies_have_21_cells_under_21_names_and_share_one() -> None:
    assert len(CELLS) == len({cell.name for cell in CELLS}) == 21
    assert len(STUDIES["sde-weighting-importance"].cells) == 3 * 3 * 2
    assert all(SHARED in study.cells for study in STUDIES.values())


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES)
def test_the_cells_of_a_study_differ_in_its_factors_alone(study: Any) -> None:
    levels = [tuple(cell.levels()[factor] for factor in study.factors) for cell in study.cells]
    assert len(set(levels)) == len(study.cells)
    for cell in study.cells:
        fixed = cell.levels().keys() - set(study.factors)
        assert all(cell.levels()[factor] == SHARED.levels()[factor] for factor in fixed)


SDE_KEYS = {"kind", "sigma2_0", "sigma2_min", "sigma2_max", "beta_start", "beta_end"}


@pytest.mark.parametrize(
    ("cell", "keys"),
    [
        (AblationCell("vp", "re", importance_sampling=False), {"weighting", "importance_sampling"}),
        (
            AblationCell("geometric", "un", importance_sampling=False),
            {"weighting", "importance_sampling", "sde"},
        ),
        (AblationCell("ve", "ll"), {"sde"}),
        (AblationCell(joint=False), {"stage2.train_vae", "stage2.vae_times", "stage2.ema_prior"}),
        (AblationCell(mixed=False), {"prior.mixing_init"}),
        (AblationCell(control_variate=False), {"prior.objective.control_variate"}),
    ],
    ids=lambda value: value.name if isinstance(value, AblationCell) else "",
)
def test_training_sees_what_the_cell_says_and_else_what_the_shared_cell_sees(
    cell: AblationCell, keys: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"weighting": {"prior.objective.weighting"}}
    names["importance_sampling"] = {"prior.objective.importance_sampling"}
    names["sde"] = {f"prior.sde.{key}" for key in SDE_KEYS} | {"prior.objective.time_eps"}
    allowed = {name for key in keys for name in names.get(key, {key})}
    # With channels dropped, and times of the VAE's own, there is something for every cell to put right.
    changes = {"stage2": {"drop_inactive": True, "vae_times": "own", "ema_prior": True}}
    seen = trained(cell, tmp_path, monkeypatch, changes)
    assert differing(seen, trained(SHARED, tmp_path, monkeypatch, changes)) <= allowed
    assert seen.prior.sde.kind == cell.sde
    assert seen.prior.objective.weighting == cell.weighting
    assert seen.prior.objective.importance_sampling is cell.importance_sampling
    assert seen.stage2.train_vae is cell.joint
    assert (seen.prior.mixing_init is not None) is cell.mixed
    assert seen.prior.objective.control_variate is cell.control_variate
    assert not seen.stage2.drop_inactive


@settings(deadline=None, max_examples=25)
@given(beta_end=st.floats(2.0, 40.0), time_eps=st.floats(1e-3, 0.1))
def test_all_sdes_start_from_the_recipes_noise(beta_end: float, time_eps: float) -> None:
    recipe = tiny.recipe({"prior": {"sde": {"beta_end": beta_end}, "objective": {"time_eps": time_eps}}})
    (vp, e), (geometric, _), (ve, _) = (
        (make_sde(config), torch.tensor(start, dtype=torch.float64))
        for config, start in (sde_of(AblationCell(kind), recipe, 1e3) for kind in SDES)
    )
    zero, one = torch.tensor([0.0, 1.0], dtype=torch.float64)
    near = {"rtol": THREE_DIGITS, "atol": 0.0}
    torch.testing.assert_close(geometric.var(zero), vp.var(e), **near)
    torch.testing.assert_close(geometric.var(one), vp.var(one).clamp(max=0.999), **near)
    torch.testing.assert_close(ve.var(zero), vp.var(e) / vp.mean(e).square(), **near)
    torch.testing.assert_close(ve.var(one), torch.full_like(one, 1e3), rtol=1e-12, atol=0.0)


def impossible(cell: AblationCell) -> bool:
    try:
        objective(cell)
    except ConfigError:
        return True
    return False


def test_all_cells_have_an_objective_but_one() -> None:
    assert [cell.name for cell in CELLS if impossible(cell)] == ["geometric-un-is"]


RHO = torch.linspace(0.001, 0.999, 200, dtype=torch.float64)


def test_uniform_times_are_the_geometric_sdes_own_for_ll() -> None:
    drawn, uniform = (objective(AblationCell("geometric", "ll", is_)).draw(RHO) for is_ in (True, False))
    for one, other in zip(drawn, uniform, strict=True):
        # Float64, times through a logarithm of a ratio of 700 and back.
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("is_", [True, False])
def test_un_of_the_ve_sde_is_ll_times_a_constant(is_: bool) -> None:
    ll, un = (objective(AblationCell("ve", weighting, is_)).draw(RHO) for weighting in ("ll", "un"))
    torch.testing.assert_close(un.t, ll.t, rtol=0, atol=0)
    ratio = un.w_p / ll.w_p
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-12, atol=0)


def test_only_what_the_formulas_say_is_noted() -> None:
    noted = {cell.name for cell in CELLS if cell.note}
    assert noted == {
        *(f"geometric-ll-{drawn}" for drawn in ("is", "uniform")),
        *(f"ve-{weighting}-{drawn}" for weighting in ("ll", "un") for drawn in ("is", "uniform")),
    }


def test_studies_are_chosen_by_name() -> None:
    assert choose_studies("all") == list(STUDIES.values())
    assert [study.name for study in choose_studies("frozen, mixed-score,frozen")] == ["frozen", "mixed-score"]
    with pytest.raises(ConfigError, match="did you mean 'frozen'"):
        choose_studies("frosen")
    with pytest.raises(
        ConfigError, match="there are sde-weighting-importance, frozen, mixed-score, control-variate and all"
    ):
        choose_studies("x")


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ({"sde": {"kind": "geometric"}}, "the recipe's SDE is geometric"),
        ({"sde": {"sigma2_0": 1e-4}}, "sigma2-0 = 0.0001"),
        ({"objective": {"time_eps": 0.0, "weighting": "re"}}, "time-eps = 0.0"),
        ({"mixing_init": "none"}, "the recipe's score is not mixed"),
    ],
)
def test_a_recipe_that_cells_cannot_start_from_is_refused(prior: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        cell_options(SHARED, tiny.recipe({"prior": prior}))


def test_the_summary_names_levels_notes_and_failures_study_by_study() -> None:
    studies = choose_studies("sde-weighting-importance,frozen")
    said = summary("glyphs-small", studies, {"geometric-un-is": "there is none"})
    assert (said["format"], said["recipe"]) == (1, "glyphs-small")
    grid, frozen = said["studies"]
    assert grid["models"]["ve-re-uniform"] == {
        "sde": "ve",
        "weighting": "re",
        "importance sampling": "no",
        "note": "",
    }
    assert grid["failed"] == {"geometric-un-is": "there is none"}
    assert frozen == {
        "name": "frozen",
        "factors": ["VAE"],
        "models": {
            "vp-ll-is": {"VAE": "joint", "note": ""},
            "vp-ll-is-frozen": {"VAE": "frozen", "note": ""},
        },
        "failed": {},
    }


def row(model: str, metric: str, value: float | None, half: float | None, unit: str, group: str) -> Any:
    ends = (None, None) if value is None or half is None else (value - half, value + half)
    return {
        "model": model, "metric": metric, "value": value, "ci_low": ends[0], "ci_high": ends[1],
        "unit": unit, "group": group,
    }  # fmt: skip


def test_the_terminals_table_shows_differences_as_cell_minus_shared_cell() -> None:
    pair = "vp-ll-is - vp-ll-is-frozen"
    rows = [
        row("vp-ll-is", "nelbo_nats", 100.0, 2.0, "nats", "likelihood"),
        row("vp-ll-is-frozen", "nelbo_nats", 103.0, 2.0, "nats", "likelihood"),
        row(pair, "paired_nelbo_nats", -3.0, 0.25, "nats", "likelihood"),
        row("vp-ll-is", "frechet_glyphs", 5.0, None, "distance", "quality"),
        row("vp-ll-is", "kernel_glyphs", 1.0, None, "distance", "quality"),
        row("vp-ll-is-frozen", "frechet_glyphs", None, None, "distance", "quality"),
    ]
    assert study_lines(STUDIES["frozen"], rows, {}) == [
        "frozen",
        "model            VAE     nelbo_nats     - vp-ll-is   frechet_glyphs  - vp-ll-is",
        "vp-ll-is         joint   100.00 ± 2.00               5.00",
        "vp-ll-is-frozen  frozen  103.00 ± 2.00  3.00 ± 0.25",
    ]
    assert study_lines(STUDIES["mixed-score"], rows, {"vp-ll-is-unmixed": "at step 9 it became nan"})[3:] == [
        "vp-ll-is-unmixed  no",
        "vp-ll-is-unmixed: at step 9 it became nan",
    ]

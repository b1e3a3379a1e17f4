"""A model card prints what `state.json` and result rows say, and nothing else."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from lsgm.kinds import recipe_from
from lsgm.recipes import load_recipe
from lsgm.runs.card import render_card

SHA = "ab" * 32

STATE: dict[str, Any] = {
    "name": "digits",
    "step": 1700,
    "stage": "stage2",
    "stage_step": 500,
    "stage_done": True,
    "finished": True,
    "seed": 41,
    "parameters": {"vae": 454_114, "prior": 2_145_768},
    "meta": {
        "recipe": {"kind": "lsgm", "data": {"dataset": "mnist", "flip": True}},
        "pixels": {"channels": 1, "height": 28, "width": 29, "kind": "binary", "bits": 1},
        "dataset": "mnist@official@" + "cd" * 32,
    },
    "exported": {
        "dtype": "bfloat16",
        "has_prior": True,
        "run": "mnist-long",
        "run_id": "r",
        "checkpoint": "step-0001700",
        "sha256": "ef" * 32,
        "started": "2031-02-03T04:05:06+00:00",
        "git_revisions": ["0123456", "789abcd-dirty"],
        "hardware": ["2 CPU cores (x86_64), 1 thread, 1 process"],
        "versions": {"python": "3.11.7", "lsgm-bench": "0.1.0", "torch": "2.9.0", "numpy": "2.0"},
        "initialised_from": None,
        "stages": [
            {"name": "stage1", "steps": 1200, "images": 38_400, "seconds": 1200.3},
            {"name": "stage2", "steps": 500, "images": 16_000, "seconds": 2999.8},
        ],
        "validation": {"step": 1500, "nelbo": 91.23456, "kl": 36.9, "kl/0": 17.1},
    },
    "files": {"ema.safetensors": {"bytes": 5_270_980, "sha256": SHA}},
}

ROW: dict[str, Any] = {
    "task": "mnist@1/full",
    "metric": "nelbo_nats",
    "value": 91.23456,
    "ci_low": 90.91,
    "ci_high": 91.56,
    "n": 10_000,
    "split": "test",
    "sampler": "nelbo(times=16)",
    "unit": "nats/image",
    "group": "likelihood",
    "git_revision": "feedbee",
    "levels_sha256": "12" * 32,
    "note": None,
}


def changed(**changes: Any) -> dict[str, Any]:
    return {**STATE, "exported": {**STATE["exported"], **changes}}


def section(card: str, name: str) -> str:
    return card.split(f"## {name}\n")[1].split("\n## ")[0]


def test_it_states_what_the_model_is() -> None:
    card = render_card(STATE, "checkpoints/digits")
    assert card.startswith("# digits\n\nA latent score-based generative model")
    for line in (
        "| kind | `lsgm` |",
        "| images | 1 x 28 x 29, binary |",
        "| parameters | 454,114 (vae), 2,145,768 (prior) |",
        "| trained on | mnist, official |",
        f"| data sha256 | `{'cd' * 32}` |",
        "| mirrored in training | yes |",
        "| size | 5,270,980 bytes |",
        f"| weights sha256 | `{SHA}` |",
    ):
        assert f"\n{line}\n" in card
    assert "bfloat16" in card
    assert "bfloat16" not in render_card(changed(dtype="float32"), "x")


@pytest.mark.parametrize(
    ("has_prior", "parts", "want"),
    [
        (False, {"vae": 1}, "A variational autoencoder with a Normal prior"),
        (True, {"prior": 1}, "A score-based generative model of pixels"),
    ],
)
def test_every_kind_of_model_is_called_what_it_is(has_prior: bool, parts: dict[str, int], want: str) -> None:
    assert want in render_card({**changed(has_prior=has_prior), "parameters": parts}, "x")


def test_it_states_the_budget() -> None:
    training = section(render_card(STATE, "x"), "Training")
    assert "| `stage1` | 1,200 | 38,400 | 1,200 |" in training
    assert "| `stage2` | 500 | 16,000 | 3,000 |" in training
    assert "| all | 1,700 | 54,400 | 4,200 |" in training
    for fact in (
        "step 1,700, at the end of its recipe's budget; seed 41",
        "begun: 2031-02-03T04:05:06+00:00",
        "hardware: 2 CPU cores (x86_64), 1 thread, 1 process",
        "git revision: `0123456`, `789abcd-dirty`",
        "versions: python 3.11.7, lsgm-bench 0.1.0, torch 2.9.0",
        f"exported from: `step-0001700`, averaged weights sha256 `{'ef' * 32}`",
    ):
        assert f"- {fact}\n" in training + "\n"


def test_what_is_not_known_is_said_to_be_unknown() -> None:
    stages = [{**STATE["exported"]["stages"][0], "steps": None}, STATE["exported"]["stages"][1]]
    unknown = changed(stages=stages, git_revisions=[], hardware=[], versions={}, started=None)
    training = section(render_card(unknown, "x"), "Training")
    assert "| `stage1` | not recorded | 38,400 | 1,200 |" in training
    assert "| all | not recorded | 54,400 | 4,200 |" in training
    for fact in ("hardware", "git revision", "versions", "begun"):
        assert f"- {fact}: not recorded" in training


def test_an_unfinished_run_and_a_borrowed_start_are_named() -> None:
    unfinished = {**changed(initialised_from="older"), "finished": False, "stage_done": False}
    card = render_card(unfinished, "x")
    assert "from the run `mnist-long`, within its stage `stage2`." in card
    assert "begun from the weights of `older`, not counted above" in card
    assert "at the end of its stage `stage2`" in render_card({**unfinished, "stage_done": True}, "x")


def test_the_budget_of_the_runs_before_stands_first() -> None:
    first = {"name": "stage1", "steps": 10, "images": 320, "seconds": 60.0}
    older = {"run": "older", "git_revisions": ["89abcde"], "stages": [first]}
    chained = changed(initialised_from="older", earlier=[older], git_revisions=[])
    training = section(render_card(chained, "x"), "Training")
    assert training.index("| `stage1` of `older` | 10 | 320 | 60 |") < training.index("| `stage1` |")
    assert "| all | 1,710 | 54,720 | 4,260 |" in training
    assert "begun from the weights of `older`\n" in training + "\n"
    assert "- git revision: `89abcde` (`older`); not recorded (`mnist-long`)\n" in training


def test_validation_is_called_validation() -> None:
    validation = section(render_card(STATE, "x"), "Validation")
    assert "At step 1,500" in validation
    assert "no test results" in validation
    assert re.findall(r"\| (\S+) \| (\d\S+) \|", validation) == [("nelbo", "91.23"), ("kl", "36.90")]
    assert "none" in section(render_card(changed(validation=None), "x"), "Validation")


def test_results_come_with_interval_count_estimator_and_hash_of_the_bits() -> None:
    measured = section(render_card(STATE, "x", [ROW]), "Measured")
    assert (
        "| mnist@1/full | test | nelbo_nats (nats/image) | 91.2 | 90.9 to 91.6 | 10,000 | nelbo(times=16) "
        "| `121212121212` |"
    ) in measured
    assert "`feedbee`" in measured
    assert "note" not in measured
    assert "No results are printed here" in section(render_card(STATE, "x"), "Measured")


@pytest.mark.parametrize(
    ("half", "want"), [(0.32, "91.2"), (0.14, "91.23"), (0.032, "91.23"), (3.0, "91"), (40.0, "91")]
)
def test_digits_follow_the_interval(half: float, want: str) -> None:
    row = {**ROW, "ci_low": ROW["value"] - half, "ci_high": ROW["value"] + half}
    assert f"(nats/image) | {want} |" in render_card(STATE, "x", [row])


def test_parts_of_a_bound_and_what_was_not_measurable_are_left_out() -> None:
    rows = [
        {**ROW, "metric": "nelbo_term_reconstruction_nats", "group": "terms"},
        {**ROW, "metric": "ode_nll_nats", "value": None, "ci_low": None, "ci_high": None},
        {**ROW, "note": "uniform | dequantised"},
    ]
    measured = section(render_card(STATE, "x", rows), "Measured")
    assert "nelbo_term" not in measured
    assert "ode_nll" not in measured
    assert "| uniform \\| dequantised |" in measured


def test_the_commands_name_the_folder_and_a_task_that_exists() -> None:
    use = section(render_card(STATE, "checkpoints/digits"), "Use")
    assert "lsgm nll checkpoints/digits --task mnist\n" in use
    assert "lsgm sample checkpoints/digits" in use
    other = {**STATE, "meta": {**STATE["meta"], "dataset": "photos@64px@00"}}
    assert "--task TASK\n" in render_card(other, "x")


def test_what_came_from_elsewhere_says_so() -> None:
    imported = {**STATE, "meta": {**STATE["meta"], "imported": {"file": "x.pt"}, "dataset": "cifar10"}}
    card = render_card(imported, "x")
    assert "- imported: see `meta` in `state.json`" in card
    assert "| data sha256 | not recorded |" in card


def test_the_recipe_is_named_where_its_settings_are_those_of_an_installed_one() -> None:
    shipped = load_recipe("glyphs-small-vae")
    named = section(render_card(with_recipe(shipped), "x"), "Recipe")
    assert "`lsgm train glyphs-small-vae`" in named
    other = section(render_card(with_recipe({**shipped, "seed": 7}), "x"), "Recipe")
    assert (
        "The recipe `glyphs-small-vae`, its seed alone changed: `lsgm train glyphs-small-vae --seed 7`"
        in other
    )
    longer = {**shipped, "stage1": {**shipped["stage1"], "steps": 8001}}
    own = section(render_card(with_recipe(longer), "x"), "Recipe")
    assert "No installed recipe has these settings" in own
    listed = tomllib.loads(own.split("```toml\n")[1].split("```")[0])
    assert recipe_from(listed, "the card") == recipe_from(longer, "here")


def test_settings_that_this_version_does_not_know_are_listed_as_they_are() -> None:
    strange = {"kind": "lsgm", "data": {"dataset": "mnist"}, "wings": 2}
    assert "wings = 2" in section(render_card(with_recipe(strange), "x"), "Recipe")


def test_limits_are_said_of_the_model_at_hand() -> None:
    def said(state: dict[str, Any], *rows: dict[str, Any]) -> str:
        return section(render_card(state, "x", rows), "Limits")

    assert "images like those of mnist, 1 x 28 x 29, and no others" in said(STATE)
    assert "binary" in said(STATE)
    assert "No number on this card" in said(STATE)
    assert "No number on this card" not in said(STATE, ROW)
    assert "rounded" in said(STATE)
    assert "rounded" not in said(changed(dtype="float32"))
    assert "before its recipe's budget" not in said(STATE)
    assert "before its recipe's budget" in said({**STATE, "finished": False})
    timed = {"kind": "lsgm", "data": {"dataset": "mnist"}, "prior": {"objective": {"time_eps": 0.01}}}
    assert "times below 0.01" in said(with_recipe(timed))
    assert said(changed(limits=["It has seen no digits."])).strip().startswith("- It has seen no digits.")


def with_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    return {**STATE, "meta": {**STATE["meta"], "recipe": recipe}}

"""What a place holds, which models are meant, and where a model that was measured elsewhere was trained."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from eval.compare.result_rows import folder, manifest, measured, row

from lsgm.errors import DataError, UserError
from lsgm_eval.compare.sides import RunSide, choose_models, open_side, trained_as


def side(place: Path, *models: str) -> RunSide:
    return open_side(folder(place, *(row("nelbo_nats", 1.0, model) for model in models)))


def training_run(place: Path, run_id: str, **about: Any) -> Path:
    place.mkdir(parents=True)
    (place / "config.toml").write_text('kind = "lsgm"\n[stage1]\nsteps = 3\n')
    (place / "manifest.json").write_text(json.dumps({"run_id": run_id, **about}))
    return place


def test_differences_of_two_models_are_no_numbers_of_one(tmp_path: Path) -> None:
    place = folder(tmp_path, row("nelbo_nats", 1.0), row("paired_nelbo_nats", 0.1, "lsgm - vae"))
    assert list(open_side(place).by_model) == ["lsgm"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({}, "neither a training run nor results.jsonl.*`lsgm eval TASK --model RUN --out DIR`"),
        ({"results.jsonl": ""}, "its results.jsonl has no rows"),
    ],
)
def test_a_place_with_nothing_says_what_would_make_something(
    tmp_path: Path, files: dict[str, str], said: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        open_side(tmp_path)


def test_a_place_that_is_not_there_and_a_row_without_its_keys_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent is no folder"):
        open_side(tmp_path / "absent")
    (tmp_path / "results.jsonl").write_text('{"task": "t", "model": "m", "metric": "nfe"}\n')
    with pytest.raises(DataError, match=r"results.jsonl line 1: the key .value. is missing"):
        open_side(tmp_path)


def test_models_of_equal_names_meet_and_else_the_only_ones(tmp_path: Path) -> None:
    both, one, other = (side(tmp_path / name, *name.split("+")) for name in ("lsgm+vae", "lsgm", "sgm"))
    assert choose_models(both, both) == [("lsgm", "lsgm"), ("vae", "vae")]
    assert choose_models(both, one) == [("lsgm", "lsgm")]
    assert choose_models(one, other) == [("lsgm", "sgm")]
    assert choose_models(both, other, "A=vae,B=sgm") == [("vae", "sgm")]
    assert choose_models(both, one, "lsgm") == [("lsgm", "lsgm")]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", "name one of each, --model A=lsgm,B=sgm"),
        ("lsgn", "has no results of a model 'lsgn'; did you mean 'lsgm'?"),
        ("A=lsgm", "give NAME, or A=NAME,B=NAME"),
        ("A=lsgm,B=lsgm", "has no results of a model 'lsgm'; did you mean 'sgm'?"),
    ],
)
def test_a_choice_is_asked_for_and_a_slip_is_named(tmp_path: Path, wanted: str, said: str) -> None:
    both, other = side(tmp_path / "a", "lsgm", "vae"), side(tmp_path / "b", "sgm")
    with pytest.raises(UserError) as failed:
        choose_models(both, other, wanted)
    assert said in str(failed.value)


@pytest.mark.parametrize(("run_id", "found"), [("r1", True), ("r2", False)])
def test_results_lead_to_the_run_that_trained_the_model_unless_it_is_another_by_now(
    tmp_path: Path, run_id: str, found: bool
) -> None:
    run = training_run(tmp_path / "run", run_id)
    place = folder(tmp_path / "out", row("nelbo_nats", 1.0, manifest="m"))
    manifest(place, "m", models=[measured(run, "r1")])
    training = trained_as(open_side(place), "lsgm")
    assert (training is not None) == found
    if training is not None:
        assert training.config == {"kind": "lsgm", "stage1": {"steps": 3}}


@pytest.mark.parametrize("place", ["run/checkpoints/step-0000003", "checkpoints/exported"])
def test_a_checkpoint_leads_to_the_run_that_it_lies_in_or_tells_by_itself(tmp_path: Path, place: str) -> None:
    training_run(tmp_path / "run", "r1")
    checkpoint = tmp_path / place
    checkpoint.mkdir(parents=True)
    meta = {"recipe": {"kind": "vae"}, "dataset": "glyphs@1@" + "d" * 64}
    state = {"format": 1, "step": 3, "meta": meta, "exported": {"run_id": "r1", "git_revisions": ["g"]}}
    (checkpoint / "state.json").write_text(json.dumps(state))
    out = folder(tmp_path / "out", row("nelbo_nats", 1.0, manifest="m"))
    manifest(out, "m", models=[measured(checkpoint, "r1")])
    training = trained_as(open_side(out), "lsgm")
    assert training is not None
    assert training.state["step"] == 3
    if place.startswith("run"):
        assert training.config["kind"] == "lsgm"
    else:
        assert training.config["kind"] == "vae"
        assert training.dataset == {"name": "glyphs", "version": "1", "sha256": "d" * 64}
        assert training.revision == "g"


def test_the_run_itself_comes_first_and_a_resumed_one_counts_by_its_last_call(tmp_path: Path) -> None:
    run = training_run(tmp_path / "run", "r", git_revision="old", resumed=[{"git_revision": "new"}])
    (run / "metrics.jsonl").write_text(
        '{"step": 5, "val_nelbo": 9.5, "val_kl": 2}\n{"step": 6, "nelbo": 9}\n{"step": 7, "val_ne'
    )
    training = trained_as(open_side(run), "lsgm")
    assert training is not None
    assert training.revision == "new"
    assert training.validation == {"step": 5, "nelbo": 9.5, "kl": 2}


@pytest.mark.parametrize("name", ["", "checkpoints", "per-image"])
def test_a_folder_that_cannot_be_looked_into_is_named_and_not_said_to_be_empty(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(tmp_path / "a", row("nelbo_nats", 1.0))
    (place / name).mkdir(exist_ok=True)
    look = os.scandir

    def locked(path: Any) -> Any:
        if Path(path) == place / name:
            raise PermissionError(13, "Permission denied", str(path))
        return look(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match=r"cannot be looked into \(Permission denied\); make it readable"):
        open_side(place)

"""An exported checkpoint is the averaged model up to one rounding, and says truly where it comes from."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import test_levels
from lsgm.errors import CheckpointError, UserError
from lsgm.generative import GenerativeModel
from lsgm.kinds import recipe_from
from lsgm.recipes.recipe import KLConfig
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import checkpoints, find_checkpoint, read_state, read_weights
from lsgm.runs.directory import Run
from lsgm.runs.export import (
    CARD,
    checkpoint_to_export,
    describe_origin,
    export,
    hardware_line,
    rounded,
    without_paths,
    write_card,
)
from lsgm.runs.load import fresh_networks, initialise_from, load_model, measurable, open_checkpoint
from lsgm.train.loop import train_recipe
from lsgm.train.losses import NormalPriorLoss

UNIT = 2.0**-8
"""Largest relative error of rounding to the eight binary digits of bfloat16."""

CHANGES: dict[str, Any] = {
    "vae": {
        "kind": "nvae",
        "width": 4,
        "multipliers": [1, 1],
        "groups": 2,
        "latents": 2,
        "pre_cells": 1,
        "post_cells": 1,
        "encoder_cells": 1,
        "decoder_cells": 1,
    },
    "stage1": {"vae_penalty": {"spectral": 0.1, "gain": 0.1}},
}
"""A hierarchical VAE with batch normalisations, whose checkpoints hold what only training needs."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny hierarchical LSGM, both stages trained for a few steps."""
    tables = tiny.merged({k: v for k, v in tiny.TABLES.items() if k != "vae"}, CHANGES)
    directory = tmp_path_factory.mktemp("runs") / "bars"
    assert train_recipe(recipe_from(tables, "the tiny NVAE"), directory, images=tiny.bars()).finished
    return directory


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("checkpoints") / "bars" / "lsgm"
    export(find_checkpoint(run), out)
    return out


@pytest.fixture(scope="module")
def levels() -> Tensor:
    return test_levels(tiny.bars(), "test", 0)[:16]


def nats(model: GenerativeModel, levels: Tensor) -> Tensor:
    return model.density(levels, range(len(levels)), DensityConfig()).nats


def test_arrays_are_rounded_to_nearest_and_all_else_is_kept() -> None:
    tensors = {
        "conv": torch.randn(4, 3, 3, 3),
        "linear": torch.randn(5, 2),
        "bias": torch.randn(5),
        "norm of each kernel": torch.randn(4, 1, 1, 1),
        "variance of one": torch.tensor(1.003),
        "sigma2_max": torch.tensor(0.1, dtype=torch.float64),
        "table": torch.randn(2, 2, dtype=torch.float64),
        "active": torch.tensor([[True, False], [True, True]]),
        "count": torch.tensor(7),
    }
    after = rounded(tensors, "bfloat16")
    assert {key for key, value in after.items() if value.dtype != tensors[key].dtype} == {"conv", "linear"}
    for key, value in tensors.items():
        if key in ("conv", "linear"):
            assert after[key].dtype == torch.bfloat16
            torch.testing.assert_close(after[key].float(), value, rtol=UNIT, atol=0)
        else:
            assert after[key] is value
    assert rounded(tensors, "float32") == tensors


def test_rounding_is_the_nearest_number_with_eight_binary_digits() -> None:
    # Between 1 and 2 they are the multiples of 2^-7; a tie goes to the even one.
    values = torch.tensor([[1 + 0.4 * 2**-7, 1 + 0.6 * 2**-7], [1 + 0.5 * 2**-7, 1 + 1.5 * 2**-7]])
    want = torch.tensor([[1.0, 1 + 2**-7], [1.0, 1 + 2 * 2**-7]])
    assert torch.equal(rounded({"w": values}, "bfloat16")["w"].float(), want)


def test_the_file_holds_the_rounded_average_bit_for_bit(run: Path, exported: Path) -> None:
    source, kept = read_weights(find_checkpoint(run), "ema"), read_weights(exported, "ema")
    trained_on = {key for key in source if key.split(".")[0] in ("vae_penalty", "prior_penalty")}
    assert kept.keys() == source.keys() - trained_on
    wanted = rounded({key: source[key] for key in kept}, "bfloat16")
    assert all(kept[key].dtype == wanted[key].dtype and torch.equal(kept[key], wanted[key]) for key in kept)
    statistics = [key for key in kept if key.endswith((".running_mean", ".running_var"))]
    assert statistics
    assert all(kept[key].dtype == torch.float32 for key in statistics)


def test_a_float32_export_is_the_same_model_bit_for_bit(run: Path, tmp_path: Path, levels: Tensor) -> None:
    export(find_checkpoint(run), tmp_path / "out", dtype="float32")
    assert torch.equal(nats(load_model(run), levels), nats(load_model(tmp_path / "out"), levels))


def test_loading_computes_in_float32_with_the_rounded_weights(
    run: Path, exported: Path, levels: Tensor
) -> None:
    opened = open_checkpoint(exported, "ema")
    floating = [p for p in opened.networks.state_dict().values() if p.is_floating_point()]
    assert {p.dtype for p in floating} <= {torch.float32, torch.float64}
    # The same model, had its weights been rounded in memory.
    reference = open_checkpoint(run, "ema")
    networks = reference.networks
    networks.load_state_dict(rounded(networks.state_dict(), "bfloat16"))
    a, b = (nats(measurable(x, "cpu", "ema"), levels) for x in (opened, reference))
    assert torch.equal(a, b)


def test_the_bound_moves_by_less_than_its_gradient_times_the_rounding(
    run: Path, tmp_path: Path, levels: Tensor
) -> None:
    """|L(w + d) - L(w)| <= sum_i |dL/dw_i| |w_i| 2^-8 to first order, for the VAE with its Normal prior."""
    stage1 = checkpoint_to_export(run, "stage1")
    export(stage1, tmp_path / "vae")
    losses, bound = [], 0.0
    for path in (stage1, tmp_path / "vae"):
        vae: Any = open_checkpoint(path, "ema").networks.get_submodule("vae").requires_grad_(True)
        loss = NormalPriorLoss(vae, KLConfig(start=1.0, end=1.0)).eval()
        noise = StepNoise("export", 0, global_batch=len(levels), device=torch.device("cpu"))
        total = loss(levels, noise, 1.0).total
        losses.append(float(total.detach()))
        if path == stage1:
            total.backward()
            moved = [p for p in vae.parameters() if p.grad is not None]
            bound = UNIT * sum(float((p.grad * p.detach()).abs().sum()) for p in moved)
    assert 0 < abs(losses[1] - losses[0]) < bound
    assert bound < 0.5 * losses[0]  # a bound that says something


def test_the_file_is_about_half_as_large(run: Path, tmp_path: Path) -> None:
    checkpoint = find_checkpoint(run)
    sizes = {}
    for dtype in ("bfloat16", "float32"):
        state = export(checkpoint, tmp_path / dtype, dtype=dtype)
        sizes[dtype] = state["files"]["model.safetensors"]["bytes"]
        tensors = read_weights(tmp_path / dtype)
        held = sum(value.numel() * value.element_size() for value in tensors.values())
        header = sizes[dtype] - held
        assert 0 < header < 150 * len(tensors) + 100  # names, shapes, offsets
        sizes[f"tensors of {dtype}"] = held
    arrays = sum(
        value.numel()
        for value in read_weights(tmp_path / "bfloat16").values()
        if value.dtype == torch.bfloat16
    )
    assert sizes["tensors of float32"] - sizes["tensors of bfloat16"] == 2 * arrays
    assert {path.name for path in (tmp_path / "bfloat16").iterdir()} == {
        *("model.safetensors", "config.json", "state.json", CARD)
    }


def test_the_same_checkpoint_gives_the_same_bytes(run: Path, exported: Path, tmp_path: Path) -> None:
    export(find_checkpoint(run), tmp_path / "again")
    for name in ("model.safetensors", "config.json", "state.json"):
        assert (tmp_path / "again" / name).read_bytes() == (exported / name).read_bytes()


def test_it_is_a_checkpoint_under_a_name_of_its_own(run: Path, exported: Path, tmp_path: Path) -> None:
    model = load_model(exported)
    content = (exported / "model.safetensors").read_bytes()
    assert (model.name, model.sha256) == ("bars", hashlib.sha256(content).hexdigest())
    assert model.parameters == load_model(run).parameters == read_state(exported)["parameters"]
    assert model.sample([0, 1], SamplerConfig(steps=2)).images.shape == (2, 1, 8, 8)
    exported.parent.joinpath("sub").mkdir()
    moved = exported.parent / "sub" / "elsewhere"
    exported.rename(moved)
    try:
        assert load_model(moved).name == "bars"
    finally:
        moved.rename(exported)
    export(find_checkpoint(run), tmp_path / "out", name="mine-2")
    assert load_model(tmp_path / "out").name == "mine-2"
    with pytest.raises(UserError, match="the name 'a/b' does not do"):
        export(find_checkpoint(run), tmp_path / "no", name="a/b")
    assert not (tmp_path / "no").exists()


def test_stage_1_is_a_vae_with_a_normal_prior(run: Path, tmp_path: Path, levels: Tensor) -> None:
    stage1 = checkpoint_to_export(run, "stage1")
    state = export(stage1, tmp_path / "vae")
    model = load_model(tmp_path / "vae")
    assert not model.has_prior
    assert (model.name, list(model.parameters)) == ("bars-stage1", ["vae"])
    assert {key.split(".")[0] for key in read_weights(tmp_path / "vae")} == {"vae"}
    assert [stage["name"] for stage in state["exported"]["stages"]] == ["stage1"]
    # One percent: some forty roundings of 2^-8 / 2 on average, of either sign.
    torch.testing.assert_close(
        nats(model, levels).mean(), nats(load_model(stage1), levels).mean(), rtol=1e-2, atol=0
    )


def test_a_run_starts_from_it(run: Path, exported: Path, tmp_path: Path) -> None:
    opened = open_checkpoint(run, "ema")
    networks = fresh_networks(opened.recipe, opened.pixels)
    initialise_from(networks, exported)
    kept = read_weights(exported)
    assert all(torch.equal(value, kept[key].to(value.dtype)) for key, value in networks.state_dict().items())
    out = tmp_path / "next"
    train_recipe(opened.recipe, out, images=tiny.bars(), max_steps=1, init_from=exported)
    state = export(find_checkpoint(out), tmp_path / "again")
    assert state["exported"]["initialised_from"] == "bars"
    assert (state["name"], state["finished"], state["stage_done"]) == ("next-stage1", False, False)


def test_the_runs_before_are_counted_too_first_ones_first(run: Path, tmp_path: Path) -> None:
    recipe = open_checkpoint(run, "ema").recipe
    second, third = tmp_path / "second", tmp_path / "third"
    train_recipe(recipe, second, images=tiny.bars(), max_steps=1, init_from=run)
    train_recipe(recipe, third, images=tiny.bars(), max_steps=1, init_from=second)
    earlier = describe(third)["earlier"]
    assert [(before["run"], [s["steps"] for s in before["stages"]]) for before in earlier] == [
        ("bars", [6, 6]),
        ("second", [1]),
    ]
    shutil.rmtree(second)
    assert describe(third)["earlier"] == []


def describe(run: Path) -> dict[str, Any]:
    checkpoint = find_checkpoint(run)
    return describe_origin(checkpoint, read_state(checkpoint))


def test_the_budget_is_that_of_the_run(run: Path, exported: Path) -> None:
    state, last = read_state(exported), read_state(find_checkpoint(run))
    ends = [read_state(path) for path in checkpoints(run / "checkpoints") if read_state(path)["stage_done"]]
    first, second = state["exported"]["stages"]
    assert [s["stage"] for s in ends] == [first["name"], second["name"]] == ["stage1", "stage2"]
    assert (first["steps"], second["steps"]) == (6, 6)
    assert (first["images"], first["images"] + second["images"]) == (ends[0]["images"], last["images"])
    assert {s["name"]: s["seconds"] for s in (first, second)} == last["seconds_by_stage"]
    rows = [json.loads(line) for line in Run(run).metrics_path.read_text().splitlines()]
    validated = [row for row in rows if row["stage"] == "stage2" and "val_nelbo" in row][-1]
    validation = state["exported"]["validation"]
    assert validation == {"step": validated["step"]} | {
        key.removeprefix("val_"): value for key, value in validated.items() if key.startswith("val_")
    }
    manifest = Run(run).manifest()
    assert state["exported"]["run_id"] == manifest["run_id"]
    assert state["exported"]["git_revisions"] == [r for r in [manifest["git_revision"]] if r]
    assert state["exported"]["sha256"] == last["files"]["ema.safetensors"]["sha256"]
    assert state["meta"] == last["meta"]


def test_a_checkpoint_outside_of_a_run_says_what_it_knows(run: Path, tmp_path: Path) -> None:
    lone = tmp_path / "lone"
    lone.mkdir()
    for file in find_checkpoint(run).iterdir():
        (lone / file.name).write_bytes(file.read_bytes())
    state = export(lone, tmp_path / "out")
    about = state["exported"]
    assert about["stages"][0] == {**about["stages"][0], "steps": None, "images": None}
    assert about["stages"][1]["steps"] == 6
    assert (about["git_revisions"], about["hardware"], about["validation"]) == ([], [], None)
    assert "git revision: not recorded" in (tmp_path / "out" / CARD).read_text()


def test_no_path_of_this_machine_is_in_it(run: Path, exported: Path, tmp_path: Path) -> None:
    texts = [(exported / name).read_text() for name in ("state.json", "config.json", CARD)]
    for text in texts:
        for secret in (str(run.parent), str(tmp_path.parent), platform.node() or "?", platform.platform()):
            assert secret not in text


@pytest.mark.parametrize(
    ("value", "want"),
    [
        ("/home/me/photos", "photos"),
        ("C:\\Users\\me\\photos.zip", "photos.zip"),
        ("~/photos", "photos"),
        ("~me/photos", "photos"),
        ("mnist", "mnist"),
        ("kl/0", "kl/0"),
        (["/a/b", {"c": "/d/e"}, 3, None], ["b", {"c": "e"}, 3, None]),
    ],
)
def test_absolute_paths_become_names(value: Any, want: Any) -> None:
    assert without_paths(value) == want


def test_hardware_is_told_in_a_few_words() -> None:
    cpu = {
        "system": "Linux-host",
        "processor": "x86_64",
        "cores": 2,
        "threads": 1,
        "gpus": [],
        "processes": 1,
    }
    assert hardware_line(cpu) == "2 CPU cores (x86_64), 1 thread, 1 process"
    gpus = {**cpu, "gpus": ["NVIDIA A", "NVIDIA A"], "processes": 2}
    assert hardware_line(gpus) == "2 x NVIDIA A, 2 CPU cores (x86_64), 2 processes"


def test_raw_weights_are_refused(exported: Path) -> None:
    with pytest.raises(CheckpointError, match="exported with its averaged weights alone and has no raw ones"):
        load_model(exported, weights="raw")


def test_what_cannot_be_exported_is_refused(run: Path, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoint_to_export(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of a stage 'stage3'; did you mean 'stage"):
        checkpoint_to_export(run, "stage3")
    with pytest.raises(CheckpointError, match="is an exported checkpoint already"):
        checkpoint_to_export(exported)
    with pytest.raises(CheckpointError, match="exists already"):
        export(find_checkpoint(run), exported)
    with pytest.raises(CheckpointError, match="was not exported"):
        write_card(find_checkpoint(run))


def test_a_failed_write_leaves_nothing(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lsgm.files.write.write_synced", full)
    with pytest.raises(CheckpointError, match="No space left on device"):
        export(find_checkpoint(run), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_damage_is_noticed(run: Path, tmp_path: Path) -> None:
    export(find_checkpoint(run), tmp_path / "out")
    file = tmp_path / "out" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged"):
        load_model(tmp_path / "out")

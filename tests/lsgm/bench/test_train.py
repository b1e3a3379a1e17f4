"""The benchmark of training: what it counts, what it compares, and that the ways it compares agree."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsgm.bench.floor import class_of
from lsgm.bench.measuring import quartiles
from lsgm.bench.options import BENCHMARKS, TrainBench
from lsgm.bench.passes import largest_difference
from lsgm.bench.ways import WAYS, Stepper
from lsgm.cli import main
from lsgm.config import SDEConfig
from lsgm.discovery import help_line, offers
from lsgm.generative import Pixels
from lsgm.model.lsgm import build_lsgm
from lsgm.nets.config import ConvVAEConfig, NVAEConfig, ScoreNetConfig
from lsgm.recipes.recipe import LSGMRecipe, PriorConfig
from lsgm.train.stage import Outcome

RECIPE = """
kind = "lsgm"

[data]
dataset = "{folder}"
image_size = 8

[vae]
width = 8
multipliers = [1]
blocks = 1
latent_channels = 4

[prior.network]
width = 8
multipliers = [1]
blocks = 1
attention = []
embedding = 8

[stage1]
steps = 2
batch_size = 4

[stage2]
steps = 500
batch_size = 6
precision = "bfloat16"
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of a tiny LSGM on a folder of 24 images, in an empty working directory."""
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{index:02d}.png")
    path = tmp_path / "tiny.toml"
    path.write_text(RECIPE.format(folder=folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return path


def bench(*argv: object, measure: str = "stages,passes") -> int:
    return main(["bench", "train", "--device", "cpu", "--measure", measure, *map(str, argv)])


def test_rows_count_the_steps_asked_for_and_shares_sum_to_one(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--recipes", recipe, "--steps", 3, "--json") == 0
    rows: list[dict[str, Any]] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("stage", row["what"]) for row in rows] == ["stage1", "stage2", "backward"]
    for row, batch in zip(rows[:2], (4, 6), strict=True):
        assert (row["recipe"], row["steps"], row["batch_size"]) == ("tiny", 3, batch)
        assert row["images_per_second"] == pytest.approx(batch * row["steps_per_second"])
        shares = [row[f"share_{phase}"] for phase in ("data", "forward", "backward", "optimiser")]
        assert sum(shares) == pytest.approx(1)
        assert min(shares) > 0
        assert row["step_ms_q1"] <= row["step_ms"] <= row["step_ms_q3"]
    assert all({"processor", "threads", "torch", "device", "time"} <= row.keys() for row in rows)
    assert list(Path.cwd().iterdir()) == []


def test_the_comparison_is_of_two_different_objectives_and_says_how_closely_gradients_agree(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("--recipes", recipe, "--steps", 2, "--json") == 0
    row = json.loads(capsys.readouterr().out.splitlines()[-1])
    # The recipe's own ll would make the prior's loss that of the VAE.
    assert (row["weighting"], row["rounds"], row["precision"]) == ("re", 2, "bfloat16")
    assert 0 <= row["largest_difference"] < 1e-10
    assert all(row[f"{way}_ms"] > 0 for way in ("one", "two", "two_cut"))
    assert row["two_over_one_q1"] <= row["two_over_one"] <= row["two_over_one_q3"]


def test_the_page_and_the_rows_are_written_side_by_side(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "bench.md"
    assert bench("--recipes", recipe, "--steps", 1, "--out", out) == 0
    page = out.read_text()
    assert capsys.readouterr().out == page
    assert f"torch {torch.__version__}" in page
    assert f"torch threads {torch.get_num_threads()}" in page
    assert "| tiny | stage1 | 4 | float32 |" in page
    assert "| tiny | stage2 | 6 | bfloat16 |" in page
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert [line.count("|") for line in tables] == [12] * 4 + [11] * 3 + [6] * 3
    assert (
        "joint step, the paper's two backward passes over one | tiny, forward and backward, batch 6" in page
    )
    assert len(out.with_suffix(".jsonl").read_text().splitlines()) == 3


def test_a_model_without_two_objectives_is_timed_and_not_compared(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = recipe.read_text()
    tables = text[: text.index("[prior.network]")] + text[text.index("[stage1]") : text.index("[stage2]")]
    recipe.write_text(tables.replace('"lsgm"', '"vae"'))
    assert bench("--recipes", recipe, "--steps", 1, "--json") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["stage"] == "stage1"


def test_ways_are_timed_beside_one_another_and_the_profile_says_where_time_goes(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The recipe's batch of 6 has no four parts."""
    asked = ["two", "one", "channels-last", "bfloat16"]
    said = ["--recipes", recipe, "--steps", 2, "--json", "--ways", ",".join(asked)]
    assert bench(*said, measure="ways,profile") == 0
    *rows, profile = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["way"] for row in rows] == [
        WAYS[name].says for name in ("two", "one", "channels-last", "bfloat16")
    ]
    assert all(row["step_ms"] > 0 and row["flops"] == rows[0]["flops"] > 0 for row in rows)
    assert rows[0]["over"] == 1.0
    assert profile["total_ms"] == pytest.approx(sum(profile["classes_ms"].values()))
    assert profile["classes_ms"]["convolutions"] > 0
    assert min(profile["rates"].values()) > 0
    assert 0 < profile["floor_share"] < 1
    assert bench("--recipes", recipe, "--steps", 1, "--batch", 4, measure="ways") == 0
    page = capsys.readouterr().out
    assert f"| {WAYS['parts'].says} |" in page
    assert "compiled |" not in page


def test_every_way_has_the_gradient_of_one_backward_pass() -> None:
    recipe = LSGMRecipe(
        vae=ConvVAEConfig(width=8, multipliers=(1,), latent_channels=4),
        prior=PriorConfig(network=ScoreNetConfig(width=8, blocks=1, embedding=8)),
    )
    levels = (torch.arange(8 * 64) * 37 % 5 < 2).to(torch.uint8).reshape(8, 1, 8, 8)
    found: dict[str, Tensor] = {}
    for name in ("one", "two", "parts", "channels-last"):
        stepper = Stepper(recipe, Pixels(1, 8, 8, "binary"), levels, last=WAYS[name].last)
        stepper.become(WAYS[name])
        kept: list[Tensor] = []
        for optimizer in stepper.optimizers:
            optimizer.register_step_pre_hook(
                lambda o, *_, kept=kept: kept.extend(
                    p.grad.flatten().clone() for g in o.param_groups for p in g["params"]
                )
            )
        stepper.step(WAYS[name])
        found[name] = torch.cat(kept)
    for name, gradient in found.items():
        # Sums in another order, in float32.
        assert (gradient - found["one"]).norm() <= 1e-4 * found["one"].norm(), name


def test_operations_are_told_apart_by_name() -> None:
    told = {
        "aten::upsample_bilinear2d_backward": "resampling",
        "aten::convolution_backward": "convolutions",
        "aten::addmm": "products",
        "aten::native_group_norm": "normalisation",
        "aten::_fused_adamw_": "optimiser",
        "aten::silu_backward": "elementwise",
        "aten::copy_": "copies",
        "triton_poi_fused_silu_0": "compiled",
    }
    assert {name: class_of(name) for name in told} == told


def test_an_objective_with_the_wrong_gradient_is_not_timed(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the factor w_q / w_p the encoder would be trained on the prior's loss."""

    def no_factor(z: Tensor, factor: Tensor) -> Tensor:
        return z

    monkeypatch.setattr("lsgm.objective.bound.scale_gradient", no_factor)
    assert bench("--recipes", recipe, "--steps", 1, "--json") == 2
    printed = capsys.readouterr()
    assert "one backward pass and two differ by" in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(("kind", "weighting"), [("vp", "un"), ("geometric", "re"), ("subvp", "un")])
def test_one_pass_and_both_forms_of_two_give_the_same_gradients(kind: Any, weighting: str) -> None:
    networks = build_lsgm(
        LSGMRecipe(
            vae=ConvVAEConfig(width=8, multipliers=(1,), latent_channels=4),
            prior=PriorConfig(SDEConfig(kind), ScoreNetConfig(width=8, blocks=1, embedding=8)),
        ),
        Pixels(1, 8, 8, "binary"),
    )
    levels = torch.randint(0, 2, (5, 1, 8, 8), dtype=torch.uint8)
    assert largest_difference(networks.double(), weighting, levels, time_eps=1e-2, seed=3) < 1e-12


@pytest.mark.parametrize("scales", [1, 2])
def test_both_forms_of_two_passes_agree_with_one_for_a_hierarchy_of_latents_too(scales: int) -> None:
    vae = NVAEConfig(
        width=4,
        multipliers=(1,) * (1 + scales),
        pre_cells=1,
        post_cells=1,
        scales=scales,
        latents=2,
        encoder_cells=1,
        decoder_cells=1,
    )
    prior = PriorConfig(network=ScoreNetConfig(width=8, blocks=1, embedding=8))
    networks = build_lsgm(LSGMRecipe(vae=vae, prior=prior), Pixels(1, 16, 16, "binary"))
    levels = torch.randint(0, 2, (3, 1, 16, 16), dtype=torch.uint8)
    # In train mode: batch normalisation mixes the images of the VAE, and of the VAE alone.
    assert largest_difference(networks.double().train(), "un", levels, time_eps=1e-2, seed=3) < 1e-11


def test_a_narrower_model_of_another_batch_says_so(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--recipes", recipe, "--steps", 1, "--width", 0.5, "--batch", 2) == 0
    page = capsys.readouterr().out
    assert "Networks at 0.5 of their recipes' width." in page
    assert "| tiny | stage2 | 2 | bfloat16 |" in page


def test_quartiles_stand_beside_the_median_and_one_value_is_its_own() -> None:
    values = [3.0, 1.0, 4.0, 1.5, 9.0]
    found = quartiles("ms", values)
    assert found == {"ms": 3.0, "ms_q1": 1.5, "ms_q3": 4.0}
    assert set(quartiles("ms", [2.0]).values()) == {2.0}


def test_ctrl_c_ends_the_benchmark_and_not_only_the_stage(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = Outcome(False, "stage1", 1, {}, exit_status=130)
    monkeypatch.setattr("lsgm.bench.train.train_recipe", lambda *args, **kwargs: ended)
    assert bench("--recipes", recipe) == 130
    assert capsys.readouterr().out == ""


def test_every_benchmark_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    listed = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines() if line[:2] == "  ")
    lines = {name: benchmark.help for name, benchmark in BENCHMARKS.items()}
    lines |= {name: help_line(point.value) for name, point in offers("lsgm.bench").items()}
    assert lines.items() <= listed.items()


def test_the_help_of_benchmarks_costs_no_torch() -> None:
    names = [*BENCHMARKS, *offers("lsgm.bench")]
    script = f"""
import sys
from lsgm.cli import main
for name in {names}:
    try:
        main(["bench", name, "--help"])
    except SystemExit as leaving:
        assert not leaving.code
assert not {{"torch", "numpy", "matplotlib", "scipy"}} & sys.modules.keys()
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert all(f"usage: lsgm bench {name}" in shown for name in names)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["trian"], ["no benchmark 'trian'", "did you mean 'train'?"]),
        (["xyz"], ["no benchmark 'xyz'", "there is all, train"]),
        (["train", "--recipes", "glyhps"], ["no recipe 'glyhps'", "did you mean 'glyphs'?"]),
        (["train", "--recipes", " , "], ["--recipes names no recipe"]),
        (["train", "--steps", "0"], ["steps is 0"]),
        (["train", "--measure", "stages,all"], ["measure is 'stages,all'", "passes"]),
        (["train", "--out", "bench.jsonl"], ["name the page"]),
        (["train", "--out", "/"], ["/, which is a folder"]),
        (["train", "--out", "/dev/null/bench.md"], ["cannot write /dev/null/bench.md"]),
        (["train", "--device", "abacus"], ["no device 'abacus'"]),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_measured(
    argv: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(word in captured.err for word in words)


def test_the_default_recipe_needs_no_download() -> None:
    assert TrainBench().recipes == "glyphs"


def test_noise_stands_in_for_a_dataset_that_is_not_at_hand(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A machine that is lent for minutes has no datasets."""
    monkeypatch.setenv("LSGM_DATA", str(recipe.parent / "empty"))
    folder = f'dataset = "{recipe.parent / "images"}"\nimage_size = 8'
    recipe.write_text(recipe.read_text().replace(folder, 'dataset = "cifar10"'))
    assert bench("--recipes", recipe, "--steps", 1, "--json", measure="passes") == 0
    said = capsys.readouterr()
    assert "random images stand in" in said.err
    assert json.loads(said.out)["batch_size"] == 6
    missing = recipe.read_text().replace("cifar10", str(recipe.parent / "none"))
    recipe.write_text(missing)
    assert bench("--recipes", recipe, "--steps", 1, measure="passes") == 2

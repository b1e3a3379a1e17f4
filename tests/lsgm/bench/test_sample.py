"""The benchmark of sampling: equal evaluations, parts that are parts, and a sampler's own time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lsgm.bench.options import SampleBench
from lsgm.bench.sample import fixed_steps, overhead_rows, page, ways_on
from lsgm.cli import main
from lsgm.errors import ConfigError

RECIPE = """
kind = "lsgm"

[data]
dataset = "mnist"

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
"""
SGM = RECIPE.replace('"lsgm"', '"sgm"').replace(RECIPE[RECIPE.index("[vae]") : RECIPE.index("[prior")], "")
QUICK = ("--batches", "1,3", "--rounds", "2", "--nfe", "4", "--samplers", "euler", "--device", "cpu")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    for name, text in (("a", RECIPE), ("b", SGM)):
        (tmp_path / f"{name}.toml").write_text(text)
    return str(tmp_path / "a.toml"), str(tmp_path / "b.toml")


def test_two_kinds_are_timed_at_the_same_evaluations(
    files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deep" / "bench.md"
    argv = ["--recipes", ",".join(files), "--overhead", files[0], "--no-compiled", "--no-bfloat16"]
    argv += ["--out", str(out)]
    assert main(["bench", "sample", *argv, *QUICK, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert out.with_suffix(".jsonl").read_text().count("\n") == len(rows) == 6
    speeds = [row for row in rows if row["what"] == "speed"]
    assert [(row["recipe"], row["kind"], row["batch_size"]) for row in speeds] == [
        *(("a", "lsgm", 1), ("a", "lsgm", 3)),
        *(("b", "sgm", 1), ("b", "sgm", 3)),
    ]
    assert len({row["nfe"] for row in speeds}) == 1
    assert all(0 < row["decoder_share"] < 1 and row["images_per_second"] > 0 for row in speeds)
    text = out.read_text()
    for words in ("# What sampling costs", "## Images per second", "## Outside the network", "| a | eager |"):
        assert words in text


def test_a_samplers_share_is_what_the_network_does_not_take(files: tuple[str, str]) -> None:
    from lsgm.bench.measuring import read_recipes

    (recipe,) = read_recipes(files[0]).values()
    found = overhead_rows(
        recipe, [fixed_steps("heun", 8)], [2], label="a", rounds=1, device=torch.device("cpu")
    )
    (row,) = found
    assert row["overhead"] == pytest.approx(row["own_ms"] / (row["own_ms"] + row["network_ms"]))
    assert 0 < row["overhead"] < 1
    assert row["nfe"] <= 8


def test_ways_are_those_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsgm.bench.sample.computes_bfloat16", lambda device: True)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    plain = ways_on(cpu, compiled=True, low=True)
    assert plain == [(each, of) for each in ("eager", "compiled") for of in ("float32", "bfloat16")]
    every = ways_on(gpu, compiled=True, low=True)
    assert every[:2] == [("eager", "float32"), ("graphs", "float32")]
    assert every[2:] == [("graphs", "bfloat16"), *(("compiled-graphs", of) for _, of in plain[:2])]
    assert ways_on(gpu, compiled=False, low=False) == every[:2]


def test_the_largest_share_at_large_batches_is_held_to_the_target(files: tuple[str, str]) -> None:
    from lsgm.bench.measuring import read_recipes

    (recipe,) = read_recipes(files[0]).values()
    rows = overhead_rows(
        recipe,
        [fixed_steps(name, 4) for name in ("euler", "heun")],
        [2, 16],
        label="a",
        rounds=1,
        device=torch.device("cpu"),
    )
    (worst,) = [row for row in rows if "target" in row]
    assert (worst["target"], worst["batch_size"]) == ("sampling-overhead", 16)
    assert worst["target_value"] == max(row["overhead"] for row in rows if row["batch_size"] == 16)
    assert "time outside of networks" in page(rows, about="here")


def test_a_compiler_that_fails_leaves_a_row_that_says_so(
    files: tuple[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no compiler here\nand much more")

    monkeypatch.setattr(torch, "compile", lambda function, **how: fail)
    assert main(["bench", "sample", "--recipes", files[0], "--overhead", "", *QUICK]) == 0
    printed = capsys.readouterr().out
    assert "cannot run compiled here (no compiler here)" in printed
    assert "| a | compiled |" in printed
    assert "Outside the network" not in printed


def test_a_page_without_overheads_has_no_section_for_them() -> None:
    assert "Outside" not in page([], about="here")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batches": "1,x"}, "not whole numbers between commas"),
        ({"batches": "0"}, "below 1"),
        ({"batches": ","}, "lists no number"),
        ({"rounds": 0}, "rounds is 0"),
        ({"out": Path("x.jsonl")}, "name the page"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        SampleBench(**options)


def test_samplers_that_cannot_be_timed_so_are_refused() -> None:
    with pytest.raises(ConfigError, match="chooses its own evaluations"):
        fixed_steps("dopri5", 20)
    with pytest.raises(ConfigError, match="takes at least"):
        fixed_steps("heun", 0)


def test_a_recipe_without_a_diffusion_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    assert main(["bench", "sample", "--recipes", "glyphs-vae", "--overhead", "", *QUICK]) == 2
    assert "has no diffusion" in capsys.readouterr().err

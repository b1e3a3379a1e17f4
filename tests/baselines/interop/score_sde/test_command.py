"""``lsgm import score-sde``: a file becomes a run that every other command takes, or nothing at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tomli_w
import torch
from bernoulli import ink
from oracles.score_sde import SlowScoreSDE, contents, save

from lsgm import cli
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.runs.checkpoint import find_checkpoint, read_state
from lsgm.runs.load import load_model
from lsgm_eval.run import plan

BARS: dict[str, Any] = {
    "dataset": "bars",
    "image_size": 28,
    "num_channels": 1,
    "binary": True,
    "random_flip": False,
    "nf": 8,
    "ch_mult": [1, 1],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "sde": "vesde",
    "centered": False,
    "scale_by_sigma": True,
    "embedding_type": "fourier",
}
"""NCSN++ with VE on binary images."""

TASK = (
    tiny.TASK
    + """
[tiers.smoke]
n_samples = 40
nelbo_images = 8
ode_images = 0
iw_flow_images = 0
sampler = { name = "heun", steps = 2 }
"""
)


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line that imports a model of bars, whose run is called official."""
    (tmp_path / "bars.toml").write_text(tomli_w.dumps(BARS))
    slow = SlowScoreSDE(BARS, channels=1)
    # The last convolution starts at zero in a real model; with large weights everything saturates.
    last = list(slow.weights)[-2]
    slow.weights[last] = (slow.weights[last] / 100).float().double()
    file = save(contents(slow, step=123), tmp_path / "checkpoint_1.pth")
    return ["import", "score-sde", str(file), str(tmp_path / "official"), "--config", _toml(tmp_path)]


def pictures() -> ImageSet:
    splits = {"train": ink(60, 1), "val": ink(20, 2), "test": ink(40, 3)}
    return ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)


def _toml(folder: Path) -> str:
    return str(folder / "bars.toml")


def test_what_was_found_is_said_and_written_down(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert said.startswith("last and averaged weights; step 123; ")
    assert "lsgm sample" in said
    state = read_state(find_checkpoint(tmp_path / "official"))
    assert (state["step"], state["stage"], state["stage_done"]) == (123, "score", True)
    source = state["meta"]["imported"]
    assert (source["format"], source["file"], source["config"]) == (
        "score-sde",
        "checkpoint_1.pth",
        "bars.toml",
    )
    assert source["settings"]["ch_mult"] == [1, 1]
    assert str(tmp_path) not in json.dumps(state["meta"])


def test_an_imported_model_is_sampled_bounded_and_evaluated(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(words) == 0
    run = tmp_path / "official"
    assert cli.main(["sample", str(run), "--n", "2", "--sampler.name", "heun", "--sampler.steps", "3"]) == 0
    model = load_model(run)
    assert model.sample([0, 1], SamplerConfig("euler", steps=2)).images.shape == (2, 1, 28, 28)
    levels = torch.randint(0, 2, (2, 1, 28, 28), dtype=torch.uint8)
    assert bool(model.density(levels, [0, 1], DensityConfig()).nats.isfinite().all())
    capsys.readouterr()
    monkeypatch.setattr(plan, "load", lambda name, **options: pictures())
    (tmp_path / "task.toml").write_text(TASK)
    words = ["eval", str(tmp_path / "task.toml"), "--tier", "smoke", "--model", str(run), "--json"]
    assert cli.main([*words, "--out", str(tmp_path / "results"), "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["model"] for row in rows} == {"official"}
    assert {"frechet_glyphs", "nelbo_nats"} <= {row["metric"] for row in rows}


def test_what_is_wrong_is_one_line_and_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(words: list[str]) -> str:
        assert cli.main(words) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert not (tmp_path / "official").exists()
        (line,) = said.err.splitlines()
        return line

    named = words[:-1]
    assert "discrete times" in refused([*named, "vp/cifar10_ddpmpp"])
    assert "name the configuration" in refused([*named, "ve/cifar10_ncsnpp_continuous"])
    assert "--config" in refused(words[:-2])
    Path(words[2]).write_bytes(b"nothing")
    assert "is truncated" in refused(words)
    assert "exists already" in _exists(words, tmp_path, capsys)


def _exists(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / "official").mkdir()
    assert cli.main(words) == 2
    return capsys.readouterr().err


def test_the_page_lists_the_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import"]) == 0
    assert "score-sde  checkpoints of score_sde_pytorch" in capsys.readouterr().out

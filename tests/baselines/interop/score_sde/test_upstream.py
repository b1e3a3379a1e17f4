"""Every network that score_sde_pytorch can run, its larger configurations, and files that its own code wrote.

The last lie in ``upstream/`` of the reference folder; where it is absent they are left out.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.score_sde import SlowScoreSDE, contents, save
from safetensors.torch import load_file
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.runs.load import load_model
from lsgm_baselines.score_sde.command import run
from lsgm_baselines.score_sde.convert import convert, read_checkpoint
from lsgm_baselines.score_sde.settings import LARGE, ScoreSDEConfig, find_config
from lsgm_baselines.sgm import SGM

SHARED = Path(os.environ.get("LSGM_SHARED", Path(__file__).parents[4].parent / "shared"))
UPSTREAM = SHARED / "upstream" / "score_sde"
FOLDERS = sorted(path.parent for path in UPSTREAM.glob("*/checkpoint.pth"))
upstream = pytest.mark.skipif(not FOLDERS, reason=f"the authors' own files are not here: {UPSTREAM}")

SMALL: dict[str, Any] = {
    "image_size": 8,
    "nf": 8,
    "ch_mult": (1, 2),
    "num_res_blocks": 1,
    "attn_resolutions": (4,),
}
SDES: dict[str, dict[str, Any]] = {
    "vp": {},
    "ve": {"sde": "vesde", "scale_by_sigma": True, "embedding_type": "fourier", "centered": False},
}
INPUTS = (("none", "sum"), ("input_skip", "sum"), ("input_skip", "cat"), ("residual", "sum"))


def networks(file: Path, config: ScoreSDEConfig, weights: str) -> SGM:
    """The model of a file in float64."""
    native = convert(read_checkpoint(file), config)
    model = SGM(native.recipe.prior, native.pixels)
    model.load_state_dict(native.raw if weights == "raw" else native.ema)
    return model.double().eval()


def same_score(slow: SlowScoreSDE, model: SGM, side: int) -> None:
    """On pixels scaled to [-1, 1], z = 2 x - 1, where grad log p(z) = grad log p(x) / 2."""
    t = torch.tensor([0.1, 0.9], dtype=torch.float64)
    z = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    centred = slow.settings["centered"]
    expected = slow.score(z, t) if centred else slow.score((z + 1) / 2, t) / 2
    with torch.no_grad():
        # Everything is float64, but the angles: their constants are rounded in different places.
        torch.testing.assert_close(model.prior.score(z, t), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("sde", SDES)
@pytest.mark.parametrize("fir", [False, True])
@pytest.mark.parametrize("progressive_input", INPUTS, ids="-".join)
@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
def test_every_pyramid_gives_the_score_of_the_checkpoint(
    progressive: str, progressive_input: tuple[str, str], fir: bool, sde: str, tmp_path: Path
) -> None:
    kind, combine = progressive_input
    settings = SMALL | SDES[sde] | {"fir": fir, "progressive": progressive}
    settings |= {"progressive_input": kind, "progressive_combine": combine}
    if fir and progressive == "residual":
        with pytest.raises(ConfigError, match="progressive is 'residual' with fir = True"):
            ScoreSDEConfig(**settings)
        return
    slow = SlowScoreSDE(settings)
    file = save(contents(slow), tmp_path / "checkpoint.pth")
    same_score(slow, networks(file, ScoreSDEConfig(**settings), "ema"), side=8)


@pytest.mark.parametrize("name", LARGE)
def test_the_larger_configurations_import_with_their_pyramids(name: str, tmp_path: Path) -> None:
    """Their own levels and settings, at a small width and on the smallest side that has so many levels."""
    published = find_config(name)
    side = 2 ** (len(published.ch_mult) - 1)
    config = replace(published, nf=4, image_size=side, ch_mult=tuple(min(m, 2) for m in published.ch_mult))
    names = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions", "fir", "progressive", "progressive_input")
    settings = {key: getattr(config, key) for key in (*names, "sde", "centered", "sigma_max", "image_size")}
    slow = SlowScoreSDE(settings)
    assert "all_modules.8.Conv_0.weight" in slow.weights or len(published.ch_mult) == 8
    file = save(contents(slow), tmp_path / "checkpoint.pth")
    same_score(slow, networks(file, config, "ema"), side=side)


def test_the_larger_configurations_say_what_theirs_say() -> None:
    celeba, ffhq = (find_config(f"ve/{name}_ncsnpp_continuous") for name in ("celebahq_256", "ffhq_1024"))
    assert (celeba.image_size, celeba.sigma_max, celeba.num_res_blocks) == (256, 348, 2)
    assert (celeba.progressive, celeba.progressive_input) == ("output_skip", "input_skip")
    assert (celeba.nf, celeba.ch_mult, celeba.ema_rate) == (128, (1, 1, 2, 2, 2, 2, 2), 0.999)
    assert (ffhq.image_size, ffhq.sigma_max, ffhq.num_res_blocks) == (1024, 1348, 1)
    assert (ffhq.nf, ffhq.ch_mult, ffhq.ema_rate) == (16, (1, 2, 4, 8, 16, 32, 32, 32), 0.9999)
    church, bedroom = (find_config(f"ve/{name}_ncsnpp_continuous") for name in ("church", "bedroom"))
    assert (church.sigma_max, bedroom.sigma_max) == (380, 378)


@upstream
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_files_of_theirs_compute_what_their_code_does(folder: Path, weights: str) -> None:
    expected = load_file(folder / "expected.safetensors")
    config = find_config(str(folder / "config.toml"))
    prior = networks(folder / "checkpoint.pth", config, weights).prior
    x, t, std = expected["x"], expected["t"], expected["std"]

    def column(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    exploding = config.sde == "vesde"
    unit, z = (1.0, x) if config.centered else (2.0, 2 * x - 1)
    torch.testing.assert_close(prior.sde.sigma(t), unit * std, rtol=1e-12, atol=0)
    theirs = expected[f"{weights}/output"]
    score = theirs if exploding else -theirs / column(std)
    with torch.no_grad():
        torch.testing.assert_close(unit * prior.score(z, t), score, rtol=1e-9, atol=1e-9)


@upstream
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_files_of_theirs_become_runs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    words = [str(folder / "checkpoint.pth"), str(tmp_path / "run"), "--config", str(folder / "config.toml")]
    assert run(words) == 0
    assert load_model(tmp_path / "run").pixels.shape == (3, 32, 32)

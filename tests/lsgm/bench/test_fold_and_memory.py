"""The benchmarks of folding and of recomputed activations: what they compare, and what they refuse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import toml
from torch import nn

from lsgm.bench.fold import compare_folded, largest_difference
from lsgm.bench.measuring import read_recipes
from lsgm.bench.memory import with_recompute
from lsgm.cli import main
from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.vae.hierarchical import HierarchicalVAE

NVAE = {
    "kind": "nvae",
    "width": 8,
    "multipliers": [1, 2],
    "pre_cells": 1,
    "post_cells": 1,
    "groups": 2,
    "latents": 2,
    "encoder_cells": 1,
    "decoder_cells": 1,
}
"""A hierarchical VAE whose latents are 4 x 16 x 16 on MNIST."""


@pytest.fixture
def hierarchical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small recipe with a hierarchical VAE, on a dataset that is not needed."""
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    path = tmp_path / "small.toml"
    prior = {"network": {"width": 16, "multipliers": [1], "blocks": 2, "attention": [], "embedding": 8}}
    lines = {"kind": "lsgm", "data": {"dataset": "mnist", "pad": 2}, "vae": NVAE, "prior": prior}
    import tomli_w

    path.write_text(tomli_w.dumps(lines))
    return path


def bench(*argv: object) -> int:
    return main(["bench", *map(str, argv), "--device", "cpu"])


def test_folding_is_timed_for_both_directions_and_checked(
    hierarchical: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("fold", "--recipes", hierarchical, "--rounds", 1, "--batch", 2, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["part"] for row in rows] == ["encode and decode", "decode"]
    for row in rows:
        assert row["folded"] > 10
        assert row["largest_difference"] < 1e-9
        assert row["plain_ms"] > 0
        assert row["folded_ms"] > 0
        assert row["batch_size"] == 2


def test_the_page_of_folding_names_what_was_narrowed(
    hierarchical: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("fold", "--recipes", hierarchical, "--rounds", 1, "--batch", 1, "--width", 0.5) == 0
    assert "| small, width x 0.5 | decode | 1 |" in capsys.readouterr().out


def test_a_fold_that_changes_the_output_is_not_timed(
    hierarchical: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folding that forgets one convolution's gain would be as fast, and wrong."""
    from lsgm.nets.folding import fold

    def forgetful(module: Any) -> int:
        count = fold(module)
        next(layer for layer in module.decoder.modules() if isinstance(layer, nn.Conv2d)).weight.data.mul_(2)
        return count

    monkeypatch.setattr("lsgm.bench.fold.fold", forgetful)
    recipe = read_recipes(str(hierarchical))["small"]
    with pytest.raises(ArithmeticError, match="folding changes"):
        compare_folded(recipe, batch=1, rounds=1, device=torch.device("cpu"), label="small")


def test_the_check_moves_the_running_statistics_first() -> None:
    torch.manual_seed(0)
    vae = HierarchicalVAE(
        NVAEConfig(width=8, latents=2, pre_cells=1, post_cells=1), Pixels(1, 16, 16, "binary")
    )
    before = {name: value.clone() for name, value in vae.eval().state_dict().items()}
    assert largest_difference(vae, vae.pixels, seed=1) < 1e-12
    assert all(torch.equal(before[name], value) for name, value in vae.state_dict().items())


def test_a_vae_with_nothing_to_fold_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toml(tmp_path / "conv.toml", {"data": {"image_size": 8}})
    assert bench("fold", "--recipes", path, "--rounds", 1) == 2
    assert "has nothing to fold" in capsys.readouterr().err


def test_recompute_is_switched_everywhere_and_nothing_else(hierarchical: Path) -> None:
    recipe = read_recipes(str(hierarchical))["small"]
    on = with_recompute(recipe, True)
    assert on.vae.recompute
    assert on.prior.network.recompute
    assert with_recompute(on, False) == recipe


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are reset through /proc")
def test_recomputing_activations_lowers_the_peaks_rise(
    hierarchical: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("memory", "--recipes", hierarchical, "--batch", 24, "--json") == 0
    kept, again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (kept["recompute"], again["recompute"]) == (False, True)
    # Of several cells per part the inputs stay instead of everything inside.
    assert again["rise_bytes"] < 0.8 * kept["rise_bytes"]
    assert all(row["peak_bytes"] == row["before_bytes"] + row["rise_bytes"] for row in (kept, again))


def test_a_model_without_a_joint_step_has_no_memory_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vae.toml"
    path.write_text('kind = "vae"\n')
    assert bench("memory", "--recipes", path) == 2
    assert "has no joint step" in capsys.readouterr().err


def test_a_step_that_fails_is_one_sentence(
    hierarchical: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lsgm.bench.memory.sys.executable", "/bin/false")
    assert bench("memory", "--recipes", hierarchical, "--batch", 2) == 2
    captured = capsys.readouterr()
    assert "a step of recipe 'small' failed" in captured.err
    assert captured.err.count("\n") == 1

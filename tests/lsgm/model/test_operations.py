"""What images cost: operations as they are counted by hand, the decoder's seconds as a part of all."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from torch import nn

from lsgm.config import SamplerConfig
from lsgm.generative import Pixels
from lsgm.kinds import find_kind
from lsgm.model.lsgm import operations
from lsgm.runs.load import fresh_networks
from lsgm.sampling import grids


def model_of(stage: str) -> Any:
    recipe = tiny.recipe()
    networks = fresh_networks(recipe, Pixels(1, 8, 8, "binary")).eval().requires_grad_(False)
    state = {"name": "tiny", "sha256": "a", "stage": stage}
    return find_kind("lsgm").measurable(recipe, networks, state)


def test_a_multiply_add_counts_two() -> None:
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert operations(lambda: a @ b) == 2 * 3 * 5 * 7
    conv = nn.Conv2d(2, 4, 3, padding=1)
    assert operations(lambda: conv(torch.ones(1, 2, 8, 8)).relu()) == 2 * 4 * 8 * 8 * (2 * 9)


def test_an_image_of_an_lsgm_costs_evaluations_and_a_decoder() -> None:
    model, vae = model_of("stage2"), model_of("stage1")
    flops = model.sampling_flops()
    z, t = torch.zeros(5, *model.coder.latent_shape), torch.ones(5, dtype=torch.float64)
    assert operations(lambda: model.prior.eps(z, t)) == 5 * flops.evaluation > 0
    assert vae.sampling_flops().evaluation == 0
    assert vae.sampling_flops().decoder == flops.decoder > 0


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_the_decoders_seconds_are_a_part_of_all(stage: str) -> None:
    found = model_of(stage).sample([0, 1], SamplerConfig("heun", steps=2))
    assert found.decoder_seconds is not None
    assert 0 < found.decoder_seconds < found.seconds


def test_an_optimised_grid_is_made_once_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = [], grids.local_errors

    def counted(*arguments: Any, **settings: Any) -> grids.LocalErrors:
        made.append(1)
        return real(*arguments, **settings)

    monkeypatch.setattr(grids, "local_errors", counted)
    model = model_of("stage2")
    first = model.sample([0, 1], SamplerConfig("heun", steps=3, grid="optimised"))
    assert first.nfe.tolist() == [6, 6]
    again = model.sample([1], SamplerConfig("heun", steps=3, grid="optimised"))
    assert torch.equal(again.images[0], first.images[1])
    assert len(made) == 1

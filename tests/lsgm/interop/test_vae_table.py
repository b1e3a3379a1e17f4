"""The authors' hierarchical VAEs, tensor for tensor: every name is met, and what they compute is computed."""

from __future__ import annotations

import math

import pytest
import torch
from golden import FOLDERS, golden, golden_args, needs_golden
from torch import Tensor

from lsgm.interop.nvlabs.arguments import pixels_of_args, recipe_of
from lsgm.interop.nvlabs.tables import vae_derived, vae_table
from lsgm.nets.config import NVAEConfig
from lsgm.vae.base import Noise, sum_per_sample
from lsgm.vae.hierarchical import HierarchicalVAE


def config_of(folder: str) -> NVAEConfig:
    config = recipe_of(golden_args(folder)).vae
    assert isinstance(config, NVAEConfig)
    return config


def golden_model(folder: str) -> tuple[HierarchicalVAE, Tensor, dict[str, Tensor]]:
    """Return the model, the levels of its images without padding, and the golden tensors."""
    checkpoint, meta, io = golden(folder)
    recipe, pixels = recipe_of(meta["args"]), pixels_of_args(meta["args"])
    config = config_of(folder)
    pad = recipe.data.pad
    model = HierarchicalVAE(config, pixels, pad=pad)
    table = vae_table(config)
    theirs = checkpoint["vae_state_dict"]
    model.load_state_dict({ours: theirs[name] for name, ours in table.items()})
    inner = io["x_uint8"][:, :, pad : pad + pixels.height, pad : pad + pixels.width].long()
    levels = (inner >> (8 - round(math.log2(pixels.levels)))).to(torch.uint8)
    return model.double(), levels, io


def in_turn(tensors: list[Tensor]) -> Noise:
    left = iter(tensors)
    return lambda *shape: next(left)


def error(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1))


@needs_golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_stage_agrees_with_the_authors_code(folder: str) -> None:
    model, levels, io = golden_model(folder)
    model.eval()
    count = len(model.groups.shapes)
    with torch.no_grad():
        n = [io[f"vae_eval/encoder_noise/{group:02}"] for group in range(count)]
        draws = model.encode(levels, in_turn(n))
        for group, draw in enumerate(draws):
            assert error(draw.z, io[f"vae_eval/z/{group:02}"]) < 1e-12
            assert error(draw.log_q, io[f"vae_eval/log_q/{group:02}"]) < 1e-12
        z = tuple(draw.z for draw in draws)
        theirs = io["vae_eval/decoder_params"]
        ours = model.decoder_parameters(z)[:, :, : theirs.shape[2], : theirs.shape[3]]
        assert error(ours, theirs) < 1e-12
        nats = -sum_per_sample(model.likelihood(z).log_prob(levels))
        assert error(nats, io["vae_eval/recon_nll"]) < 1e-12


@needs_golden
@pytest.mark.parametrize("folder", FOLDERS[:4])
def test_a_batch_in_training_is_reconstructed_as_by_the_authors_code(folder: str) -> None:
    """Batch statistics instead of running ones; the average over a batch is all that was recorded."""
    model, levels, io = golden_model(folder)
    n = [io[f"step/encoder_noise/{group:02}"] for group in range(len(model.groups.shapes))]
    with torch.no_grad():
        z, _ = model.train().posterior(levels, in_turn(n))
        nats = -sum_per_sample(model.likelihood(z).log_prob(levels)).mean()
    expected = golden(folder)[1]["step"]["recon"]
    assert float(nats) == pytest.approx(expected, rel=1e-12)


@needs_golden
@pytest.mark.parametrize("folder", FOLDERS)
def test_every_name_of_theirs_is_translated_or_known_to_be_derived(folder: str) -> None:
    theirs, config = golden(folder)[0]["vae_state_dict"], config_of(folder)
    assert set(theirs) == set(vae_table(config)) | vae_derived(config)
    assert not set(vae_table(config)) & vae_derived(config)


def test_names_follow_the_configuration() -> None:
    """Two scales of one group: cell, combiner, halving, cell upwards; combiner, cell, doubling downwards."""
    config = NVAEConfig(
        multipliers=(1, 1, 2), scales=2, groups=1, encoder_cells=1, decoder_cells=1, flows=2, input_skip=True
    )
    table = vae_table(config)
    assert table["enc_tower.0._ops.1.conv_0.weight"] == "encoder.cells.1.0.branch.1.conv.weight"
    assert table["enc_tower.1.conv.bias"] == "encoder.combine.0.bias"
    assert table["enc_tower.2.skip.conv_3.weight"] == "encoder.down.0.skip.quarters.2.weight"
    assert table["progressive_input_cells.0.conv.bn_act.bias"] == "encoder.pyramid.0.norm.bias"
    assert table["enc_tower.3.se.se.2.bias"] == "encoder.cells.0.0.gate.excite.bias"
    assert table["nf_cells.3.cell2.mu.conv_0.bias"] == "encoder.flows.1.1.backwards.last.bias"
    assert table["dec_tower.2._ops.0.conv.3.conv.0.weight"] == "decoder.up.0.branch.depthwise.weight"
    assert table["dec_tower.3.conv.log_weight_norm"] == "decoder.combine.1.log_weight_norm"
    assert table["dec_tower.4._ops.0.conv.0.bn.running_var"] == "decoder.cells.1.0.branch.norm.running_var"
    assert "dec_tower.5.conv.weight" not in table
    assert len(set(table.values())) == len(table)


def test_without_gates_there_are_no_gates() -> None:
    names = vae_table(NVAEConfig(squeeze_excite=False))
    assert not any(".se." in name for name in names)
    assert vae_derived(NVAEConfig(cells="res_bnswish")) == frozenset()

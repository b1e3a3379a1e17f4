"""The networks: shapes, starting points, and that nothing mixes samples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsgm.errors import ConfigError
from lsgm.nets.config import ConvVAEConfig, ScoreNetConfig
from lsgm.nets.layers import Attention, Resample, ResBlock, TimeEmbedding, group_norm
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.vae.small import ConvDecoder, ConvEncoder


@settings(deadline=None, max_examples=15)
@given(
    multipliers=st.lists(st.integers(1, 2), min_size=1, max_size=3),
    blocks=st.integers(1, 2),
    channels=st.integers(1, 5),
    attention=st.sampled_from([(), (8,), (4, 8)]),
)
def test_the_score_network_keeps_the_shape_of_z(
    multipliers: list[int], blocks: int, channels: int, attention: tuple[int, ...]
) -> None:
    config = ScoreNetConfig(8, tuple(multipliers), blocks, attention, embedding=8)
    network = NCSNpp(config, channels=channels, resolution=8)
    z = torch.randn(2, channels, 8, 8)
    assert network(z, torch.rand(2)).shape == z.shape


def test_the_score_network_starts_at_zero() -> None:
    network = NCSNpp(ScoreNetConfig(8, (1,), 1, embedding=8), channels=2, resolution=4)
    assert float(network(torch.randn(2, 2, 4, 4), torch.rand(2)).detach().abs().max()) < 1e-3


def test_no_network_mixes_samples() -> None:
    """The premise of the single backward pass: row b of the output depends on row b of the input alone."""
    torch.manual_seed(0)
    network = NCSNpp(ScoreNetConfig(8, (1, 2), 1, (4,), embedding=8), channels=2, resolution=8).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    z = torch.randn(3, 2, 8, 8, dtype=torch.float64, requires_grad=True)
    out = network(z, torch.tensor([0.1, 0.5, 0.9]))
    (gradient,) = torch.autograd.grad(out[1].sum(), z)
    assert torch.equal(gradient[[0, 2]], torch.zeros_like(gradient[[0, 2]]))
    assert float(gradient[1].abs().max()) > 0


def test_an_odd_side_cannot_be_halved() -> None:
    with pytest.raises(ConfigError, match="cannot halve a side of 7"):
        NCSNpp(ScoreNetConfig(8, (1, 2)), channels=2, resolution=7)
    with pytest.raises(ConfigError, match="cannot halve a side of 30"):
        ConvEncoder(ConvVAEConfig(multipliers=(1, 1)), channels=1, resolution=30)


@pytest.mark.parametrize("multipliers", [(1,), (1, 2), (1, 2, 4)])
def test_encoder_and_decoder_are_mirror_images(multipliers: tuple[int, ...]) -> None:
    config = ConvVAEConfig(width=8, multipliers=multipliers, latent_channels=3)
    encoder, decoder = ConvEncoder(config, channels=1, resolution=16), ConvDecoder(config, outputs=2)
    side = 16 >> len(multipliers)
    assert encoder(torch.randn(2, 1, 16, 16)).shape == (2, 6, side, side)
    assert decoder(torch.randn(2, 3, side, side)).shape == (2, 2, 16, 16)


def test_a_residual_block_starts_as_a_scaled_identity() -> None:
    x = torch.randn(2, 8, 4, 4)
    # The last convolution starts with variance 1e-10: the branch adds about 1e-5.
    torch.testing.assert_close(ResBlock(8, 8)(x), x * 0.5**0.5, rtol=0, atol=1e-3)
    torch.testing.assert_close(Attention(8)(x), x * 0.5**0.5, rtol=0, atol=1e-3)


def test_resampling_up_then_down_is_the_identity() -> None:
    x = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(Resample("down")(Resample("up")(x)), x)


def test_group_norm_divides_the_channels() -> None:
    for channels in range(1, 130):
        assert channels % group_norm(channels).num_groups == 0


def test_nearby_times_have_different_embeddings_and_half_precision_does_not_blur_them() -> None:
    embed = TimeEmbedding(8, 1000.0)
    t = torch.tensor([0.5, 0.5 + 1e-6], dtype=torch.float64)
    waves = embed(t)
    assert not torch.equal(waves[0], waves[1])


def test_bad_sizes_are_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match="dropout"):
        ScoreNetConfig(dropout=1.0)
    with pytest.raises(ConfigError, match="embedding"):
        ScoreNetConfig(embedding=7)
    with pytest.raises(ConfigError, match="latent channel"):
        ConvVAEConfig(latent_channels=0)

"""The fully connected networks: layers, order, initialisation and the published sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.nets.config import FlatVAEConfig
from lsgm.vae.small import MLP, FlatVAE


def dense(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def networks(height: int, width: int, hidden: tuple[int, ...], latents: int) -> tuple[MLP, MLP]:
    vae = FlatVAE(FlatVAEConfig(hidden=hidden, latents=latents), Pixels(1, height, width, "binary", 1))
    return vae.encoder, vae.decoder


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_the_published_sizes() -> None:
    """784-200-200-(mu, sigma of 50) and 50-200-200-784 (arXiv:1509.00519, section 5)."""
    encoder, decoder = networks(28, 28, (200, 200), 50)
    assert count(encoder) == 784 * 200 + 200 + 200 * 200 + 200 + 2 * (200 * 50 + 50)
    assert count(decoder) == 50 * 200 + 200 + 200 * 200 + 200 + 200 * 784 + 784


def test_the_decoder_has_the_encoders_widths_in_reverse() -> None:
    encoder, decoder = networks(3, 4, (7, 5, 3), 2)
    widths = [(layer.in_features, layer.out_features) for layer in dense(encoder)]
    assert widths == [(12, 7), (7, 5), (5, 3), (3, 4)]
    widths = [(layer.in_features, layer.out_features) for layer in dense(decoder)]
    assert widths == [(2, 3), (3, 5), (5, 7), (7, 12)]


def test_hidden_layers_pass_tanh_and_the_last_one_does_not() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 12, dtype=torch.float64)
    for network in (MLP([12, 7, 5], 2, 2).double(), MLP([12, 7, 5], 6).double()):
        h = x
        *hidden, last = dense(network)
        for layer in hidden:
            h = torch.tanh(h @ layer.weight.T + layer.bias)
        torch.testing.assert_close(network(x), h @ last.weight.T + last.bias)


def test_weights_start_uniform_after_glorot_and_biases_at_zero() -> None:
    """U(-a, a) with a^2 = 6 / (fan in + fan out); mu and log sigma are layers with fans of their own."""
    torch.manual_seed(0)
    encoder, decoder = networks(28, 28, (200, 200), 50)
    *hidden, head = dense(encoder)
    weights: list[Tensor] = [layer.weight for layer in (*hidden, *dense(decoder))]
    for weight in (*weights, *head.weight.split(50)):
        edge = math.sqrt(6 / sum(weight.shape))
        assert weight.abs().max() <= edge
        # The variance of a uniform law, of at least 10,000 numbers: its own relative error is below 1 %.
        assert abs(float(weight.detach().var()) / (edge**2 / 3) - 1) < 0.05
    assert all(not layer.bias.any() for layer in (*dense(encoder), *dense(decoder)))

"""Fully connected encoder and decoder: the networks of Burda et al. (arXiv:1509.00519)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from lsgm.nets.layers import linear, scaled_init

__all__ = ["MLPDecoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """x [B, D] -> (mu, log sigma) of q(z | x), side by side: [B, 2 L].

    Layers of the widths ``hidden``, from the image on, each followed by tanh; one layer for mu and one for
    log sigma. Glorot uniform weights and zero biases.
    """

    def __init__(self, inputs: int, hidden: Sequence[int], latents: int) -> None:
        super().__init__()
        self.layers = _hidden_layers([inputs, *hidden])
        self.head = nn.Linear(hidden[-1], 2 * latents)
        scaled_init(self.head, parts=(latents, latents))

    def forward(self, x: Tensor) -> Tensor:
        """Return the parameters of q(z | x)."""
        out: Tensor = self.head(self.layers(x))
        return out


class MLPDecoder(nn.Module):
    """z [B, L] -> parameters of p(x | z), [B, D].

    Layers of the widths ``hidden`` in reverse, each followed by tanh, and one without it. Glorot uniform
    weights and zero biases.
    """

    def __init__(self, latents: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.layers = _hidden_layers([latents, *reversed(hidden)])
        self.head = linear(hidden[0], outputs)

    def forward(self, z: Tensor) -> Tensor:
        """Return the pixel distribution's parameters."""
        out: Tensor = self.head(self.layers(z))
        return out


def _hidden_layers(widths: Sequence[int]) -> nn.Sequential:
    return nn.Sequential(
        *(layer for d_in, d_out in pairwise(widths) for layer in (linear(d_in, d_out), nn.Tanh()))
    )

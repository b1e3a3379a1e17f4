"""Within `Doubled` numbers are float64's, noise is what it was, and nothing else changes."""

from __future__ import annotations

import copy

import torch
from tiny import bars, recipe
from torch import nn
from torch.nn import functional as F

from lsgm.config import DensityConfig
from lsgm.generative import GenerativeModel, Pixels
from lsgm.model.diffusion import measure_lsgm
from lsgm.rng import SeededNoise
from lsgm.runs.load import fresh_networks
from lsgm_eval.gate.record import Doubled


def network() -> nn.Module:
    layers = (nn.Conv2d(1, 4, 3), nn.SiLU(), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3), nn.Flatten())
    return nn.Sequential(*layers, nn.Linear(32, 3))


def tiny_model() -> GenerativeModel:
    networks = fresh_networks(recipe(), Pixels(1, 8, 8, "binary", 1)).eval()
    for number, tensor in enumerate(networks.parameters()):  # no layer that starts at zero hides another
        generator = torch.Generator().manual_seed(number)
        tensor.data += 0.1 * torch.randn(tensor.shape, generator=generator)
    state = {"name": "tiny", "sha256": "0" * 64}
    return measure_lsgm(recipe().prior.objective, networks, state)  # type: ignore[arg-type]


@torch.no_grad()
def test_a_network_gives_what_its_float64_copy_gives() -> None:
    torch.manual_seed(0)
    net, x = network(), torch.randn(5, 1, 8, 8)
    with Doubled():
        widened = net(x)
    true = copy.deepcopy(net).double()(x.double())
    assert widened.dtype is torch.float64
    # The same operations on the same numbers in the same precision.
    torch.testing.assert_close(widened, true, rtol=1e-13, atol=1e-13)
    assert net(x).dtype is torch.float32


def test_seeds_give_the_same_noise() -> None:
    with Doubled():
        noise = SeededNoise([3, 9]).normal(2, 4)
    torch.testing.assert_close(noise.float(), SeededNoise([3, 9]).normal(2, 4), rtol=0, atol=0)


def test_casts_to_float32_and_gradients_are_widened_too() -> None:
    x = torch.tensor([0.1, 0.2], requires_grad=True)
    with Doubled():
        y = F.softplus(x.float().to(torch.float32)).sum()
        (gradient,) = torch.autograd.grad(y, x)
    assert y.dtype is torch.float64
    torch.testing.assert_close(gradient, torch.sigmoid(x.detach()), rtol=1e-6, atol=0)


def test_a_models_bounds_move_by_float32s_rounding_and_by_something() -> None:
    model, levels = tiny_model(), (bars().split("test")[:8] > 100).to(torch.uint8)
    for config in (DensityConfig(draws=2), DensityConfig("ode", solver="heun", steps=4)):
        plain = model.density(levels, range(8), config).nats
        with Doubled():
            wide = model.density(levels, range(8), config).nats
        gap = (plain - wide).abs() / plain.abs()
        # Some hundred roundings of 2^-24 on the way to a sum over 64 pixels.
        assert 0 < float(gap.max()) < 1e-5

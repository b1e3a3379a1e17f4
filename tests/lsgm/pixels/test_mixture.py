"""Mixtures of discretised logistics with colour autoregression: their mass, their draws, their image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import special, stats
from torch import Tensor

from lsgm.pixels import COMPONENTS, LogisticMixture

K = COMPONENTS


def parameters_of_a_pixel(channels: int, seed: int, spread: float = 1.0) -> Tensor:
    """Return random decoder outputs of one pixel, float64 [1, 100 or 30, 1, 1]; scales about e^-2."""
    generator = torch.Generator().manual_seed(seed)
    parameters = torch.randn(1, 100 if channels == 3 else 30, 1, 1, generator=generator).double() * spread
    for channel in range(channels):
        start = K + channel * (parameters.shape[1] - K) // channels + K
        parameters[:, start : start + K] -= 2.0
    return parameters


class Oracle:
    """One pixel of the same law from scipy's distribution functions, the components one by one."""

    def __init__(self, parameters: Tensor, channels: int, levels: int) -> None:
        flat = parameters.flatten().numpy()
        self.levels = levels
        self.pi = special.softmax(flat[:K])
        self.block = flat[K:].reshape(channels, -1)

    def centre(self, k: int, colour: int, earlier: Sequence[float]) -> float:
        centre = float(self.block[colour, k])
        if colour == 1:
            centre += math.tanh(self.block[0, 2 * K + k]) * earlier[0]
        if colour == 2:
            centre += math.tanh(self.block[1, 2 * K + k]) * earlier[0]
            centre += math.tanh(self.block[2, 2 * K + k]) * earlier[1]
        return centre

    def bins(self, k: int, colour: int, earlier: Sequence[int]) -> NDArray[np.float64]:
        """Return P of all levels of a colour under component k, given the levels of the earlier colours."""
        centre = self.centre(k, colour, [2 * level / (self.levels - 1) - 1 for level in earlier])
        edges = (2 * np.arange(1, self.levels) - 1) / (self.levels - 1) - 1
        law = stats.logistic(loc=centre, scale=math.exp(max(self.block[colour, K + k], -7.0)))
        return np.diff(law.cdf(edges), prepend=0.0, append=1.0)

    def mass(self, *levels: int) -> float:
        """Return P of a pixel's first colours."""
        return sum(
            self.pi[k] * math.prod(self.bins(k, c, levels[:c])[level] for c, level in enumerate(levels))
            for k in range(K)
        )


def masses(parameters: Tensor, levels: Tensor, count: int) -> Tensor:
    """Return P of pixels given as rows [N, C] of levels, [N]."""
    n, channels = levels.shape
    pixels = levels.to(torch.uint8)[:, :, None, None]
    distribution = LogisticMixture(parameters.expand(n, -1, -1, -1), channels, count)
    return distribution.log_prob(pixels).exp().flatten()


def every(*counts: int) -> Tensor:
    return torch.cartesian_prod(*(torch.arange(count) for count in counts))


def test_every_colour_of_a_5_bit_pixel_sums_to_one_given_the_earlier_ones() -> None:
    """T10: all 32^3 colours, against the mass of the earlier colours from scipy."""
    parameters = parameters_of_a_pixel(3, seed=0)
    mass = masses(parameters, every(32, 32, 32), 32).reshape(32, 32, 32)
    oracle = Oracle(parameters, 3, 32)
    assert float(mass.sum()) == pytest.approx(1.0, abs=1e-12)
    for r, g in [(0, 0), (5, 31), (17, 12), (31, 20)]:
        assert float(mass[r].sum()) == pytest.approx(oracle.mass(r), rel=1e-12, abs=1e-12)
        assert float(mass[r, g].sum()) == pytest.approx(oracle.mass(r, g), rel=1e-12, abs=1e-12)


def test_every_colour_of_an_8_bit_pixel_sums_to_one_given_the_earlier_ones() -> None:
    """T10: green and blue together leave red's own mixture, which is one of grey pixels and sums to one."""
    parameters = parameters_of_a_pixel(3, seed=1)
    grey = torch.cat([parameters[:, :K], parameters[:, K : 3 * K]], dim=1)
    reds = masses(grey, every(256)[:, None], 256)
    assert float(reds.sum()) == pytest.approx(1.0, abs=1e-12)
    green_blue = every(256, 256)
    for r in (0, 93, 255):
        mass = masses(parameters, torch.nn.functional.pad(green_blue, (1, 0), value=r), 256)
        assert float(mass.sum()) == pytest.approx(float(reds[r]), rel=1e-12, abs=1e-12)
        greens = mass.reshape(256, 256).sum(dim=1)
        expected = Oracle(parameters, 3, 256)
        for g in (0, 180):
            assert float(greens[g]) == pytest.approx(expected.mass(r, g), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("bits", [5, 8])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_has_the_mass_of_scipys_logistics(bits: int, channels: int) -> None:
    levels = torch.tensor([[0, 0, 0], [31, 31, 31], [3, 14, 15], [29, 0, 31], [16, 5, 9]])[:, :channels]
    levels = levels * 255 // 31 if bits == 8 else levels
    for seed in range(3):
        parameters = parameters_of_a_pixel(channels, seed)
        ours = masses(parameters, levels, 2**bits).tolist()
        oracle = Oracle(parameters, channels, 2**bits)
        # Differences of distribution functions carry the rounding of 1.
        assert ours == pytest.approx([oracle.mass(*row) for row in levels.tolist()], rel=1e-9, abs=1e-16)


def test_pixels_out_of_every_components_reach_stay_finite_with_their_gradients() -> None:
    """Where no bin's mass is representable, the slope still points back to the data."""
    parameters = torch.zeros(1, 100, 1, 1)
    for start in (20, 50, 80):
        parameters[:, start : start + K] = -9.0
    parameters.requires_grad_()
    log_p = LogisticMixture(parameters, 3, 256).log_prob(torch.tensor([200, 255, 60])[None, :, None, None])
    log_p.sum().backward()
    assert float(log_p.detach()) < -1000
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
    assert bool((parameters.grad[:, 10:20] > 0).all())


def test_the_recomputed_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    parameters = (torch.randn(1, 100, 1, 2) * 0.3).double().requires_grad_()
    levels = torch.tensor([[[0, 9]], [[7, 15]], [[12, 3]]])[None]
    assert torch.autograd.gradcheck(lambda p: LogisticMixture(p, 3, 16).log_prob(levels), parameters)


def test_what_backward_keeps_is_a_fraction_of_what_it_reads() -> None:
    """Per colour: the mass of each component and no more, beside the parameters themselves."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    parameters = torch.randn(2, 100, 16, 16, requires_grad=True)
    levels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        LogisticMixture(parameters, 3, 256).log_prob(levels).sum()
    assert sum(kept.values()) < 3 * parameters.untyped_storage().nbytes()


@pytest.mark.parametrize("channels", [1, 3])
def test_draws_have_the_probabilities_that_log_prob_gives_them(channels: int) -> None:
    """All colours of 2 bits: chi-square over the cells that expect at least five draws."""
    torch.manual_seed(channels)
    n, count = 200_000, 4
    parameters = parameters_of_a_pixel(channels, seed=4)
    distribution = LogisticMixture(parameters.expand(n, -1, -1, -1), channels, count)
    drawn = distribution.sample(torch.rand(n, 1 + channels, 1, 1)).flatten(1) * (count - 1)
    cells = every(*[count] * channels).reshape(-1, channels)
    place = count ** torch.arange(channels - 1, -1, -1)
    counts = torch.bincount((drawn.round().long() * place).sum(dim=1), minlength=len(cells)).double()
    expected = masses(parameters, cells, count) * n
    assert float(expected.sum()) == pytest.approx(n)
    seen = expected >= 5
    chi2 = float(((counts - expected) ** 2 / expected)[seen].sum())
    assert chi2 < stats.chi2(int(seen.sum()) - 1).ppf(1 - 1e-6)
    assert float(counts[~seen].sum()) < 5 * int((~seen).sum()) + 20


def test_the_displayed_image_is_made_of_averaged_centres_and_coefficients() -> None:
    """Red, green and blue are clamped in turn, and each leans on the clamped ones before it."""
    for seed in range(20):
        parameters = parameters_of_a_pixel(3, seed, spread=2.0)
        oracle = Oracle(parameters, 3, 256)
        mu = oracle.block[:, :K] @ oracle.pi
        a = np.tanh(oracle.block[:, 2 * K :]) @ oracle.pi
        red = min(max(mu[0], -1), 1)
        green = min(max(mu[1] + a[0] * red, -1), 1)
        blue = min(max(mu[2] + a[1] * red + a[2] * green, -1), 1)
        expected = [(x + 1) / 2 for x in (red, green, blue)]
        assert LogisticMixture(parameters, 3, 256).mean().flatten().tolist() == pytest.approx(expected)


def test_the_displayed_image_is_no_draw() -> None:
    """Half black, half white: every draw is one of the two, and what is displayed is grey."""
    parameters = torch.zeros(1, 30, 1, 1)
    parameters[:, 10:15], parameters[:, 15:20], parameters[:, 20:30] = -1.0, 1.0, -7.0
    distribution = LogisticMixture(parameters, 1, 256)
    assert float(distribution.mean()) == 0.5
    draws = {
        float(distribution.sample(torch.tensor([u, 0.5]).reshape(1, 2, 1, 1))) for u in (0.1, 0.4, 0.6, 0.9)
    }
    assert draws == {0.0, 1.0}


def test_a_mixture_of_equal_components_is_one_logistic() -> None:
    """Draws and image of grey pixels then have its centre, and log-probabilities its bins."""
    parameters = torch.randn(1, 3 * K, 1, 1).double()
    parameters[:, K : 2 * K], parameters[:, 2 * K :] = 0.2, -3.0
    law = stats.logistic(loc=0.2, scale=math.exp(-3.0))
    x = 160 * 2 / 255 - 1
    mass = float(masses(parameters, torch.tensor([[160]]), 256))
    assert mass == pytest.approx(law.cdf(x + 1 / 255) - law.cdf(x - 1 / 255), rel=1e-9)
    assert float(LogisticMixture(parameters, 1, 256).mean()) == pytest.approx(0.6)

"""FIR resampling against its definition: zeros put in, scipy's convolution, pixels left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from lsgm.nets.layers import FIR, FIRConv

KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64


def upfirdn(image: np.ndarray, up: int, down: int, pad: tuple[int, int], gain: float) -> np.ndarray:
    """Insert zeros, pad, filter and decimate one channel."""
    spread = np.zeros([side * up for side in image.shape])
    spread[::up, ::up] = image
    filtered: np.ndarray = convolve2d(np.pad(spread, pad), gain * KERNEL, mode="valid")
    return filtered[::down, ::down]


@pytest.mark.parametrize("sides", [(2, 2), (8, 8), (6, 10)])
def test_fir_resampling_is_zero_insertion_filter_and_decimation(sides: tuple[int, int]) -> None:
    image = np.random.default_rng(0).standard_normal((2, 3, *sides))
    for direction, how in (("down", (1, 2, (1, 1), 1.0)), ("up", (2, 1, (2, 1), 4.0))):
        ours = FIR(direction).double()(torch.from_numpy(image))  # type: ignore[arg-type]
        slow = np.array([[upfirdn(channel, *how) for channel in sample] for sample in image])
        np.testing.assert_allclose(ours.numpy(), slow, rtol=0, atol=1e-14)


def test_a_constant_image_stays_constant_away_from_the_border() -> None:
    x = torch.ones(1, 1, 8, 8)
    torch.testing.assert_close(FIR("down")(x)[..., 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(FIR("up")(x)[..., 1:-1, 1:-1], torch.ones(1, 1, 14, 14))


def test_the_filter_is_exact_in_half_precision_and_no_part_of_the_weights() -> None:
    fir = FIR("up")
    assert torch.equal(fir.bfloat16().kernel.double(), 4 * torch.from_numpy(KERNEL)[None, None])
    assert not fir.state_dict()
    assert set(FIRConv(1, 1, "up").state_dict()) == {"weight", "bias"}


def test_a_fused_convolution_is_the_filter_and_the_convolution_away_from_the_border() -> None:
    """Filters commute where no border is near; at the border the fused one pads once instead of twice."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, 12, 12, dtype=torch.float64)
    for direction in ("down", "up"):
        fused = FIRConv(3, 5, direction).double()
        kernel = torch.nn.functional.conv2d
        if direction == "up":
            plain = kernel(FIR("up").double()(x), fused.weight, fused.bias, padding=1)
        else:
            taps = torch.from_numpy(KERNEL).expand(5, 1, 4, 4)
            plain = kernel(kernel(x, fused.weight), taps, fused.bias, stride=2, padding=2, groups=5)
        assert fused(x).shape == plain.shape
        torch.testing.assert_close(fused(x)[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2], rtol=0, atol=1e-13)

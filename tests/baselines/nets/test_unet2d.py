"""Our U-Net against the library's: the same tensors and the same numbers, for every option that exists."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ddpm_folders import UNET, library, unet

from lsgm.errors import ConfigError
from lsgm_baselines.diffusers.model import UNet2D
from lsgm_baselines.diffusers.recipe import UNet2DConfig

OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "fourier": {"time_embedding_type": "fourier"},
    "sines first, shifted": {"flip_sin_to_cos": False, "freq_shift": 1},
    "padding on the far sides": {"downsample_padding": 0},
    "a single head": {"attention_head_dim": None},
    "centred input": {"center_input_sample": True},
    "groups and eps": {"norm_num_groups": 2, "norm_eps": 1e-3, "attn_norm_num_groups": 8},
    "scaled middle": {"mid_block_scale_factor": 1.4142},
    "middle without attention": {"add_attention": False},
    "embedding of another width": {"time_embedding_dim": 12},
    "two layers": {"layers_per_block": 2},
    "rgb, one level": {
        "in_channels": 3,
        "out_channels": 3,
        "block_out_channels": (8,),
        "down_block_types": ("AttnDownBlock2D",),
        "up_block_types": ("AttnUpBlock2D",),
    },
    "three levels": {
        "block_out_channels": (8, 12, 16),
        "down_block_types": ("AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
}

CIFAR10: dict[str, Any] = {
    "attention_head_dim": None,
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "sample_size": 32,
}
CELEBA: dict[str, Any] = CIFAR10 | {
    "block_out_channels": (128, 128, 256, 256, 512, 512),
    "down_block_types": ("DownBlock2D",) * 4 + ("AttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "AttnUpBlock2D") + ("UpBlock2D",) * 4,
    "sample_size": 256,
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_outputs_are_the_librarys(options: dict[str, Any]) -> None:
    theirs = unet(**options)
    ours = UNet2D(UNet2DConfig(**(UNET | options))).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(3, theirs.config.in_channels, 8, 8, generator=torch.Generator().manual_seed(1))
    n = torch.tensor([1, 500, 999])
    with torch.no_grad():
        expected = theirs(x, n).sample
        # Float32 through some twenty layers.
        torch.testing.assert_close(ours(x, n.double()), expected, rtol=1e-5, atol=1e-5)
        assert expected.abs().mean() > (0.1 if "time_embedding_type" not in options else 1e-4)


@pytest.mark.parametrize(
    ("options", "million"),
    [(CIFAR10, 35.7), (CELEBA, 113.7), ({"sample_size": 32}, None)],
    ids=["cifar10", "celebahq", "default"],
)
def test_published_sizes_have_the_librarys_tensors(options: dict[str, Any], million: float | None) -> None:
    with torch.device("meta"):
        ours, theirs = UNet2D(UNet2DConfig(**options)), library().UNet2DModel(**options)
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    if million is not None:
        count = sum(parameter.numel() for parameter in ours.parameters())
        assert count / 1e6 == pytest.approx(million, abs=0.05)


def test_timesteps_may_be_fractions_and_differ_within_a_batch() -> None:
    ours = UNet2D(UNet2DConfig(**UNET)).eval()
    x = torch.randn(2, 1, 8, 8)
    n = torch.tensor([3.25, 7.5], dtype=torch.float64)
    together = ours(x, n)
    for row in range(2):
        alone = ours(x[row : row + 1], n[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"down_block_types": ("DownBlock2D",)}, "same length"),
        ({"sample_size": 9}, "multiple of 2"),
        ({"norm_num_groups": 3}, "norm_num_groups is 3"),
        ({"attention_head_dim": 5}, "attention_head_dim is 5"),
        ({"downsample_padding": 2}, "downsample_padding"),
        ({"layers_per_block": 0}, "layers_per_block"),
    ],
)
def test_networks_that_do_not_fit_together_are_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        UNet2DConfig(**(UNET | options))

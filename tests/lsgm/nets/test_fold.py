"""A folded network computes what it did, with less."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsgm.generative import Pixels
from lsgm.nets.config import NVAEConfig
from lsgm.nets.folding import fold
from lsgm.nets.layers import BatchNorm, WeightNormConv2d
from lsgm.vae.cells import ResidualCell
from lsgm.vae.hierarchical import HierarchicalVAE


def used(net: nn.Module) -> Any:
    """Return the net in float64 and eval mode, all its numbers of no special value."""
    torch.manual_seed(0)
    net.double()
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2.0)
        elif tensor.is_floating_point() and not name.endswith("mask"):
            nn.init.normal_(tensor)
    return net.eval()


def kinds(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(part, kind) for part in net.modules())


def close(a: Tensor, b: Tensor) -> None:
    # Float64 products in another order: a few hundred roundings of 1e-16.
    torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12 * float(b.detach().abs().max()))


@pytest.mark.parametrize("resampling", ["keep", "down", "up"])
@pytest.mark.parametrize("branch", ["plain", "bottleneck3", "bottleneck6"])
def test_a_cell_computes_the_same(branch: Any, resampling: Any) -> None:
    net = used(ResidualCell(branch, 8, 8 if resampling == "keep" else 16, resampling, squeeze_excite=True))
    x = torch.randn(2, 8, 6, 6, dtype=torch.double)
    before = net(x)
    parameters = sum(p.numel() for p in net.parameters())
    assert fold(net) > 0
    close(net(x), before)
    assert kinds(net, WeightNormConv2d) == 0
    # Every BatchNorm of a bottleneck stands next to a convolution; a plain cell's are followed by a swish.
    assert kinds(net, BatchNorm) == (2 if branch == "plain" else 0)
    assert sum(p.numel() for p in net.parameters()) < parameters
    assert not any(p.requires_grad for p in net.parameters() if p.dim() == 4)


@pytest.mark.parametrize("cells", ["res_bnswish", "res_mbconv"])
def test_a_whole_hierarchical_vae_computes_the_same(cells: Any) -> None:
    sizes = {"width": 4, "multipliers": (1, 2, 2), "scales": 2, "latents": 3, "flows": 1}
    config = NVAEConfig(**sizes, cells=cells, input_skip=True)  # type: ignore[arg-type]
    torch.manual_seed(0)
    net = HierarchicalVAE(config, Pixels(3, 16, 16, "discrete")).double().eval()
    for part in net.modules():
        if isinstance(part, BatchNorm):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
    levels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)

    def all_of_it() -> list[Tensor]:
        torch.manual_seed(1)
        draws = net.encode(levels, lambda *shape: torch.randn(2, *shape))
        z = tuple(draw.z for draw in draws)
        return [*z, *(draw.log_q for draw in draws), net.decoder_parameters(z)]

    with torch.no_grad():
        before = all_of_it()
        assert fold(net) > 0
        for a, b in zip(all_of_it(), before, strict=True):
            close(a, b)
    assert kinds(net, WeightNormConv2d) == 0


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_grouped_and_biased_convolutions_take_in_the_norms_on_both_sides(groups: int) -> None:
    net = used(nn.Sequential(BatchNorm(4), nn.Conv2d(4, 8, 3, groups=groups), BatchNorm(8)))
    x = torch.randn(2, 4, 6, 6, dtype=torch.double)
    before = net(x)
    assert fold(net) == 2
    close(net(x), before)
    assert [type(layer) for layer in net] == [nn.Identity, nn.Conv2d, nn.Identity]


def test_a_norm_before_padding_stays() -> None:
    """Padding puts zeros where the norm's shift would have stood."""
    net = used(nn.Sequential(BatchNorm(4), nn.Conv2d(4, 8, 3, padding=1)))
    x = torch.randn(2, 4, 6, 6, dtype=torch.double)
    before = net(x)
    assert fold(net) == 0
    assert torch.equal(net(x), before)


def test_a_norm_between_two_convolutions_goes_once() -> None:
    net = used(nn.Sequential(nn.Conv2d(4, 6, 1), BatchNorm(6), nn.Conv2d(6, 4, 1), nn.SiLU(), BatchNorm(4)))
    x = torch.randn(2, 4, 6, 6, dtype=torch.double)
    before = net(x)
    assert fold(net) == 1
    close(net(x), before)


def test_masks_and_strides_stay_in_force() -> None:
    mask = torch.ones(6, 4, 3, 3).tril()
    net = used(nn.Sequential(WeightNormConv2d(4, 6, 3, stride=2, padding=1, mask=mask), BatchNorm(6)))
    x = torch.randn(2, 4, 7, 7, dtype=torch.double)
    before = net(x)
    assert fold(net) == 2
    close(net(x), before)
    assert torch.equal(net[0].weight == 0, (mask == 0).expand(6, 4, 3, 3))


def test_a_module_in_training_is_refused() -> None:
    with pytest.raises(AssertionError, match="eval mode"):
        fold(nn.Sequential(nn.Conv2d(4, 6, 1), BatchNorm(6)))

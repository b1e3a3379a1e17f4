"""The hierarchical VAE: what it draws has the density it says, group by group."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Normal

from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.interop.nvlabs.tables import vae_table
from lsgm.nets.config import NVAEConfig
from lsgm.nets.layers import BatchNorm
from lsgm.vae.base import Noise, Shape, normal_log_prob, repeated, sum_per_sample
from lsgm.vae.hierarchical import HierarchicalVAE

ONE = NVAEConfig(width=4, multipliers=(1, 2), groups=2, latents=3, encoder_cells=1, decoder_cells=1)
"""Two groups at half the side."""
DEEP = replace(ONE, multipliers=(1, 1, 2), scales=2, flows=1, input_skip=True)
"""Two groups at a quarter of the side and two at half, with shifts."""
BINARY = Pixels(1, 12, 12, "binary")
COLOUR = Pixels(3, 16, 16, "discrete")


def vae(config: NVAEConfig = ONE, pixels: Pixels = COLOUR, pad: int = 0) -> HierarchicalVAE:
    """A model in float64 whose statistics are not those of its input."""
    torch.manual_seed(0)
    return HierarchicalVAE(config, pixels, pad=pad).double().eval()


def levels_of(pixels: Pixels, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, pixels.levels, (batch, *pixels.shape), generator=generator, dtype=torch.uint8)


def noises(shapes: tuple[Shape, ...], batch: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.randn(batch, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def in_turn(tensors: list[Tensor]) -> Noise:
    """A noise that gives these tensors, each to the call that asks for its shape."""
    left: Iterator[Tensor] = iter(tensors)

    def noise(*shape: int) -> Tensor:
        tensor = next(left)
        assert tensor.shape[1:] == shape
        return tensor

    return noise


def test_groups_stand_from_the_lowest_resolution_up() -> None:
    groups = vae(DEEP).groups
    assert groups.shapes == ((3, 4, 4), (3, 4, 4), (3, 8, 8), (3, 8, 8))
    assert groups.top == 2
    assert groups.z_0 == (6, 4, 4)
    assert groups.lower == ((3, 8, 8), (3, 8, 8))


@pytest.mark.parametrize("config", [ONE, DEEP])
def test_one_noise_per_group_in_the_order_of_the_draws(config: NVAEConfig) -> None:
    model = vae(config)
    shapes = model.groups.shapes
    draws = model.encode(levels_of(COLOUR), in_turn(noises(shapes)))
    assert [tuple(draw.z.shape) for draw in draws] == [(3, *shape) for shape in shapes]
    assert [draw.log_q.shape for draw in draws] == [draw.z.shape for draw in draws]


def test_log_q_is_the_normals_density_at_the_draw() -> None:
    """Without shifts, group by group: mean and sigma read off the draws themselves."""
    model, levels = vae(), levels_of(COLOUR)
    n = noises(model.groups.shapes)
    draws = model.encode(levels, in_turn(n))
    for group, draw in enumerate(draws):
        centred = [*n[:group], torch.zeros_like(n[group]), *n[group + 1 :]]
        mean = model.encode(levels, in_turn(centred))[group].z
        sigma = (draw.z - mean) / n[group]
        torch.testing.assert_close(draw.log_q, Normal(mean, sigma).log_prob(draw.z))


def test_several_draws_of_an_image_share_the_bottom_up_half() -> None:
    model, levels, batches = vae(DEEP), levels_of(COLOUR), list[int]()
    n = noises(model.groups.shapes, batch=6)
    apart = model.posterior(repeated(levels, 2), in_turn(n))
    decoded = model.decoder_parameters(apart.z)
    model.encoder.register_forward_pre_hook(lambda _, arguments: batches.append(len(arguments[0])))
    shared = model.posterior(levels, in_turn(n), 2)
    assert batches == [3]
    # Kernels may sum a batch in another order: roundings of float64.
    for a, b in zip((*shared.z, *shared.log_q), (*apart.z, *apart.log_q), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(model.decoder_parameters(shared.z), decoded, rtol=1e-10, atol=1e-10)


def test_shifts_leave_log_q_where_it_was() -> None:
    """log |det| = 0: the density of the shifted draw is the Gaussian's before it."""
    model, levels = vae(DEEP), levels_of(COLOUR)
    draw = model.encode(levels, in_turn(noises(model.groups.shapes)))[0]
    model.encoder.flows[0] = torch.nn.Identity()
    unshifted = model.encode(levels, in_turn(noises(model.groups.shapes)))[0]
    assert torch.equal(draw.log_q, unshifted.log_q)
    assert not torch.equal(draw.z, unshifted.z)


def test_later_groups_depend_on_earlier_ones_and_not_the_reverse() -> None:
    model, levels = vae(DEEP), levels_of(COLOUR)
    n = noises(model.groups.shapes)
    before = model.encode(levels, in_turn(n))
    n[1] = n[1] + 1
    after = model.encode(levels, in_turn(n))
    assert torch.equal(before[0].z, after[0].z)
    assert all(not torch.equal(a.z, b.z) for a, b in zip(before[1:], after[1:], strict=True))


@pytest.mark.parametrize("bound", [5.0, 2.0])
def test_means_and_scales_are_bounded(bound: float) -> None:
    model = vae(replace(ONE, log_sigma_bound=bound))
    with torch.no_grad():
        for sampler in model.encoder.samplers:
            sampler.log_weight_norm.fill_(5.0)  # type: ignore[union-attr, operator]
    levels, shapes = levels_of(COLOUR), model.groups.shapes
    still = [torch.zeros(3, *shape, dtype=torch.float64) for shape in shapes]
    for mean, log_q in model.encode(levels, in_turn(still)):
        log_sigma = -log_q - 0.5 * math.log(2 * math.pi)
        assert 4.9 < float(mean.detach().abs().max()) <= 5.0
        assert 0.98 * bound < float(log_sigma.detach().abs().max()) <= bound


@pytest.mark.parametrize("config", [ONE, replace(DEEP, cells="res_bnswish")])
def test_one_samples_noise_and_pixels_touch_no_other_sample(config: NVAEConfig) -> None:
    model = vae(config)
    shapes, levels = model.groups.shapes, levels_of(COLOUR)
    n, other = noises(shapes), [tensor.clone() for tensor in noises(shapes)]
    z, log_q = model.posterior(levels, in_turn(n))
    out = model.decoder_parameters(z)
    changed = levels.clone()
    changed[0] = 255 - changed[0]
    for tensor in other:
        tensor[0] += 1
    z_other, log_q_other = model.posterior(changed, in_turn(other))
    out_other = model.decoder_parameters(z_other)
    for a, b in zip((*z, *log_q, out), (*z_other, *log_q_other, out_other), strict=True):
        # Kernels may sum a batch in another order: roundings of float64.
        torch.testing.assert_close(a[1:], b[1:], rtol=1e-12, atol=1e-12)
        assert not torch.equal(a[0], b[0])


def test_posterior_is_the_draws_summed_per_sample() -> None:
    model, levels = vae(DEEP), levels_of(COLOUR)
    n = noises(model.groups.shapes)
    draws, (z, log_q) = model.encode(levels, in_turn(n)), model.posterior(levels, in_turn(n))
    for draw, z_l, log_q_l in zip(draws, z, log_q, strict=True):
        assert torch.equal(draw.z, z_l)
        assert torch.equal(sum_per_sample(draw.log_q), log_q_l)


def test_a_fresh_draw_decodes_to_what_its_numbers_decode_to() -> None:
    """Whether the decoder's state is at hand or computed anew from the latents."""
    model, levels = vae(DEEP), levels_of(COLOUR)
    z, _ = model.posterior(levels, in_turn(noises(model.groups.shapes)))
    at_hand, anew = model.decoder_parameters(z), model.decoder_parameters(z)
    torch.testing.assert_close(at_hand, anew, rtol=1e-12, atol=1e-12)
    assert at_hand.shape == (3, 100, 16, 16)


def test_in_training_a_batch_enters_the_running_statistics_once() -> None:
    for recompute in (False, True):
        model, levels = vae(replace(DEEP, recompute=recompute)).train(), levels_of(COLOUR)
        z, _ = model.posterior(levels, in_turn(noises(model.groups.shapes)))
        model.likelihood(z).log_prob(levels).sum().backward()
        counts = {int(m.num_batches_tracked) for m in model.modules() if isinstance(m, BatchNorm)}
        assert counts == {1}


def test_recomputed_activations_give_the_same_gradients() -> None:
    gradients: list[list[Tensor]] = []
    for recompute in (False, True):
        model = vae(replace(DEEP, recompute=recompute)).train()
        loss(model, levels_of(COLOUR), in_turn(noises(model.groups.shapes))).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)


def test_padding_is_black_on_the_way_in_and_never_scored() -> None:
    model, levels = vae(ONE, BINARY, pad=2), levels_of(BINARY)
    unpadded = vae(ONE, Pixels(1, 16, 16, "binary"))
    framed = torch.zeros(3, 1, 16, 16, dtype=torch.uint8)
    framed[:, :, 2:14, 2:14] = levels
    n = noises(model.groups.shapes)
    z, _ = model.posterior(levels, in_turn(n))
    z_framed, _ = unpadded.posterior(framed, in_turn(n))
    assert all(torch.equal(a, b) for a, b in zip(z, z_framed, strict=True))
    inner = unpadded.likelihood(z_framed).log_prob(framed)[:, :, 2:14, 2:14]
    torch.testing.assert_close(model.likelihood(z).log_prob(levels), inner)


def test_a_side_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 halvings of the VAE cannot divide an image of 14 x 14"):
        vae(DEEP, Pixels(1, 14, 14, "binary"))
    assert vae(DEEP, Pixels(1, 14, 14, "binary"), pad=1).groups.z_0 == (6, 4, 4)


def loss(model: HierarchicalVAE, levels: Tensor, noise: Noise) -> Tensor:
    """-ELBO with N(0, I) priors, its mean over the batch."""
    z, log_q = model.posterior(levels, noise)
    reconstruction = -sum_per_sample(model.likelihood(z).log_prob(levels))
    log_p = torch.stack([sum_per_sample(normal_log_prob(z_l)) for z_l in z]).sum(dim=0)
    return (reconstruction + torch.stack(log_q).sum(dim=0) - log_p).mean()


@pytest.mark.parametrize(("cells", "dtype"), [("res_bnswish", torch.bfloat16), ("res_mbconv", None)])
def test_training_from_scratch_starts_well(cells: Any, dtype: torch.dtype | None) -> None:
    """A few steps lower the bound, all gradients are finite, latents stay float32 under autocast."""
    model = vae(replace(DEEP, cells=cells)).float().train()
    adamax = torch.optim.Adamax(model.parameters(), lr=1e-2, eps=1e-3)
    levels = levels_of(COLOUR, 2)[:, :, :1, :1].expand(2, 3, 16, 16).contiguous()
    values = []
    for _ in range(8):
        with torch.autocast("cpu", dtype=dtype) if dtype else nullcontext():
            value = loss(model, levels, lambda *shape: torch.randn(2, *shape))
            z, log_q = model.posterior(levels, lambda *shape: torch.zeros(2, *shape))
        assert {t.dtype for t in (*z, *log_q)} == {torch.float32}
        adamax.zero_grad()
        value.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
        adamax.step()
        values.append(float(value.detach()))
    # The first value is some 4800 nats, most of them log 256 per sub-pixel; one draw varies by tens of nats.
    assert values[-1] < values[0] - 100


def test_half_precision_barely_moves_the_latents() -> None:
    """bfloat16 keeps 8 bits; mean and sigma are rounded no further once they are bounded."""
    model, levels = vae(DEEP).float(), levels_of(COLOUR)
    n = [tensor.float() for tensor in noises(model.groups.shapes)]
    exact = model.encode(levels, in_turn(n))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model.encode(levels, in_turn(n))
    for a, b in zip(exact, rounded, strict=True):
        torch.testing.assert_close(a.z, b.z, rtol=0, atol=0.1)
        assert len(b.z.unique()) > 0.99 * b.z.numel(), "values on a coarse grid would repeat"


def test_a_model_with_a_kept_state_can_be_copied() -> None:
    model, levels = vae(), levels_of(COLOUR)
    model.posterior(levels, in_turn(noises(model.groups.shapes)))
    twin = copy.deepcopy(model)
    z = tuple(noises(model.groups.shapes))
    torch.testing.assert_close(twin.decoder_parameters(z), model.decoder_parameters(z))


@settings(deadline=None, max_examples=15)
@given(
    blocks=st.integers(1, 2),
    scales=st.integers(1, 2),
    groups=st.integers(1, 3),
    cells=st.tuples(*[st.integers(1, 2)] * 4),
    flows=st.integers(0, 2),
    decoder_width=st.sampled_from([None, 8]),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_any_configuration_encodes_decodes_and_has_a_table(
    blocks: int,
    scales: int,
    groups: int,
    cells: tuple[int, ...],
    flows: int,
    decoder_width: int | None,
    flags: tuple[bool, ...],
) -> None:
    pre, post, enc, dec = cells
    plain, gated, skip = flags
    config = NVAEConfig(
        width=4,
        decoder_width=decoder_width,
        multipliers=(1,) * blocks + (2,) * scales,
        blocks=blocks,
        pre_cells=pre,
        post_cells=post,
        scales=scales,
        groups=groups,
        latents=2,
        encoder_cells=enc,
        decoder_cells=dec,
        flows=flows,
        cells="res_bnswish" if plain else "res_mbconv",
        squeeze_excite=gated,
        input_skip=skip,
    )
    model, levels = vae(config, BINARY, pad=2), levels_of(BINARY)
    z, _ = model.posterior(levels, in_turn(noises(model.groups.shapes)))
    assert model.likelihood(z).log_prob(levels).shape == levels.shape
    assert sorted(vae_table(config).values()) == sorted(model.state_dict())

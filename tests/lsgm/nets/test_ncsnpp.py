"""NCSN++ against a slow copy of itself, in all its variants; its size; what recomputing leaves alone."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from oracles.ncsnpp import SlowNCSNpp
from torch import Tensor

from lsgm.errors import ConfigError
from lsgm.interop.nvlabs.tables import prior_table
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp

TINY = ScoreNetConfig(width=8, multipliers=(1, 2, 1), blocks=1, attention=(4, 8), embedding=8)
VARIANTS = {
    "plain": TINY,
    "wider-first-level": replace(TINY, multipliers=(2, 1), blocks=2),
    "one-level": replace(TINY, multipliers=(1,), attention=()),
    "fir": replace(TINY, fir=True),
    "fourier": replace(TINY, embedding_kind="fourier", embedding_scale=2.0),
    "output-skip": replace(TINY, progressive="output_skip"),
    "output-skip-one-level": replace(TINY, multipliers=(1,), progressive="output_skip"),
    "residual": replace(TINY, progressive="residual"),
    "input-skip": replace(TINY, progressive_input="input_skip"),
    "input-skip-cat": replace(TINY, progressive_input="input_skip", progressive_combine="cat"),
    "input-residual": replace(TINY, progressive_input="residual"),
    "fir-skips": replace(
        TINY, fir=True, progressive="output_skip", progressive_input="input_skip", progressive_combine="cat"
    ),
    "fir-residuals": replace(TINY, fir=True, progressive="residual", progressive_input="residual"),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_computes_and_differentiates_what_its_slow_copy_does(variant: str) -> None:
    """The two meet only in the numbered names: outputs agree, and gradients map by the table of weights."""
    config = VARIANTS[variant]
    torch.manual_seed(0)
    z, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0.1, 0.9], dtype=torch.float64)
    slow = SlowNCSNpp(config)
    expected = slow.forward(z, t)
    network = NCSNpp(config, channels=3, resolution=8).double()
    table = {name: row for name, row in prior_table(network).items() if name != "logit"}
    assert sorted(n for row in table.values() for n in row.names) == sorted(slow.weights)

    def ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {
            name.removeprefix("network."): row.assemble([theirs[n] for n in row.names])
            for name, row in table.items()
        }

    network.load_state_dict({name: value.detach() for name, value in ours(slow.weights).items()})
    out = network(z, t)
    # Two orders of summation of some hundred terms in float64, at values of order one to a hundred.
    torch.testing.assert_close(out, expected, rtol=1e-11, atol=1e-11)

    probe = torch.randn_like(out)
    names = list(slow.weights)
    gradients = torch.autograd.grad((probe * expected).sum(), [slow.weights[n] for n in names])
    mapped = ours(dict(zip(names, gradients, strict=True)))
    (probe * out).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} has no part in the output"
        torch.testing.assert_close(parameter.grad, mapped[name], rtol=1e-9, atol=1e-9)


PUBLISHED = {
    "cifar10": (375.56, 180, 16, ScoreNetConfig(512, (1, 1, 1), 8, fir=True)),
    "mnist": (63.77, 40, 8, ScoreNetConfig(256, (1, 1), 8)),
    "omniglot": (97.80, 60, 16, ScoreNetConfig(256, (1, 1, 1), 8)),
    "celeba-quantitative": (408.37, 160, 32, ScoreNetConfig(256, (1, 2, 2, 2), 8, fir=True)),
    "celeba-qualitative-2": (440.12, 200, 64, ScoreNetConfig(256, (1, 1, 2, 2, 2), 8, fir=True)),
    "celeba-qualitative-3": (680.83, 200, 64, ScoreNetConfig(320, (1, 1, 2, 2, 2), 8, fir=True)),
}


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_priors_have_the_published_size(model: str) -> None:
    """Millions of parameters, one mixing logit per channel included."""
    millions, channels, resolution, config = PUBLISHED[model]
    with torch.device("meta"):
        network = NCSNpp(config, channels=channels, resolution=resolution)
    assert round((sum(p.numel() for p in network.parameters()) + channels) / 1e6, 2) == millions


def test_stacked_layers_start_as_the_layers_that_they_are() -> None:
    """Uniform within sqrt(6 scale / (fan in + fan out)) of each, not of the stack."""
    torch.manual_seed(0)
    network = NCSNpp(replace(TINY, width=64), channels=3, resolution=8)
    attention = network.middle[0].get_submodule("attention")
    qkv = attention.get_parameter("qkv.weight").detach()
    bound = (6 * 0.1 / (64 + 64)) ** 0.5
    assert 0.98 * bound < float(qkv.abs().max()) <= bound
    times = network.shifts.weight.detach()[:64]
    bound = (6 / (32 + 64)) ** 0.5
    assert 0.98 * bound < float(times.abs().max()) <= bound


@pytest.mark.parametrize("variant", ["plain", "fir-residuals"])
def test_recomputing_changes_neither_output_nor_gradient_even_under_dropout(variant: str) -> None:
    config = replace(VARIANTS[variant], dropout=0.5)
    torch.manual_seed(0)
    kept = NCSNpp(config, channels=3, resolution=8).double()
    with torch.no_grad():
        for parameter in kept.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    thrifty = NCSNpp(replace(config, recompute=True), channels=3, resolution=8).double()
    thrifty.load_state_dict(kept.state_dict())
    z, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.rand(2)
    for network in (kept, thrifty):
        torch.manual_seed(1)
        network(z, t).square().sum().backward()
    for one, two in zip(kept.parameters(), thrifty.parameters(), strict=True):
        assert one.grad is not None
        assert two.grad is not None
        assert torch.equal(one.grad, two.grad)


def test_recomputing_can_be_compiled() -> None:
    """What is traced is what runs eagerly: the backend does no arithmetic of its own."""
    config = replace(TINY, multipliers=(1,), attention=(), recompute=True)
    eager = NCSNpp(config, channels=3, resolution=8).double()
    compiled = deepcopy(eager)
    compiled.compile(backend="aot_eager")
    z, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.rand(2)
    for network in (eager, compiled):
        network(z, t).square().sum().backward()
    for one, two in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-12, atol=1e-12)


def test_random_frequencies_are_drawn_once_and_saved() -> None:
    fourier = VARIANTS["fourier"]
    one, two = (NCSNpp(fourier, channels=3, resolution=8) for _ in range(2))
    assert not torch.equal(one.embed.frequencies, two.embed.frequencies)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one.embed.frequencies, two.embed.frequencies)
    assert "embed.frequencies" not in dict(one.named_parameters())


def test_times_are_embedded_in_full_precision_under_autocast() -> None:
    network = NCSNpp(TINY, channels=3, resolution=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.embed(torch.rand(2)).dtype == torch.float32


def test_a_pyramid_of_residuals_needs_a_second_level() -> None:
    with pytest.raises(ConfigError, match="no pyramid of outputs"):
        NCSNpp(replace(TINY, multipliers=(1,), progressive="residual"), channels=3, resolution=8)

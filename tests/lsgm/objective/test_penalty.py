"""The penalty is made of true singular values, and a resumed step is the step that would have come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsgm.nets.layers import Attention, BatchNorm, WeightNormConv2d
from lsgm.objective.kl import NormPenalty
from lsgm.recipes.recipe import NormPenaltyConfig

CONFIG = NormPenaltyConfig(spectral=0.3, gain=0.7)


def network() -> Any:
    """Convolutions plain, depthwise, weight-normalised and masked, two of a shape; dense; attention."""
    torch.manual_seed(0)
    mask = torch.ones(6, 6, 3, 3).triu()
    layers = [
        nn.Conv2d(4, 6, 3),
        WeightNormConv2d(6, 6, 3),
        WeightNormConv2d(6, 6, 3, mask=mask),
        nn.Conv2d(6, 6, 5, groups=6),
        nn.GroupNorm(2, 6),
        BatchNorm(6),
        BatchNorm(4),
        nn.Conv2d(4, 6, 3),
        nn.Linear(6, 9),
        Attention(8),
    ]
    net: Any = nn.Sequential(*layers).double()
    for norm in (4, 5, 6):
        nn.init.normal_(net[norm].weight)
    return net


def kernels(net: Any) -> list[Tensor]:
    """Return the kernels that the penalty is about, as matrices, in the order of their shapes."""
    found = [net[0].weight, net[7].weight, net[1].effective_weight(), net[2].effective_weight()]
    return [w.flatten(1) for w in [*found, net[3].weight]]


def steps(penalty: NormPenalty, count: int) -> Any:
    for _ in range(count):
        value = penalty(1.0, 1.0)
    return value.detach()


def test_the_estimates_become_the_largest_singular_values() -> None:
    net = network()
    penalty = NormPenalty(net, CONFIG)
    steps(penalty, 200)
    true = [torch.linalg.svdvals(w)[0] for w in kernels(net)]
    # The error falls as (s_2 / s_1)^(2 n) with n = 240 iterations, the largest ratio here being 0.95.
    torch.testing.assert_close(penalty.singular_values(), torch.stack(true), rtol=1e-7, atol=0)


def test_the_penalty_is_the_sum_that_it_says() -> None:
    net = network()
    penalty = NormPenalty(net, CONFIG)
    value = steps(penalty, 200)
    gains = sum(float(net[i].weight.detach().abs().max()) for i in (4, 5, 6)) + 1.0  # attention's is 1
    norms = sum(float(torch.linalg.matrix_norm(w.detach(), ord=2)) for w in kernels(net))
    assert float(value) == pytest.approx(0.3 * norms + 0.7 * gains, rel=1e-7)


def test_forty_iterations_at_first_use_and_one_per_step_after() -> None:
    """Of a kernel alone, against power iteration written out."""
    torch.manual_seed(1)
    net: Any = nn.Sequential(nn.Conv2d(3, 5, 3)).double()
    w = net[0].weight.detach().flatten(1)
    penalty = NormPenalty(net, NormPenaltyConfig(spectral=1.0))
    u = penalty.get_buffer("u0")[0].clone()
    for iterations in (40, 1, 1):
        for _ in range(iterations):
            v = nn.functional.normalize(w.T @ u, dim=0)
            u = nn.functional.normalize(w @ v, dim=0)
        assert float(steps(penalty, 1)) == pytest.approx(float(u @ w @ v), rel=1e-14)


def test_stacked_kernels_are_followed_as_they_would_be_alone() -> None:
    net = network()
    together = NormPenalty(net, NormPenaltyConfig(spectral=1.0))
    for index, layer in enumerate((net[0], net[7])):
        alone = NormPenalty(nn.Sequential(layer), NormPenaltyConfig(spectral=1.0))
        for name in ("u0", "v0"):
            alone.get_buffer(name).copy_(together.get_buffer(name)[index : index + 1])
        expected = [float(steps(alone, 1)) for _ in range(3)][-1]
        together_again = NormPenalty(net, NormPenaltyConfig(spectral=1.0))
        found = [together_again.singular_values() for _ in range(3)][-1]
        # The same products summed in another order, 43 times over.
        assert float(found[index].detach()) == pytest.approx(expected, rel=1e-12)


def test_the_gradient_is_u_v_transposed() -> None:
    net = network()
    penalty = NormPenalty(net, NormPenaltyConfig(spectral=1.0))
    penalty(1.0, 1.0).backward()
    u, v = penalty.get_buffer("u0"), penalty.get_buffer("v0")
    for index, conv in enumerate((net[0], net[7])):
        torch.testing.assert_close(conv.weight.grad.flatten(1), torch.outer(u[index], v[index]))
    # Of a weight-normalised kernel it goes on through the normalisation.
    found = net[1].weight.grad.clone()
    net.zero_grad()
    u, v = penalty.get_buffer("u1"), penalty.get_buffer("v1")
    (u[0] @ net[1].effective_weight().flatten(1) @ v[0]).backward()
    torch.testing.assert_close(found, net[1].weight.grad)
    assert net[8].weight.grad is None
    assert net[9].qkv.weight.grad is None


def test_a_backward_pass_may_come_after_the_next_step() -> None:
    penalty = NormPenalty(network(), CONFIG)
    first = penalty(1.0, 1.0)
    penalty(1.0, 1.0)
    first.backward()


def test_a_resumed_step_is_the_step_that_would_have_come() -> None:
    net = network()
    going, resumed = NormPenalty(net, CONFIG), NormPenalty(net, CONFIG)
    steps(going, 3)
    resumed.load_state_dict(going.state_dict())
    assert torch.equal(going(1.0, 1.0), resumed(1.0, 1.0))
    assert all(torch.equal(going.state_dict()[k], value) for k, value in resumed.state_dict().items())


def test_it_rests_in_eval_mode_and_holds_nothing_of_the_network() -> None:
    penalty = NormPenalty(network(), CONFIG)
    steps(penalty, 1)
    before = {key: value.clone() for key, value in penalty.state_dict().items()}
    assert torch.equal(penalty.eval()(1.0, 1.0), penalty(1.0, 1.0))
    assert all(torch.equal(before[key], value) for key, value in penalty.state_dict().items())
    assert list(penalty.parameters()) == []
    assert list(penalty.children()) == []


def test_the_coefficients_come_down_geometrically_as_k_rises() -> None:
    penalty = NormPenalty(network(), NormPenaltyConfig(spectral=0.3, gain=0.7, anneal_from=100.0))
    last = float(steps(penalty, 200))
    for k, factor in ((0.0, 100.0), (0.35, 10.0), (0.7, 1.0), (1.0, 1.0)):
        assert float(penalty(k, 0.7).detach()) == pytest.approx(factor * last, rel=1e-6)


def test_a_kernel_of_zeros_is_followed_once_it_is_none() -> None:
    net: Any = nn.Sequential(nn.Conv2d(2, 3, 1)).double()
    nn.init.zeros_(net[0].weight)
    penalty = NormPenalty(net, NormPenaltyConfig(spectral=1.0))
    assert float(steps(penalty, 1)) == 0.0
    nn.init.normal_(net[0].weight)
    true = float(torch.linalg.svdvals(net[0].weight.detach().flatten(1))[0])
    assert float(steps(penalty, 200)) == pytest.approx(true, rel=1e-9)


def test_without_coefficients_it_is_zero() -> None:
    penalty = NormPenalty(network(), NormPenaltyConfig())
    assert float(steps(penalty, 1)) == 0.0
    assert list(penalty.state_dict()) == ["warm"]


def test_autocast_does_not_reach_it() -> None:
    net = network().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = NormPenalty(net, CONFIG)(1.0, 1.0)
    assert torch.equal(inside, NormPenalty(net, CONFIG)(1.0, 1.0))

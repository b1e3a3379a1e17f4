"""The modes of joint training against the algorithms with two backward passes, written out."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from ladder import Ladder, double_prior
from torch import Tensor, nn

from lsgm.objective.bound import Objective, Times, diffuse
from lsgm.recipes.recipe import KLConfig, NormPenaltyConfig
from lsgm.rng import StepNoise
from lsgm.score import ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE
from lsgm.train.losses import JointLoss, NormalPriorLoss
from lsgm.train.optim import WeightAverage
from lsgm.vae.base import normal_log_prob, sum_per_sample

BATCH, K = 6, 0.7
LEVELS = (torch.arange(BATCH * 16) * 37 % 5 < 2).to(torch.uint8).reshape(BATCH, 1, 4, 4)


def networks(sde: SDE) -> tuple[Any, ScoreModel]:
    return Ladder().double(), double_prior(sde)


def objectives(
    sde: SDE, *, importance_sampling: bool = True, control: bool = False
) -> tuple[Objective, Objective]:
    """Return the prior's objective, reweighted, and the VAE's."""

    def make(weighting: str, importance: bool) -> Objective:
        return Objective.make(
            sde,
            weighting=weighting,
            importance_sampling=importance,
            time_eps=1e-2,
            control_variate=control,
        )

    return make("re", True), make("ll", importance_sampling)


def noise(step: int = 0) -> StepNoise:
    return StepNoise(3, step, global_batch=BATCH)


class Encoded:
    """One draw of all latents with every term of the bound but the cross entropy of z_0."""

    def __init__(self, vae: Ladder, draw: StepNoise) -> None:
        groups = vae.encode(LEVELS, draw.normal)
        self.z_0 = torch.cat([groups[0].z, groups[1].z], dim=1)
        likelihood = vae.likelihood(tuple(group.z for group in groups))
        self.reconstruction = -sum_per_sample(likelihood.log_prob(LEVELS))
        self.log_q = [sum_per_sample(group.log_q) for group in groups]
        self.lower = self.log_q[2] - sum_per_sample(normal_log_prob(groups[2].z))


def squares(score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
    return (eps - score.eps(diffuse(score.sde, z_0, times.t, eps).z_t, times.t)) ** 2


def vae_error(objective: Objective, score: ScoreModel, z_0: Tensor, times: Times, eps: Tensor) -> Tensor:
    """Return what the VAE's half estimates: the squares, less those of the Normal prior's prediction."""
    error = squares(score, z_0, times, eps)
    if not objective.control_variate:
        return error
    c = objective.sde.unit_eps_coef(times.t).reshape(-1, 1, 1, 1)
    return error - (eps - c * diffuse(objective.sde, z_0, times.t, eps).z_t) ** 2


def known(objective: Objective, z_0: Tensor) -> Tensor:
    """Return what the VAE's half knows, per latent: entropy and terminal KL, or Normal cross entropies."""
    sde, e = objective.sde, objective.time_eps
    if not objective.control_variate:
        return sde.entropy_const(e) + sde.terminal_kl(z_0)

    def cross_entropy(time: float, variance: Tensor | float) -> Tensor:
        t = torch.tensor(time, dtype=torch.float64)
        second = sde.mean(t) ** 2 * z_0**2 + sde.var(t)
        return 0.5 * (torch.log(2 * torch.pi * torch.as_tensor(variance)) + second / variance)

    marginal = [sde.marginal_var(torch.tensor(t, dtype=torch.float64)) for t in (e, 1.0)]
    prior = cross_entropy(1.0, torch.tensor(sde.prior_var, dtype=torch.float64))
    return cross_entropy(e, marginal[0]) + prior - cross_entropy(1.0, marginal[1])


def bound(
    encoded: Encoded, objective: Objective, times: Times, error: Tensor, weigh: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return the VAE's loss; ``weigh`` turns the KLs by groups [B, 3] into one."""
    rest = known(objective, encoded.z_0)
    halves = [slice(0, 2), slice(2, 4)]
    top = [
        log_q + times.w_q * sum_per_sample(error[:, half]) + sum_per_sample(rest[:, half])
        for log_q, half in zip(encoded.log_q, halves, strict=False)
    ]
    kl = torch.stack([*top, encoded.lower], dim=1)
    return (encoded.reconstruction + K * weigh(kl)).mean()


def total(kl: Tensor) -> Tensor:
    return kl.sum(dim=1)


def parameters(*modules: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for module in modules for p in module.parameters()]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        # The same products summed in another order, in float64.
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def stepped(loss: JointLoss, vae: Ladder, prior: ScoreModel) -> list[Tensor]:
    """Return the parameters after one backward pass and one step of either optimiser."""
    optimizers = [torch.optim.SGD(part.parameters(), lr=1e-3) for part in (vae, prior)]
    loss(LEVELS, noise(), 1.0).total.backward()
    for optimizer in optimizers:
        optimizer.step()
    return parameters(vae, prior)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE()], ids=repr)
@pytest.mark.parametrize("times", ["own", "disjoint"])
@pytest.mark.parametrize("importance_sampling", [True, False])
@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("control", [False, True])
def test_two_draws_of_t_take_the_steps_of_algorithm_2(
    sde: SDE, times: Literal["own", "disjoint"], importance_sampling: bool, averaged: bool, control: bool
) -> None:
    """VAE: own pass, backward, step; then the prior on the latents drawn before that step."""
    objective, vae_objective = objectives(sde, importance_sampling=importance_sampling, control=control)
    kl = KLConfig(K, K, 0.0)
    vae, prior = networks(sde)
    loss = JointLoss(vae, prior, objective, kl, times=times, vae_objective=vae_objective)
    if averaged:
        average = WeightAverage(loss, ("",), 0.9)
        average.update()
        with torch.no_grad():
            for parameter in loss.parameters():
                parameter.add_(0.1 * torch.ones_like(parameter))
        loss.attach(average)
    start = parameters(vae, prior)
    seen_by_vae = copy.deepcopy(prior)
    if averaged:
        with torch.no_grad():
            for parameter in seen_by_vae.parameters():
                parameter.sub_(0.1)
    ours = stepped(loss, vae, prior)

    with torch.no_grad():
        for parameter, value in zip([*vae.parameters(), *prior.parameters()], start, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    draw = noise()
    encoded = Encoded(vae, draw)
    eps_p = draw.normal(4, 2, 2)
    times_p = objective.draw(draw.stratified())
    times_q = vae_objective.draw(draw.stratified())
    eps_q = draw.normal(4, 2, 2) if times == "disjoint" else eps_p
    error = vae_error(vae_objective, seen_by_vae, encoded.z_0, times_q, eps_q)
    bound(encoded, vae_objective, times_q, error, total).backward()
    torch.optim.SGD(vae.parameters(), lr=1e-3).step()
    prior.zero_grad()
    error = squares(prior, encoded.z_0.detach(), times_p, eps_p)
    (times_p.w_p * sum_per_sample(error)).mean().backward()
    torch.optim.SGD(prior.parameters(), lr=1e-3).step()
    assert_same(ours, parameters(vae, prior))


@pytest.mark.parametrize("control", [False, True])
def test_balanced_groups_get_the_gradients_of_two_backward_passes_on_one_draw(control: bool) -> None:
    """NVAE's coefficients on the groups' KLs act on the VAE alone."""
    sde = VPSDE()
    objective, _ = objectives(sde, control=control)
    vae, prior = networks(sde)
    loss = JointLoss(vae, prior, objective, KLConfig(K, K, 0.0, balance=True))
    loss(LEVELS, noise(), 1.0).total.backward()
    ours = [p.grad.clone() for p in loss.parameters() if p.grad is not None]
    loss.zero_grad()

    def weigh(kl: Tensor) -> Tensor:
        """Two groups at 2 x 2, one at 4 x 4: shares 4^0 / 2 and 4^1 / 1, the least of which counts 1."""
        alpha = torch.tensor([1.0, 1.0, 8.0]).double()
        used = kl.detach().abs().mean(dim=0) + 0.01
        gamma = used / alpha * used.sum()
        return (gamma / gamma.mean() * kl).sum(dim=1)

    draw = noise()
    encoded = Encoded(vae, draw)
    eps = draw.normal(4, 2, 2)
    times = objective.draw(draw.stratified())
    error = vae_error(objective, prior, encoded.z_0, times, eps)
    bound(encoded, objective, times, error, weigh).backward(retain_graph=True)
    theirs = [p.grad.clone() for p in vae.parameters() if p.grad is not None]
    loss.zero_grad()
    error = squares(prior, encoded.z_0, times, eps)
    (times.w_p * sum_per_sample(error)).mean().backward()
    theirs += [p.grad.clone() for p in prior.parameters() if p.grad is not None]
    assert_same(ours, theirs)


def test_balancing_ends_where_k_reaches_1() -> None:
    sde = VPSDE()
    vae, prior = networks(sde)
    objective, _ = objectives(sde)
    plain, balanced = (
        JointLoss(vae, prior, objective, KLConfig(0.5, 1.0, 0.5, balance=balance))
        for balance in (False, True)
    )
    assert torch.equal(plain(LEVELS, noise(), 0.5).total, balanced(LEVELS, noise(), 0.5).total)
    assert not torch.equal(plain(LEVELS, noise(), 0.2).total, balanced(LEVELS, noise(), 0.2).total)


def test_every_mode_reports_the_same_bound() -> None:
    """Whatever estimates it, the expectation is one number."""
    kinds: tuple[Literal["shared", "own", "disjoint"], ...] = ("shared", "own", "disjoint")
    sde = VPSDE()
    vae, prior = networks(sde)
    vae.eval()
    objective, vae_objective = objectives(sde)
    with torch.no_grad():
        exact = JointLoss(vae, prior, vae_objective, KLConfig())
        reference = torch.stack([exact(LEVELS, noise(i), 1.0).terms["nelbo"] for i in range(200)])
        for times in kinds:
            loss = JointLoss(vae, prior, objective, KLConfig(), times=times, vae_objective=vae_objective)
            values = torch.stack([loss(LEVELS, noise(1000 + i), 1.0).terms["nelbo"] for i in range(200)])
            error = ((values.var() + reference.var()) / 200).sqrt()
            assert float((values.mean() - reference.mean()).abs()) < 4 * float(error)


@pytest.mark.parametrize("times", ["shared", "own"])
def test_the_groups_kl_sum_to_the_kl(times: Literal["shared", "own"]) -> None:
    sde = VPSDE()
    vae, prior = networks(sde)
    objective, vae_objective = objectives(sde)
    loss = JointLoss(vae, prior, objective, KLConfig(), times=times, vae_objective=vae_objective)
    terms = loss(LEVELS, noise(), 1.0).terms
    parts = sum(float(terms[f"kl/{index}"]) for index in range(3))
    assert parts == pytest.approx(float(terms["kl"]), rel=1e-12)
    assert 0 <= float(terms["active_channels"]) <= 4


def test_the_average_counts_from_its_first_update_on_and_takes_no_gradient() -> None:
    sde = VPSDE()
    vae, prior = networks(sde)
    objective, vae_objective = objectives(sde)
    kinds = {"times": "own", "vae_objective": vae_objective}
    loss = JointLoss(vae, prior, objective, KLConfig(), **kinds)  # type: ignore[arg-type]
    average = WeightAverage(loss, ("",), 0.9)
    before = loss(LEVELS, noise(), 1.0).terms["nelbo"]
    loss.attach(average)
    assert torch.equal(loss(LEVELS, noise(), 1.0).terms["nelbo"], before)
    average.update()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.1)
    losses = loss(LEVELS, noise(), 1.0)
    assert torch.equal(losses.terms["nelbo"], before)  # the weights as they were
    losses.total.backward()
    assert all(p.grad is None for p in average.averaged("prior").parameters())


def test_penalties_are_added_once_while_training_and_exist_only_where_asked() -> None:
    vae, prior = networks(VPSDE())
    objective, _ = objectives(VPSDE())
    plain = JointLoss(vae, prior, objective, KLConfig())
    assert not [name for name in plain.state_dict() if "penalty" in name]
    config = NormPenaltyConfig(spectral=0.5, gain=0.25)
    both = JointLoss(vae, prior, objective, KLConfig(), vae_penalty=config, prior_penalty=config)
    assert {name for name, _ in both.named_children()} == {"vae", "prior", "vae_penalty", "prior_penalty"}
    losses = both(LEVELS, noise(), 1.0)
    # The VAE of this test has no convolutions, and a batch norm in one dimension; the prior has two kernels.
    kernels = [
        module.weight.detach().flatten(1) for module in prior.modules() if isinstance(module, nn.Conv2d)
    ]
    singular = sum(float(torch.linalg.svdvals(kernel)[0]) for kernel in kernels)
    # 40 power iterations leave what the second singular value's share to the 80th power is.
    assert float(losses.terms["penalty"]) == pytest.approx(0.5 * singular, rel=1e-3)
    assert float(losses.total) == pytest.approx(
        float(plain(LEVELS, noise(), 1.0).total + losses.terms["penalty"]), rel=1e-12
    )
    assert "penalty" not in both.eval()(LEVELS, noise(), 1.0).terms


def test_stage_1_is_penalised_too() -> None:
    vae, _ = networks(VPSDE())
    vae.extra = nn.Conv2d(1, 1, 1).double()
    loss = NormalPriorLoss(vae, KLConfig(), vae_penalty=NormPenaltyConfig(spectral=2.0))
    expected = 2.0 * float(vae.extra.weight.detach().abs())
    assert float(loss(LEVELS, noise(), 1.0).terms["penalty"]) == pytest.approx(expected, rel=1e-12)

"""The benchmark of control variates: worlds of known variance, and draws that are the objective's own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import bars, recipe
from torch import Tensor, nn

from lsgm.bench.options import VarianceBench
from lsgm.bench.variance import (
    CHECKPOINTS,
    PLAIN,
    STRATA,
    VarianceProblem,
    fitted_laws,
    measure,
    page,
    paired_draws,
    within_images,
)
from lsgm.cli import main
from lsgm.data import ImageSet
from lsgm.errors import ConfigError, DataError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.objective.bound import Objective
from lsgm.rng import SeededNoise
from lsgm.runs.load import OpenedCheckpoint, fresh_networks
from lsgm.score import SMALLEST_VARIANCE, NormalLatents, ScoreModel, per_sample, standard_normal
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

SHAPE = (2, 3, 5)


class Network(nn.Module):
    """Nothing, or what makes the prior one of Normal latents."""

    def __init__(self, sde: SDE, law: NormalLatents | None) -> None:
        super().__init__()
        self.sde, self.law = sde, law

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        if self.law is None:
            return torch.zeros_like(z_t)
        return -self.law.gap(self.sde, z_t, t) / per_sample(self.sde.mean(t), z_t)


class Prior(ScoreModel):
    """A velocity of latents whose control variate takes a law that the test says."""

    def __init__(self, sde: SDE, network: nn.Module, control: NormalLatents) -> None:
        super().__init__(sde, network, channels=SHAPE[0], parameterisation="velocity")
        self.control = control

    def normal_latents(self) -> NormalLatents:
        return self.control


class Wavy(nn.Module):
    """A network that no Normal law describes."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(2 * z_t + per_sample(t, z_t)) + 0.3 * z_t.mean(dim=(1, 2, 3), keepdim=True)


def latents(count: int, seed: int = 0) -> Tensor:
    """Latents whose two channels have the means 0.5 and -1 and the variances 0.25 and 2.25, float64."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    mean, std = torch.tensor([[0.5, -1.0], [0.5, 1.5]], dtype=torch.float64)[..., None, None]
    return mean + std * z


BY_CHANNEL = NormalLatents(
    *torch.tensor([[0.5, -1.0], [0.25, 2.25]], dtype=torch.float64)[..., None, None].unbind()
)


def objective(sde: SDE, weighting: str = "ll") -> Objective:
    return Objective.make(sde, weighting=weighting, importance_sampling=True, time_eps=0.01)


def draws(
    score: ScoreModel, laws: dict[str, NormalLatents], *, gradient: bool, count: int = 5
) -> dict[str, Tensor]:
    noise = SeededNoise(range(count), stream="test")
    return paired_draws(score, laws, objective(score.sde), latents(count), noise, groups=2, gradient=gradient)


@pytest.mark.parametrize("gradient", [False, True])
def test_against_the_law_that_a_network_predicts_there_is_no_noise(gradient: bool) -> None:
    """The silent network's is N(0, I), another's is by channel; against the other's law each is noisy."""
    sde = VPSDE()
    standard = standard_normal(sde)
    laws = {"N(0, I)": standard, "per channel": BY_CHANNEL}
    for law, exact in ((None, "N(0, I)"), (BY_CHANNEL, "per channel")):
        found = draws(Prior(sde, Network(sde, law), standard), laws, gradient=gradient)
        assert {form: x.shape[:3] for form, x in found.items()} == dict.fromkeys(
            [PLAIN, *laws], (2, STRATA, 5)
        )
        noise = {form: float(within_images(x).one.min()) for form, x in found.items()}
        assert noise.pop(exact) < 1e-18
        assert min(noise.values()) > 0.1


@pytest.mark.parametrize("sde", [VPSDE(), SubVPSDE(), VESDE(1e-3, 20.0), GeometricVPSDE()], ids=repr)
def test_every_draw_is_the_objectives_own(sde: SDE) -> None:
    """As training takes it, the network evaluated and differentiated for each form."""
    laws = fitted_laws(sde, latents(50, seed=1))
    score = Prior(sde, Wavy(), BY_CHANNEL)
    values, gradients = (draws(score, laws, gradient=gradient) for gradient in (False, True))
    noise, own = SeededNoise(range(5), stream="test"), objective(sde)
    z_0 = latents(5).requires_grad_()
    for group in range(2):
        offset = noise.uniform(dtype=torch.float64)
        for index in range(STRATA):
            times = own.draw((offset + index) / STRATA)
            eps = noise.normal(*SHAPE).double()
            for form, law in {PLAIN: None, **laws}.items():
                prior = Prior(sde, Wavy(), law or BY_CHANNEL)
                used = replace(own, control_variate=law is not None)
                ce = used.cross_entropy(prior, z_0, times, eps)
                whole = used.vae_loss(prior, z_0, times, eps).sum()
                close = {"rtol": 1e-8, "atol": 1e-8}
                torch.testing.assert_close(values[form][group, index], ce.value, **close)
                for each in (whole, ce.surrogate.sum()):
                    (gradient,) = torch.autograd.grad(each, z_0)
                    torch.testing.assert_close(gradients[form][group, index], gradient, **close)


def test_laws_have_the_moments_of_the_latents() -> None:
    z = latents(400)
    z[:, 0, 1, 2] = 0.7
    laws = fitted_laws(VPSDE(), z)
    assert list(laws) == ["N(0, I)", "per channel", "per dimension", "per frequency"]
    assert (float(laws["N(0, I)"].mean), float(laws["N(0, I)"].var)) == (0.0, 1.0)
    by_channel, by_dimension, by_frequency = list(laws.values())[1:]
    flat = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(by_channel.mean.flatten(), flat.mean(dim=1))
    torch.testing.assert_close(by_channel.var.flatten(), flat.var(dim=1, correction=0))
    torch.testing.assert_close(by_dimension.mean, z.mean(dim=0))
    variances = z.var(dim=0, correction=0).clamp(min=SMALLEST_VARIANCE)
    torch.testing.assert_close(by_dimension.var, variances)
    coefficients = by_frequency.rotate(z)
    # The running moments are float32.
    torch.testing.assert_close(by_frequency.mean, coefficients.mean(dim=0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(by_frequency.var, coefficients.var(dim=0, correction=0), rtol=1e-4, atol=1e-5)


def test_variances_of_stratified_draws_are_unbiased() -> None:
    """rho itself, whose mean is 1/2 and its variance 1/12; a mean of eight strata has 1/64 of that."""
    torch.manual_seed(0)
    count = 40_000
    offset = torch.rand(2, 1, count, dtype=torch.float64)
    rho = (offset + torch.arange(STRATA)[:, None]) / STRATA
    for dimensions in (rho, torch.stack([rho, 1 - rho], dim=-1)):
        found = within_images(dimensions)
        times = dimensions[0, 0, 0].numel()
        for values, wanted in zip(found, (1 / 12, 1 / 12 / 64, 1 / 4), strict=True):
            assert values.shape == (count,)
            # Six standard errors.
            tolerance = 6 * float(values.std()) / count**0.5
            assert abs(float(values.mean()) - times * wanted) < tolerance < 0.05 * times * wanted


def problem(network: nn.Module, sde: SDE) -> VarianceProblem:
    control = standard_normal(sde)
    laws = fitted_laws(sde, latents(5000, seed=1))
    return VarianceProblem("a world", "test", Prior(sde, network, control), latents(40), laws, 5000, 0.01)


def test_columns_are_ratios_to_the_first_row() -> None:
    rows = measure(problem(Wavy(), VPSDE()), draws=16, seed=3)
    values = [row for row in rows if row["what"] == "value"]
    assert [row["form"] for row in values] == [
        PLAIN,
        "N(0, I)",
        "per channel",
        "per dimension",
        "per frequency",
    ]
    for row in values:
        assert (row["images"], row["fit"], row["draws"], row["latents"]) == (40, 5000, 16, "2x3x5")
        for end in ("one", "eight"):
            ratio = values[0][f"std_{end}"] / row[f"std_{end}"]
            assert row[f"fewer_{end}"] == pytest.approx(ratio**2)
            assert 0 < row[f"error_{end}"] < 0.5
        assert row["std_eight"] < row["std_one"]
    for weighting in ("ll", "un", "re"):
        own = [row for row in rows if row.get("weighting") == weighting]
        assert [row["form"] for row in own] == [row["form"] for row in values]
        assert len({row["squared_mean"] for row in own}) == 1
        for row in own:
            assert row["importance_sampling"]
            assert row["variance"] == pytest.approx(row["std"] ** 2)
            assert row["fewer"] == pytest.approx(own[0]["variance"] / row["variance"])


def test_one_expected_gradient_under_every_weighting_and_form() -> None:
    """Where the network says what a law says, it is known: that of the law's cross entropy at e."""
    sde = VPSDE()
    world = problem(Network(sde, BY_CHANNEL), sde)
    world = replace(world, laws={"per channel": BY_CHANNEL})
    z_0 = world.z_0.clone().requires_grad_()
    start, end = (torch.full((len(z_0),), t, dtype=torch.float64) for t in (0.01, 1.0))
    ends = BY_CHANNEL.cross_entropy(sde, z_0, start) - BY_CHANNEL.cross_entropy(sde, z_0, end)
    ends = ends.sum() + standard_normal(sde).cross_entropy(sde, z_0, end).sum()
    (gradient,) = torch.autograd.grad(ends, z_0)
    wanted = float(gradient.square().flatten(1).sum(dim=1).mean())
    rows = [row for row in measure(world, draws=16, seed=0) if row["what"] == "gradient"]
    assert [row["squared_mean"] for row in rows] == [pytest.approx(wanted, rel=1e-6)] * 6


def test_times_that_cannot_be_importance_sampled_are_uniform_and_said_so() -> None:
    rows = measure(replace(problem(Wavy(), GeometricVPSDE()), laws={}), draws=16, seed=0)
    ways = {row["weighting"]: row["importance_sampling"] for row in rows if row["what"] == "gradient"}
    assert ways == {"ll": True, "un": False, "re": True}
    printed = page([{**row, "path": "x"} for row in rows], about="here")
    assert "| checkpoint | compared with | ll | un, uniform times | re |" in printed


def test_a_variance_of_nothing_has_no_ratio() -> None:
    rows = measure(replace(problem(Wavy(), VPSDE()), laws={}), draws=16, seed=0)
    nothing = {"path": "x", "variance": 0.0, "fewer": None, "error": None, "fewer_one": None}
    assert "| 0 (–) |" in page([{**row, **nothing} for row in rows], about="here")


QUICK = ("--images", "3", "--draws", "16", "--fit", "20", "--device", "cpu")


@pytest.fixture
def at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny LSGM whose last layers, zero when fresh, have been moved, and its dataset."""
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    settings, pixels = recipe(), Pixels(1, 8, 8, "binary")
    networks = fresh_networks(settings, pixels).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in networks.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))

    def opened(path: str, weights: str) -> OpenedCheckpoint:
        return OpenedCheckpoint(Path(path), {"name": "tiny"}, settings, pixels, networks)

    monkeypatch.setattr("lsgm.bench.variance.open_checkpoint", opened)
    monkeypatch.setattr("lsgm.bench.variance.load", lambda name, **options: bars())


def bench(*argv: str) -> int:
    return main(["bench", "variance", *argv, *QUICK])


@pytest.mark.usefixtures("at_hand")
def test_a_checkpoint_has_its_rows_and_its_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("run", "other", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * (5 + 3 * 5)
    first, second = ([row for row in rows if row["path"] == path] for path in ("run", "other"))
    # The same model twice: every number comes from the seed.
    assert [{**row, "path": "other"} for row in first] == second
    assert {(row["bench"], row["split"], row["fit"], row["seed"]) for row in rows} == {
        ("variance", "test", 20, 0)
    }
    printed = page(rows, about="here")
    assert "tiny: 3 test images of 2x4x4 latents, laws fitted to those of 20 training images" in printed
    assert printed.count("| tiny | as before |") == 4
    assert printed.count("| tiny | squared mean |") == 2


def test_another_seed_is_other_noise() -> None:
    z_0, sde = latents(2), VPSDE()
    score = Prior(sde, Wavy(), BY_CHANNEL)
    worlds = [VarianceProblem("a world", "test", score, z_0, {}, 2, 0.01)] * 2
    found = [measure(world, draws=16, seed=seed)[0]["std_one"] for seed, world in enumerate(worlds)]
    assert found[0] != found[1]


@pytest.mark.usefixtures("at_hand")
def test_images_are_the_same_whatever_the_others() -> None:
    """Fewer images are the first of more: rows of noise belong to images."""
    from lsgm.bench.variance import lsgm_problem

    few, many = (
        lsgm_problem("run", images=count, fit=20, seed=0, device=torch.device("cpu")) for count in (2, 5)
    )
    torch.testing.assert_close(many.z_0[:2], few.z_0, rtol=1e-5, atol=1e-6)
    assert len(lsgm_problem("run", images=None, fit=20, seed=0, device=torch.device("cpu")).z_0) == 32


@pytest.mark.usefixtures("at_hand")
def test_what_is_not_at_hand_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(CHECKPOINTS[1]).mkdir(parents=True)
    assert bench() == 0
    captured = capsys.readouterr()
    missing = [path for path in CHECKPOINTS if path != CHECKPOINTS[1]]
    assert captured.err.splitlines() == [f"lsgm: {path} is skipped: it is not here" for path in missing]
    assert captured.out.startswith("# Noise of the cross entropy within an image")
    assert "| tiny | as before |" in captured.out

    def absent(name: str, **options: object) -> ImageSet:
        raise DataError(f"{name} is not at hand")

    monkeypatch.setattr("lsgm.bench.variance.load", absent)
    assert bench("run") == 2
    captured = capsys.readouterr()
    assert "lsgm: run is skipped: glyphs is not at hand" in captured.err
    assert "nothing to measure" in captured.err


def test_a_model_without_a_latent_prior_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, pixels = recipe_from({"kind": "vae"}, "here"), Pixels(1, 8, 8, "binary")
    networks = fresh_networks(settings, pixels)
    monkeypatch.setattr(
        "lsgm.bench.variance.open_checkpoint",
        lambda path, weights: OpenedCheckpoint(Path(path), {}, settings, pixels, networks),
    )
    assert bench("runs/vae") == 2
    assert "runs/vae has no score prior of latents" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"images": 1}, "images is 1"),
        ({"draws": 8}, "draws is 8"),
        ({"draws": 20}, "multiple of 8"),
        ({"fit": 1}, "fit is 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        VarianceBench(**options)

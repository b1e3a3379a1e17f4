"""What docs/corrections.md says is done otherwise than in the authors' code, where no other file tests it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from tiny import bars, recipe
from torch import Tensor, nn

from lsgm.config import OptimConfig
from lsgm.data import ImageSet
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.nets.config import NVAEConfig, ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.objective.bound import Objective
from lsgm.objective.kl import NormPenalty
from lsgm.recipes import find_recipes, load_recipe
from lsgm.recipes.recipe import NormPenaltyConfig
from lsgm.runs.checkpoint import find_checkpoint, read_weights
from lsgm.sde import VPSDE
from lsgm.train.loop import train_recipe
from lsgm.train.optim import ParamGroup, build_optimizer
from lsgm.vae.hierarchical import HierarchicalVAE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of the tiny LSGM whose test split raises when it is touched."""

    class Untouchable(dict[str, Tensor]):
        def __getitem__(self, name: str) -> Tensor:
            assert name != "test", "training looked at the test split"
            return super().__getitem__(name)

    images = bars()
    guarded = ImageSet("bars", "1", images.sha256, "binary", Untouchable(images.splits))
    out = tmp_path_factory.mktemp("corrections") / "run"
    train_recipe(recipe(), out, images=guarded)
    return out


def test_training_never_touches_the_test_split(run: Path) -> None:
    assert '"val' in (run / "metrics.jsonl").read_text()


def test_the_average_covers_the_vae_too(run: Path) -> None:
    checkpoint = find_checkpoint(run)
    raw, ema = (read_weights(checkpoint, kind) for kind in ("raw", "ema"))
    for part in ("vae.encoder", "vae.decoder", "prior.network"):
        names = [name for name in raw if name.startswith(part) and raw[name].is_floating_point()]
        assert any(not torch.equal(raw[name], ema[name]) for name in names), part


def stepped(name: Any, weight: float, steps: int) -> float:
    """A weight after steps without gradient."""
    parameter = nn.Parameter(torch.tensor([weight], dtype=torch.float64))
    config = OptimConfig(name=name, lr=0.1, eps=1e-3, weight_decay=0.2)
    optimizer = build_optimizer(ParamGroup("g", [parameter], config))
    for _ in range(steps):
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
    return float(parameter.item())


def test_a_weight_without_gradient_tells_the_two_decays_apart() -> None:
    """Decoupled, it shrinks by 1 - lr decay a step; as L2, by about lr whatever the decay's size."""
    assert stepped("adamw", 2.0, 3) == pytest.approx(2.0 * (1 - 0.1 * 0.2) ** 3, rel=1e-12)
    assert stepped("adam", 2.0, 1) == pytest.approx(2.0 - 0.1 * 0.4 / (0.4 + 1e-3), rel=1e-9)


PUBLISHED = [
    name
    for name in find_recipes()
    if load_recipe(name)["kind"] == "lsgm"
    and load_recipe(name).get("vae", {}).get("kind") == "nvae"
    and not name.endswith(("-tiny", "-small", "-frozen"))
]


def test_published_recipes_name_the_decoupled_decay_for_stage_2() -> None:
    recipes = {name: recipe_from(load_recipe(name), name) for name in PUBLISHED}
    assert recipes
    for name, found in recipes.items():
        assert found.stage2.prior.name == "adamw", name
        assert found.stage2.vae.name == "adamw" or not found.stage2.train_vae, name


def test_latents_keep_float32_under_autocast() -> None:
    torch.manual_seed(0)
    config = NVAEConfig(
        width=4, pre_cells=1, post_cells=1, latents=3, encoder_cells=1, decoder_cells=1, flows=1
    )
    vae = HierarchicalVAE(config, Pixels(1, 16, 16, "binary")).eval()
    levels = torch.randint(0, 2, (2, 1, 16, 16), dtype=torch.uint8)
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        draws = vae.encode(levels, lambda *shape: torch.randn(2, *shape))
        log_prob = vae.likelihood(tuple(draw.z for draw in draws)).log_prob(levels)
    for found in [log_prob, *(tensor for draw in draws for tensor in draw)]:
        assert found.dtype == torch.float32
        # A value that had been rounded to bfloat16 on its way would survive the rounding.
        assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize("time_eps", [1e-2, 1e-1, 1e-5])
def test_every_objective_has_the_constants_of_its_own_cut_off(time_eps: float) -> None:
    """Of several objectives in one process, each draws from (1 - var) / Z with the Z of its own interval."""
    sde, rho = VPSDE(), torch.linspace(0, 1, 101, dtype=torch.float64)
    _, objective, _ = [
        Objective.make(sde, weighting="un", importance_sampling=True, time_eps=e)
        for e in (0.3, time_eps, 0.5)
    ]
    times = objective.draw(rho)
    assert float(times.t.min()) == pytest.approx(time_eps)
    normaliser, _ = quad(lambda t: float(sde.one_minus_var(torch.tensor(t))), time_eps, 1.0)
    density = objective.proposal.pdf(times.t) / sde.one_minus_var(times.t)
    torch.testing.assert_close(density, torch.full_like(density, 1 / normaliser), rtol=1e-6, atol=0)
    weight = 0.5 * normaliser / sde.one_minus_var(times.t)
    torch.testing.assert_close(times.w_p, weight, rtol=1e-6, atol=0)


def test_gains_and_kernels_are_penalised_apart() -> None:
    torch.manual_seed(0)
    network = NCSNpp(ScoreNetConfig(width=8, blocks=1, embedding=8), channels=4, resolution=4)

    def penalties() -> tuple[float, float]:
        spectral, gain = NormPenaltyConfig(spectral=1.0), NormPenaltyConfig(gain=1.0)
        torch.manual_seed(1)
        return tuple(float(NormPenalty(network, config)(1.0, 1.0).detach()) for config in (spectral, gain))

    kernels, gains = penalties()
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.weight.mul_(3)
    assert penalties() == pytest.approx((kernels, 3 * gains), rel=1e-6)

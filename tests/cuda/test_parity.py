"""Every piece gives on a device what it gives on the CPU in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from parity import SINGLE, Carried, compare, in_both_dtypes, levels, nvae, tiny_lsgm
from tiny import recipe
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig, SDEConfig
from lsgm.devices import round_to_tf32
from lsgm.model.diffusion import measure_lsgm
from lsgm.model.lsgm import VAECoder
from lsgm.objective.bound import Objective
from lsgm.rng import SeededNoise
from lsgm.sampling import draw, sampler_names
from lsgm.sde import make_sde
from lsgm_eval.bench.fid_ways import random_state
from lsgm_eval.features.glyphs import GlyphExtractor
from lsgm_eval.features.published import FidelityInception
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.metrics.moments import Moments


@pytest.mark.parametrize("kind", ["vp", "subvp", "ve", "geometric"])
def test_tables_of_an_sde(kind: str, device: torch.device) -> None:
    """The library functions of two devices differ by an ulp or two, 1 - exp(-x) near 0 by 1e-16 / x."""
    sde = make_sde(SDEConfig(kind=kind))
    t = torch.linspace(1e-5, 1.0, 200, dtype=torch.float64)
    for name in ("f", "g2", "mean", "var", "dvar", "sigma", "marginal_var", "unit_eps_coef"):
        table = getattr(sde, name)
        torch.testing.assert_close(table(t.to(device)).cpu(), table(t), rtol=1e-9, atol=1e-14, msg=name)


@in_both_dtypes
def test_a_vae_encodes_and_decodes(device: torch.device, dtype: torch.dtype, tolerance: float) -> None:
    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        seeded = SeededNoise(range(8), device=device)
        coder = VAECoder(networks.vae, 1e-5)
        encoded = coder.encode(levels().to(device), seeded.normal)
        decoded = coder.decode(encoded.z_0, seeded.normal).log_prob(levels().to(device))
        return {
            "z_0": encoded.z_0,
            "log_q": encoded.log_q,
            "reconstruction": encoded.reconstruction,
            "decoded": decoded,
        }

    compare(compute, tiny_lsgm(), device, dtype, tolerance)


@in_both_dtypes
def test_a_hierarchical_vae_encodes_and_decodes(
    device: torch.device, dtype: torch.dtype, tolerance: float
) -> None:
    def compute(vae: Any, device: torch.device) -> dict[str, Tensor]:
        seeded = SeededNoise(range(4), device=device)
        images = torch.nn.functional.pad(levels(4), (4, 4, 4, 4)).to(device)
        posterior = vae.posterior(images, seeded.normal)
        likelihood = vae.likelihood(posterior.z).log_prob(images)
        return {"z": posterior.z[-1], "log_q": torch.stack(posterior.log_q), "likelihood": likelihood}

    compare(compute, nvae(), device, dtype, tolerance)


@pytest.mark.parametrize("weighting", ["ll", "un", "re"])
@in_both_dtypes
def test_the_objective_and_its_gradients(
    device: torch.device, dtype: torch.dtype, tolerance: float, weighting: str
) -> None:
    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        noise = Carried(8, device)
        sde = networks.prior.sde
        objective = Objective.make(sde, weighting=weighting, importance_sampling=True, time_eps=1e-2)
        z, log_q = networks.vae.posterior(levels().to(device), noise.normal)
        z_0 = networks.vae.groups.stack(z)
        ce = objective.cross_entropy(networks.prior, z_0, noise.stratified(), noise.normal(*z_0.shape[1:]))
        (torch.stack(log_q).sum(dim=0) + ce.surrogate).mean().backward()
        gradients = {
            part: torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
            for part, module in networks.named_children()
        }
        return {"value": ce.value, "score_loss": ce.score_loss, **gradients}

    compare(compute, tiny_lsgm(), device, dtype, tolerance)


ADAPTIVE = {"dopri5"}


@pytest.mark.parametrize("name", sampler_names())
def test_every_sampler_draws_the_same(device: torch.device, name: str) -> None:
    """Noise comes from the CPU by seeds. An adaptive solver may take another step at the edge of one, whose
    error its tolerance bounds; stochastic ones see the same noise."""

    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        noise = SeededNoise(range(4), device=device)
        config = SamplerConfig(name, steps=4, time_end=0.01, rtol=1e-3, atol=1e-3)
        return {"z": draw(networks.prior, networks.vae.groups.z_0, noise, config).z}

    tolerance = 1e-2 if name in ADAPTIVE else SINGLE
    compare(compute, tiny_lsgm(), device, torch.float32, tolerance, truth=torch.float32)


@pytest.mark.parametrize("method", ["nelbo", "ode", "iw"])
def test_bounds_are_the_same(device: torch.device, method: Any) -> None:
    """Sums of 64 pixels and 32 latents; fixed steps, since an adaptive one may be at the edge of two."""

    def compute(networks: Any, device: torch.device) -> dict[str, Tensor]:
        state = {"name": "tiny", "sha256": "0" * 64, "stage": "stage2", "step": 1, "meta": {}}
        model = measure_lsgm(recipe().prior.objective, networks, state)
        config = DensityConfig(method=method, samples=2, draws=2, solver="rk4", steps=2)
        return {"nats": model.density(levels(2).to(device), range(2), config).nats}

    compare(compute, tiny_lsgm(), device, torch.float32, SINGLE, truth=torch.float32)


def test_features_and_their_moments_are_the_same(device: torch.device) -> None:
    """A few layers of float32; moments are summed in float64 on the processor, from features on it."""
    images = torch.randint(0, 256, (24, 1, 28, 28), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )
    there, here = (GlyphExtractor(device=where)(images) for where in (device, "cpu"))
    assert there.device.type == "cpu"
    torch.testing.assert_close(there, here, rtol=SINGLE, atol=SINGLE)
    a, b = Moments.of(there.numpy()), Moments.of(here.numpy())
    assert a.count == b.count
    # 24 rows span 23 of 64 dimensions; the distance of two such sets is their shift alone.
    assert frechet_distance(a, b) < 1e-6 * b.covariance.trace()


@pytest.mark.cuda
def test_inception_is_exact_whatever_a_program_has_set(gpu: torch.device, tmp_path: Path) -> None:
    """94 layers of float32, with random weights; TF32 would be off by 1e-3."""
    weights = tmp_path / "random.pth"
    torch.save(random_state(1), weights)
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 3, 32, 32), generator=generator, dtype=torch.uint8)
    here = FidelityInception(str(weights))(images)
    round_to_tf32(True)
    there = FidelityInception(str(weights), device=gpu)(images)
    assert float((there - here).abs().max() / here.abs().max()) < 5e-5

"""Imported DDPMs against the library's own pipelines: the same network, process and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ddpm_folders import NOISING, library, pipeline, scheduler, unet
from torch import Tensor

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.model.diffusion import ScoreBasedModel
from lsgm.rng import SeededNoise
from lsgm.runs.load import load_model
from lsgm.sampling import draw
from lsgm.tabulated import TabulatedVPSDE
from lsgm_baselines.diffusers import command

STEPS = NOISING["num_train_timesteps"]
EVERY = (*((STEPS - k) / STEPS for k in range(STEPS)), 1e-5)
"""All training times from the last to the first; the sampler's last step goes from there to the image."""
SHAPE = (2, 1, 8, 8)
PREDICTIONS = ("epsilon", "v_prediction", "sample")


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")


class PipelineNoise(SeededNoise):
    """The numbers that a pipeline draws from one generator for a whole batch."""

    def __init__(self, seed: int) -> None:
        super().__init__(range(SHAPE[0]))
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(len(self), *shape, generator=self.generator, dtype=dtype)


def imported(folder: Path, *options: str) -> ScoreBasedModel:
    """Import a saved pipeline and load the run."""
    out = folder.parent / "run"
    assert command.run([str(folder), str(out), *options]) == 0
    model = load_model(out)
    assert isinstance(model, ScoreBasedModel)
    return model


def sampled(model: ScoreBasedModel, config: SamplerConfig, seed: int = 3) -> Tensor:
    return draw(model.prior, SHAPE[1:], PipelineNoise(seed), config).z


def stepped(made: Any, steps: int, seed: int = 3) -> Tensor:
    """Return what a pipeline's network and scheduler make of a seed, before it is clamped to an image."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(SHAPE, generator=generator)
    made.scheduler.set_timesteps(steps)
    with torch.no_grad():
        for n in made.scheduler.timesteps:
            z = made.scheduler.step(made.unet(z, n).sample, n, z, generator=generator).prev_sample
    return z


def close(ours: Tensor, theirs: Tensor) -> None:
    """Compare samples whose scale is that of their largest pixel: twenty steps in float32."""
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("variance", "name"), [("fixed_small", "ancestral-posterior"), ("fixed_large", "ancestral")]
)
def test_all_timesteps_of_the_scheduler_are_ancestral_sampling(
    variance: str, name: str, prediction: str, tmp_path: Path
) -> None:
    noising = scheduler(variance_type=variance, prediction_type=prediction, clip_sample=False)
    made = pipeline(tmp_path / "saved", noising=noising)
    ours = sampled(imported(tmp_path / "saved"), SamplerConfig(name, times=EVERY))
    close(ours, stepped(made, STEPS))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_pipeline_that_clamps_makes_the_pictures_of_an_import_that_does(
    prediction: str, tmp_path: Path
) -> None:
    made = pipeline(tmp_path / "saved", noising=scheduler(prediction_type=prediction))
    model = imported(tmp_path / "saved", "--clip")
    generator = torch.Generator().manual_seed(3)
    pictures = made(2, generator, num_inference_steps=STEPS, output_type="np").images
    ours = sampled(model, SamplerConfig("ancestral-posterior", times=EVERY))
    shown = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(shown, pictures, rtol=0, atol=1e-5)


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "trained"])
def test_ten_steps_of_ddim_are_ours(schedule: str, tmp_path: Path) -> None:
    betas = np.linspace(0.4, 0.01, STEPS).tolist() if schedule == "trained" else None
    options: dict[str, Any] = {"clip_sample": False, "timestep_spacing": "trailing", "trained_betas": betas}
    if betas is None:
        options["beta_schedule"] = schedule
    made = pipeline(tmp_path / "saved", noising=scheduler(**options))
    made.scheduler = library().DDIMScheduler.from_config(made.scheduler.config)
    # Its last step leads to the image itself, as one evaluation more does at the first training time but one.
    config = SamplerConfig("ddim", times=EVERY[:-1:2], denoise=True)
    ours = sampled(imported(tmp_path / "saved"), config)
    close(ours, stepped(made, 10))


def test_the_process_is_the_schedulers(tmp_path: Path) -> None:
    made = pipeline(tmp_path / "saved")
    sde = imported(tmp_path / "saved").prior.sde
    assert isinstance(sde, TabulatedVPSDE)
    t = torch.tensor(EVERY[:-1], dtype=torch.float64).flip(0)
    torch.testing.assert_close(
        sde.one_minus_var(t), made.scheduler.alphas_cumprod.double(), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_predictions_become_the_noise_that_makes_z_from_the_clean_image(
    prediction: str, tmp_path: Path
) -> None:
    pipeline(tmp_path / "saved", noising=scheduler(prediction_type=prediction))
    model, z, n = imported(tmp_path / "saved"), torch.randn(SHAPE), 7
    t = torch.full((2,), (n + 1) / STEPS, dtype=torch.float64)
    m, sigma = float(model.prior.sde.mean(t)[0]), float(model.prior.sde.sigma(t)[0])
    with torch.no_grad():
        y, eps = unet()(z, n).sample, model.prior.eps(z, t)
    clean = (z - sigma * eps) / m
    meant = {"epsilon": eps, "v_prediction": m * eps - sigma * clean, "sample": clean}[prediction]
    torch.testing.assert_close(meant, y, rtol=1e-5, atol=1e-5)


def test_the_model_is_not_asked_before_its_first_training_time(tmp_path: Path) -> None:
    pipeline(tmp_path / "saved")
    model = imported(tmp_path / "saved")
    assert model.coder.ode_start == 1 / STEPS
    z = torch.randn(SHAPE)
    first, earlier = (torch.full((2,), t, dtype=torch.float64) for t in (1 / STEPS, 0.2 / STEPS))
    torch.testing.assert_close(model.prior.eps(z, earlier), model.prior.eps(z, first))


def test_fourier_waves_of_timestep_zero_are_never_asked_for(tmp_path: Path) -> None:
    pipeline(tmp_path / "saved", unet(time_embedding_type="fourier"))
    model = imported(tmp_path / "saved")
    assert model.coder.ode_start == 2 / STEPS
    assert int(model.sample([0, 1], SamplerConfig("heun", steps=3)).nfe[0]) == 6


@pytest.mark.parametrize("method", ["nelbo", "ode"])
def test_it_is_scored_like_any_other_model(method: Any, tmp_path: Path) -> None:
    pipeline(tmp_path / "saved")
    levels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
    config = DensityConfig(method=method, solver="heun", steps=5)
    bound = imported(tmp_path / "saved").density(levels, [0, 1, 2], config)
    assert bound.nats.shape == (3,)
    assert bool(bound.nats.isfinite().all())
    # A network that predicts nothing in particular is no better than 8 bits for every pixel.
    assert float(bound.nats.mean()) > 64 * 8 * np.log(2)

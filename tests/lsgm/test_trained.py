"""A trained model from Python: what it gives is what the harness measures, whatever is asked for at once."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import geometric_slerp

import lsgm
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.trained import levels_of, spherical

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def model() -> lsgm.Model:
    return lsgm.load(CHECKPOINTS / "glyphs-lsgm", device="cpu")


@pytest.fixture(scope="module")
def vae() -> lsgm.Model:
    return lsgm.load(CHECKPOINTS / "glyphs-vae", device="cpu")


@pytest.fixture(scope="module")
def sgm() -> lsgm.Model:
    return lsgm.load(CHECKPOINTS / "glyphs-sgm", device="cpu")


@pytest.fixture(scope="module")
def letters() -> torch.Tensor:
    return lsgm.images("glyphs:test", limit=6)


def test_samples_are_those_of_their_seeds_however_many_are_computed_together(model: lsgm.Model) -> None:
    config = lsgm.SamplerConfig("heun", steps=3)
    drawn = model.sample(5, steps=3, at_once=2)
    assert torch.equal(drawn.images, model.generative.sample(range(5), config).images)
    assert torch.equal(drawn.images[3:4], model.sample([3], config).images)
    assert drawn.nfe.tolist() == [6] * 5
    assert drawn.decoder_seconds is not None
    assert drawn.decoder_seconds < drawn.seconds


def test_what_a_model_draws_is_the_same_however_it_is_prepared(model: lsgm.Model) -> None:
    before = model.sample(3, steps=2).images
    assert model.prepare(at_once=2) == 2
    at_once = model.prepare("graphs", at_once="auto")  # which a CPU has not
    assert at_once >= 1
    # Other batches round float32 convolutions differently: 2,352 pixels, each with a chance of 2e-5 to turn.
    assert int((model.sample(3, steps=2, at_once=at_once).images != before).sum()) <= 2


def test_a_density_is_that_of_the_levels(model: lsgm.Model, letters: torch.Tensor) -> None:
    whole = model.density(letters, samples=2, draws=3)
    config = lsgm.DensityConfig("nelbo", samples=2, draws=3)
    beneath = model.generative.density((letters > 0).to(torch.uint8), range(6), config)
    pieces = model.density(letters, config, at_once=4)
    assert torch.equal(whole.nats, beneath.nats)
    # Another batch size rounds float32 convolutions of some 800 pixels differently.
    torch.testing.assert_close(pieces.nats, whole.nats, rtol=1e-5, atol=1e-3)
    assert pieces.terms.keys() == whole.terms.keys()
    assert pieces.error is not None
    assert pieces.error.shape == (6,)


def test_encoding_and_decoding_are_the_networks_own(model: lsgm.Model, letters: torch.Tensor) -> None:
    network = model.vae
    assert network is not None
    latents = model.encode(letters, mean=True, at_once=4)
    with torch.no_grad():
        z = network.posterior((letters > 0).to(torch.uint8), lambda *shape: torch.zeros(6, *shape)).z
        expected = network.likelihood(z).mean()
    for ours, theirs in zip(latents.groups, z, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    decoded = model.decode(latents, mean=True)
    assert (decoded.float() - 255 * expected).abs().max() <= 0.5 + 255e-5
    assert torch.equal(decoded, model.reconstruct(letters, mean=True))
    # log q at the mean of a Normal is -sum log sigma - d / 2 log 2 pi: the same noise moves it by chi^2 / 2.
    drawn = model.encode(letters)
    assert (latents.log_q[0] > drawn.log_q[0]).all()
    assert torch.equal(model.encode(letters, seeds=range(6)).groups[0], drawn.groups[0])


def test_z_0_alone_is_decoded_too(model: lsgm.Model, letters: torch.Tensor) -> None:
    latents = model.encode(letters)
    assert torch.equal(model.decode(latents.groups[0]), model.decode(latents))


def test_a_way_in_the_latents_has_the_reconstructions_at_its_ends(
    model: lsgm.Model, letters: torch.Tensor
) -> None:
    way = model.interpolate(letters[:2], letters[2:4], 3, mean=True)
    assert way.shape == (2, 3, 1, 28, 28)
    assert torch.equal(way[:, 0], model.reconstruct(letters[:2], mean=True))
    assert torch.equal(way[:, 2], model.reconstruct(letters[2:4], mean=True))
    assert not torch.equal(way[:, 1], way[:, 0])


def test_a_way_along_the_flow_comes_back_to_its_ends_as_its_tolerance_falls(
    model: lsgm.Model, letters: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = model.reconstruct(letters[:2], mean=True).float()
    errors = []
    for tolerance in (1e-2, 1e-5):
        monkeypatch.setattr("lsgm.trained.TOLERANCE", tolerance)
        way = model.interpolate(letters[:1], letters[1:2], 3, along="flow", mean=True)[0].float()
        errors.append(float((way[[0, 2]] - ends).square().mean().sqrt()))
    # Errors of a step are in proportion to the tolerance; below a level they are lost in the rounding.
    assert errors[1] <= max(0.5, errors[0] / 10)
    assert errors[0] > errors[1]


def test_a_model_of_pixels_goes_along_the_flow_without_latents(
    sgm: lsgm.Model, letters: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = []
    for tolerance in (1e-2, 1e-4):
        monkeypatch.setattr("lsgm.trained.TOLERANCE", tolerance)
        way = sgm.interpolate(letters[:1], letters[1:2], 2, along="flow")[0]
        wrong.append(float((way != letters[:2]).float().mean()))
    # The ends are the images themselves: the smallest noise is rounded away, and so is what solving leaves.
    assert wrong[1] <= min(0.01, wrong[0] / 4)


@given(st.integers(2, 40), st.integers(0, 1000), st.floats(0, 1))
def test_a_great_circle_is_scipys(dims: int, seed: int, share: float) -> None:
    a, b = np.random.default_rng(seed).standard_normal((2, dims))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    theirs = geometric_slerp(a, b, [share])
    ours = spherical(torch.tensor(a[None]), torch.tensor(b[None]), torch.tensor([share], dtype=torch.float64))
    # Angles near 0 and pi are ill conditioned by the inverse of their sine.
    sine = math.sqrt(max(1e-16, 1 - float(a @ b) ** 2))
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-14 * dims / sine**2 + 1e-12)


def test_a_great_circle_of_one_direction_is_straight() -> None:
    a = torch.tensor([[1.0, 2.0]])
    shares = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    assert torch.allclose(spherical(a, 3 * a, shares), torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    assert torch.allclose(spherical(a, 0 * a, shares)[2], torch.zeros(2))


def test_a_model_without_a_part_says_so(vae: lsgm.Model, sgm: lsgm.Model, letters: torch.Tensor) -> None:
    assert (vae.prior, vae.sde, sgm.vae) == (None, None, None)
    with pytest.raises(UserError, match="glyphs-sgm has no VAE and so no latents to encode; give an LSGM"):
        sgm.encode(letters)
    with pytest.raises(UserError, match="glyphs-sgm has no VAE and so no latents to interpolate in"):
        sgm.interpolate(letters[:1], letters[1:2])
    with pytest.raises(UserError, match="glyphs-vae has no score model and no flow to go along"):
        vae.interpolate(letters[:1], letters[1:2], along="flow")


class Silent:
    """A model of somebody else's that draws and knows no density."""

    name, sha256, has_prior, remark = "silent", "", False, ""
    pixels = Pixels(1, 28, 28, "binary", 1)
    parameters: ClassVar[dict[str, int]] = {}


def test_a_model_without_a_density_says_so(letters: torch.Tensor) -> None:
    with pytest.raises(UserError, match="silent bounds no density; draw from it instead"):
        lsgm.Model(Silent()).density(letters)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 28, 28), "images are torch.float32; give uint8 in 0..255"),
        (torch.zeros(2, 28, 28, 1, dtype=torch.uint8), r"\[2, 28, 28, 1\].*move the channels to the front"),
        (torch.zeros(2, 1, 32, 32, dtype=torch.uint8), r"this model's are \[N, 1, 28, 28\]"),
        (torch.zeros(0, 1, 28, 28, dtype=torch.uint8), r"images have shape \[0, 1, 28, 28\]"),
        (torch.full((2, 1, 28, 28), 7, dtype=torch.uint8), r"grey values.*\(images > 127\) \* 255"),
    ],
)
def test_images_that_are_not_the_models_are_one_sentence(images: torch.Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        levels_of(images, Pixels(1, 28, 28, "binary", 1))


def test_levels_are_the_highest_bits_and_arrays_may_lack_the_one_channel() -> None:
    image = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    levels = levels_of(image, Pixels(1, 16, 16, "discrete", 5))
    assert levels.flatten().tolist() == [value // 8 for value in range(256)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.sample(0), "no image is asked for"),
        (lambda m: m.sample(2, "hein"), "heun"),
        (lambda m: m.sample(2, stepz=3), "unknown key 'stepz'"),
        (lambda m: m.sample(2, at_once=0), "at_once is 0"),
        (
            lambda m: m.density(torch.zeros(2, 28, 28, dtype=torch.uint8), seeds=[1]),
            "1 seeds are given for 2",
        ),
        (lambda m: m.decode(torch.zeros(1, 3, 7, 7)), r"z_0 has shape \[1, 3, 7, 7\].*\[N, 8, 7, 7\]"),
    ],
)
def test_a_slip_is_one_sentence(model: lsgm.Model, call: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(model)  # type: ignore[operator]

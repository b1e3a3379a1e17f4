"""``lsgm reconstruct``, ``encode`` and ``interpolate``: what Python gives, as a picture and an npz."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lsgm
from lsgm.cli import main

MODEL = str(Path(__file__).parents[3] / "checkpoints/glyphs-lsgm")
WORDS = [MODEL, "glyphs:test", "--device", "cpu", "--seed", "5"]


@pytest.fixture
def model() -> lsgm.Model:
    return lsgm.load(MODEL, device="cpu")


def test_reconstructions_are_those_of_python(tmp_path: Path, model: lsgm.Model) -> None:
    assert main(["reconstruct", *WORDS, "--limit", "10", "--mean", "--out", str(tmp_path / "r")]) == 0
    found = np.load(tmp_path / "r.npz")
    images = lsgm.images("glyphs:test", limit=10, seed=5)
    assert np.array_equal(found["images"][..., 0], images[:, 0].numpy())
    expected = model.reconstruct(images, mean=True)
    assert np.array_equal(found["reconstructions"][..., 0], expected[:, 0].numpy())
    error = ((images.double() - expected.double()) / 255).square().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(found["mean_squared_error"], error, rtol=1e-12)
    # Two rows of eight and what came of them, two of two, each enlarged twice.
    assert Image.open(tmp_path / "r.png").size == (2 * (8 * 30 + 2), 2 * (4 * 30 + 2))


def test_latents_are_those_of_python(
    tmp_path: Path, model: lsgm.Model, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", *WORDS, "--limit", "3", "--out", str(tmp_path / "e.npz"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = np.load(said["arrays"])
    latents = model.encode(lsgm.images("glyphs:test", limit=3, seed=5), seeds=range(5, 8))
    assert np.array_equal(found["group_0"], latents.groups[0].numpy())
    assert np.array_equal(found["log_q_0"], latents.log_q[0].numpy())
    assert said["groups"] == 1
    assert Image.open(said["picture"]).mode == "L"


def test_ways_are_those_of_python(tmp_path: Path, model: lsgm.Model) -> None:
    words = ["interpolate", *WORDS, "--limit", "5", "--steps", "3", "--out", str(tmp_path / "w")]
    assert main(words) == 0
    images = lsgm.images("glyphs:test", limit=5, seed=5)
    way = model.interpolate(images[0:4:2], images[1:4:2], 3, seeds=[5, 6])
    assert np.array_equal(np.load(tmp_path / "w.npz")["way"][..., 0], way[:, :, 0].numpy())


@pytest.mark.parametrize("command", ["reconstruct", "encode", "interpolate"])
def test_what_is_there_stays(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.npz").write_text("mine")
    assert main([command, *WORDS, "--out", str(tmp_path / "mine")]) == 2
    assert "mine.npz is there already; remove it, or name another place by --out" in capsys.readouterr().err
    assert (tmp_path / "mine.npz").read_text() == "mine"
    assert not (tmp_path / "mine.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", MODEL, "glyphs:test", "--limit", "0"], "limit is 0"),
        (["encode", MODEL, "glyhps"], "did you mean 'glyphs'"),
        (["interpolate", MODEL, "glyphs", "--limit", "1"], "a way takes two images"),
        (["reconstruct", "nowhere", "glyphs"], "nowhere"),
    ],
)
def test_a_slip_is_one_sentence(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_without_a_vae_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(Path(MODEL).with_name("glyphs-sgm"))
    assert main(["encode", model, "glyphs", "--limit", "2", "--out", str(tmp_path / "x")]) == 2
    assert "glyphs-sgm has no VAE and so no latents to encode" in capsys.readouterr().err

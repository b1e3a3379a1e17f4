"""Feature spaces: the shipped one does what its card says, foreign ones are checked at the door."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.distances import stats_of
from torch import Tensor, nn

from lsgm.data import ImageSet, load, sha256_of
from lsgm.errors import DataError, UserError
from lsgm_eval.features import train_glyphs
from lsgm_eval.features.extractor import load_extractor
from lsgm_eval.features.glyphs import WEIGHTS, GlyphExtractor, read_card
from lsgm_eval.features.own import TorchScriptExtractor
from lsgm_eval.features.train_glyphs import TrainGlyphs, accuracy, train
from lsgm_eval.metrics.frechet import frechet_distance

SHARED = Path(os.environ.get("LSGM_SHARED", Path(__file__).parents[3].parent / "shared"))
GREY = (1, 28, 28)


def pictures(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(n, 1, 28, 28, generator=generator) < 0.2).to(torch.uint8) * 255


def test_glyph_features_have_the_promised_form_and_no_batch_in_them() -> None:
    extractor = load_extractor("glyphs", GREY)
    images = pictures(30)
    whole = extractor(images)
    assert whole.shape == (30, 64) == (30, extractor.dim)
    assert whole.dtype == torch.float32
    parts = torch.cat([extractor(part) for part in torch.split(images, 7)])
    # Convolutions sum in another order for another batch: float32 rounding of unit-scale features.
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_glyph_features_are_those_of_the_shipped_file() -> None:
    raw = files("lsgm_eval.features").joinpath(WEIGHTS).read_bytes()
    assert GlyphExtractor().sha256 == hashlib.sha256(raw).hexdigest()
    assert len(raw) < 300_000


def test_card_states_the_accuracy_that_the_weights_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LSGM_CACHE")  # the rendered glyphs of this machine, where they are
    card, images = read_card(), load("glyphs")
    found = accuracy(GlyphExtractor().net, images, "test", card["seed"])
    chance = {"script": 1 / 12, "style": 1 / 4}
    for label, value in found.items():
        assert value > 4 * chance[label] or value > 0.85
        # Another FreeType draws other edges; on the very same pixels only rounding may differ.
        same = images.identity == card["dataset"]
        assert value == pytest.approx(card["test_accuracy"][label], abs=0.002 if same else 0.05)


def test_training_is_seeded_and_learns(bars: ImageSet) -> None:
    shades = bars.splits["train"].clone()
    labels = {"script": torch.arange(600) % 2, "style": torch.arange(600) // 2 % 2}
    shades[labels["script"] == 1] = shades[labels["script"] == 1].flip(-1) // 2 + 60
    shades[labels["style"] == 1, :, :3] = 255
    images = ImageSet(
        "toy",
        "1",
        sha256_of(shades),
        "binary",
        {"train": shades[:250], "test": shades[250:350]},
        {
            "train": {k: v[:250] for k, v in labels.items()},
            "test": {k: v[250:350] for k, v in labels.items()},
        },
        {"script": ("a", "b"), "style": ("c", "d")},
    )
    config = TrainGlyphs(epochs=6, batch_size=25)
    first, again = train(images, config), train(images, config)
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert min(accuracy(first, images, "test", 0).values()) > 0.9


def test_training_shifts_move_pictures_by_at_most_a_pixel() -> None:
    from lsgm.rng import StepNoise

    raw = torch.zeros(64, 1, 28, 28, dtype=torch.uint8)
    raw[:, :, 10, 15] = 255
    moved = train_glyphs._augment(raw, StepNoise(0, 0, global_batch=64))
    where = moved[:, 0].nonzero()
    assert len(where) == 64
    offsets = {(int(r) - 10, int(c) - 15) for _, r, c in where}
    assert offsets == {(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)}


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 28, 28, dtype=torch.uint8), torch.zeros(2, 1, 28, 28), torch.zeros(28, 28)],
    ids=["channels", "dtype", "rank"],
)
def test_wrong_images_are_refused_by_shape_and_type(images: Tensor) -> None:
    with pytest.raises(UserError, match="glyphs-features takes uint8 images of 1x28x28"):
        GlyphExtractor()(images)


def test_missing_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere.safetensors .*train_glyphs"):
        GlyphExtractor(tmp_path / "nowhere.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(files("lsgm_eval.features").joinpath(WEIGHTS).read_bytes()[:5000])
    with pytest.raises(DataError, match=r"cut.safetensors does not hold the weights"):
        GlyphExtractor(cut)


class Means(nn.Module):
    """Mean of every channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).mean(dim=(2, 3))


class Broken(nn.Module):
    """Features that are not finite."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x.to(torch.float32).mean(dim=(2, 3)) - 1.0)


class Flat(nn.Module):
    """One number for the whole batch."""

    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).mean()


def script(module: nn.Module, path: Path) -> Path:
    traced = torch.jit.trace(module, torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    traced.save(str(path))
    return path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_of_ones_own_gives_features(tmp_path: Path) -> None:
    path = script(Means(), tmp_path / "means.ts")
    extractor = load_extractor(f"torchscript:{path}", (3, 32, 32))
    assert (extractor.name, extractor.dim) == ("means", 3)
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    images = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(extractor(images), images.float().mean((2, 3)))
    with pytest.raises(UserError, match="takes uint8 images of 3x32x32"):
        extractor(images[:, :1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripts_that_break_the_contract_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="flat must return features N x D"):
        TorchScriptExtractor(str(script(Flat(), tmp_path / "flat.ts")), (3, 32, 32))
    broken = TorchScriptExtractor(str(script(Broken(), tmp_path / "broken.ts")), (3, 32, 32))
    with pytest.raises(UserError, match="broken gave features that are not finite for image 0"):
        broken(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    noise = tmp_path / "noise.ts"
    noise.write_bytes(os.urandom(1000))
    with pytest.raises(DataError, match=r"noise.ts is not a TorchScript file"):
        TorchScriptExtractor(str(noise), (3, 32, 32))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_below_the_data_folders_is_found_past_a_damaged_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        (folder / "features").mkdir(parents=True)
    whole = script(Means(), second / "features" / "net.ts").read_bytes()
    (first / "features" / "net.ts").write_bytes(whole[:500])
    monkeypatch.setenv("LSGM_DATA", f"{first}:{second}")
    assert load_extractor("torchscript:net.ts", (3, 32, 32)).sha256 == hashlib.sha256(whole).hexdigest()
    assert f"another copy is used, because {first}/features/net.ts is not a Torch" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"other.ts is not here; looked for .*features/other.ts"):
        load_extractor("torchscript:other.ts", (3, 32, 32))
    (second / "features" / "net.ts").write_bytes(whole[:300])
    with pytest.raises(DataError) as error:
        load_extractor("torchscript:net.ts", (3, 32, 32))
    for folder in (first, second):
        assert f"{folder}/features/net.ts is not a TorchScript file" in str(error.value)


class Scaled(nn.Module):
    """A parameter that the output needs a gradient of, as every trained network has."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (self.scale * x.to(torch.float32)).mean(dim=(2, 3))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("write", [torch.jit.script, torch.jit.trace], ids=["script", "trace"])
def test_a_script_whose_parameters_require_gradients_gives_features(write: Any, tmp_path: Path) -> None:
    example = () if write is torch.jit.script else (torch.zeros(2, 3, 32, 32, dtype=torch.uint8),)
    write(Scaled(), *example).save(str(tmp_path / "trained.ts"))
    extractor = load_extractor(f"torchscript:{tmp_path / 'trained.ts'}", (3, 32, 32))
    for count in (5, 2, 7):
        images = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
        torch.testing.assert_close(extractor(images), images.float().mean((2, 3)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_damaged_script_is_one_sentence(tmp_path: Path) -> None:
    raw, draw = script(Means(), tmp_path / "whole.ts").read_bytes(), random.Random(0)
    path = tmp_path / "bad.ts"
    for _ in range(60):
        flipped = bytearray(raw)
        for _ in range(5):
            flipped[draw.randrange(len(raw))] = draw.randrange(256)
        path.write_bytes(flipped)
        with contextlib.suppress(DataError, UserError):  # what is hit may be padding
            load_extractor(f"torchscript:{path}", (3, 32, 32))


def test_shared_cifar_features_load_and_separate_noise_from_flat_images() -> None:
    path = SHARED / "data" / "features" / "cifar10-resnet56.ts"
    if not path.exists():
        pytest.skip(f"{path} is not here; set LSGM_SHARED to the folder that holds data/")
    extractor = load_extractor(f"torchscript:{path}", (3, 32, 32))
    assert extractor.dim == 64
    noise = extractor(torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)).numpy()
    flat = extractor(torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)).numpy()
    assert np.linalg.norm(noise.mean(0) - flat.mean(0)) > 3 * noise.std()


def test_train_is_as_far_from_test_of_cifar10_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    path = SHARED / "data" / "features" / "cifar10-resnet56.ts"
    if not path.exists():
        pytest.skip(f"{path} is not here; set LSGM_SHARED to the folder that holds data/")
    monkeypatch.setenv("LSGM_DATA", str(SHARED / "data"))
    images, extractor = load("cifar10"), load_extractor(f"torchscript:{path}", (3, 32, 32))
    batches = (images.split(split)[:1000].split(250) for split in ("test", "train"))
    held_out, training = (stats_of(extractor, part).moments for part in batches)
    # The recorded 95 % interval of the first 1,000 of each. Noise of 12 grey levels gives 10.7.
    assert 0.204 < frechet_distance(held_out, training) < 0.433


@pytest.mark.parametrize(
    "spec", ["glyfs", "torchscript:", "glyphs:file", "inception:", "inception-clean:", "dinov2", "export:"]
)
def test_unknown_extractors_are_refused(spec: str) -> None:
    with pytest.raises(UserError, match=f"unknown feature extractor '{spec}'"):
        load_extractor(spec, GREY)

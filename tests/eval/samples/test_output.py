"""The images that a pass keeps are those that were measured, all of them, whatever interrupted it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.errors import UserError
from lsgm.generative import Pixels, Samples
from lsgm.rng import SeededNoise
from lsgm_eval.samples.gather import run_pass

SEEDS = range(20, 50)


@dataclass
class Noise:
    """Images 4 high and 5 wide; the power fails at seed `stop_at`."""

    channels: int = 3
    stop_at: int | None = None
    name: str = "noise"
    sha256: str = "n" * 64
    drawn: list[int] = field(default_factory=list)

    @property
    def pixels(self) -> Pixels:
        return Pixels(self.channels, 4, 5, "discrete")

    def sample(self, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        if self.stop_at in seeds:
            raise RuntimeError("no power")
        self.drawn += seeds
        images = (SeededNoise(seeds).uniform(*self.pixels.shape) * 256).to(torch.uint8)
        return Samples(images, torch.zeros(len(seeds)), 0.0)


@dataclass
class Seen:
    """Levels as features, kept by seed order: what the extractors were given."""

    name: str = "seen"
    sha256: str = "s" * 64
    dim: int = 60
    image_shape: tuple[int, int, int] = (3, 4, 5)
    resize: str = ""

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1).float()


def keep(save: Path, model: Noise | None = None, seeds: Sequence[int] = SEEDS, batch: int = 8) -> Any:
    model = model or Noise()
    extractor = Seen(dim=20 * model.channels)
    state = save.parent / "state.npz"
    return run_pass(
        model,  # type: ignore[arg-type]
        seeds,
        SamplerConfig("heun"),
        [extractor],
        batch_size=batch,
        state_path=state,
        save=save,
        save_every=0.0,
    )


def kept(save: Path) -> NDArray[Any]:
    """Return the kept images [N, H, W, C], as anybody's reader sees them."""
    if save.suffix == ".npz":
        with np.load(save, allow_pickle=False) as file:
            return np.asarray(file["arr_0"])
    return np.stack([np.asarray(Image.open(path)) for path in sorted(save.glob("*.png"))])


PLACES = ("png", "images.npz")


@pytest.mark.parametrize("place", PLACES)
def test_what_is_kept_is_what_was_extracted(tmp_path: Path, place: str) -> None:
    found, images = keep(tmp_path / place), kept(tmp_path / place)
    assert (images.shape, images.dtype) == ((30, 4, 5, 3), np.uint8)
    np.testing.assert_array_equal(
        images.transpose(0, 3, 1, 2).reshape(30, 60), found.of(Seen(dim=60)).stats.rows
    )


@pytest.mark.parametrize("place", PLACES)
def test_an_interrupted_pass_keeps_every_image(tmp_path: Path, place: str) -> None:
    keep(tmp_path / "whole" / place)
    with pytest.raises(RuntimeError):
        keep(tmp_path / place, Noise(stop_at=40))
    model = Noise()
    keep(tmp_path / place, model, batch=3)
    assert model.drawn == list(range(36, 50))
    np.testing.assert_array_equal(kept(tmp_path / place), kept(tmp_path / "whole" / place))
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "state.npz", place}


@pytest.mark.parametrize("place", PLACES)
def test_a_finished_pass_draws_nothing_unless_its_images_are_gone(tmp_path: Path, place: str) -> None:
    save, model = tmp_path / place, Noise()
    keep(save)
    first = kept(save)
    keep(save, model)
    assert model.drawn == []
    (save / "000031.png" if place == "png" else save).unlink()
    keep(save, model)
    assert model.drawn == list(SEEDS)
    np.testing.assert_array_equal(kept(save), first)


def test_grey_images_keep_one_channel(tmp_path: Path) -> None:
    keep(tmp_path / "grey.npz", Noise(1))
    assert kept(tmp_path / "grey.npz").shape == (30, 4, 5, 1)
    keep(tmp_path / "png", Noise(1))
    assert kept(tmp_path / "png").shape == (30, 4, 5)


def test_files_are_named_by_their_seeds_in_order(tmp_path: Path) -> None:
    keep(tmp_path / "png", seeds=range(999_999, 1_000_001))
    assert sorted(path.name for path in (tmp_path / "png").glob("*.png")) == ["0999999.png", "1000000.png"]


def test_a_folder_of_other_images_is_never_mixed_with_a_pass(tmp_path: Path) -> None:
    keep(tmp_path / "png")
    with pytest.raises(UserError, match="png is not empty and what is in it are other images"):
        keep(tmp_path / "png", seeds=range(10))
    keep(tmp_path / "images.npz")
    before = (tmp_path / "images.npz").read_bytes()
    with pytest.raises(UserError, match=r"images\.npz is there and is of other images"):
        keep(tmp_path / "images.npz", seeds=range(10))
    assert (tmp_path / "images.npz").read_bytes() == before
    (tmp_path / "holiday").mkdir()
    (tmp_path / "holiday" / "me.png").write_bytes(b"")
    with pytest.raises(UserError, match="holiday is not empty"):
        keep(tmp_path / "holiday")


@pytest.mark.parametrize("name", ["samples.zip", "samples.png", "samples.npy"])
def test_a_place_of_another_format_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"name a folder for PNGs, or a file of \.npz"):
        keep(tmp_path / name)

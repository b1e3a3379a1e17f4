"""Pictures of images: every pixel where it belongs, nothing half written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lsgm.errors import DataError
from lsgm.sampling.keep import save_grid, save_image


def images(count: int, channels: int, side: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, side, side), generator=generator).to(torch.uint8)


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_lie_row_by_row_with_gaps_of_grey(tmp_path: Path, channels: int) -> None:
    pictures = images(5, channels)
    sheet = read(save_grid(pictures, tmp_path / "grid.png", columns=3, gap=2, scale=1))
    assert sheet.shape[:2] == (2 * (4 + 2) + 2, 3 * (4 + 2) + 2)
    assert sheet.ndim == (2 if channels == 1 else 3)
    rest = np.ones(sheet.shape[:2], dtype=bool)
    for k, picture in enumerate(pictures):
        top, left = 2 + k // 3 * 6, 2 + k % 3 * 6
        place = np.s_[top : top + 4, left : left + 4]
        drawn = sheet[place] if channels == 3 else sheet[place][..., None]
        np.testing.assert_array_equal(drawn, picture.permute(1, 2, 0).numpy())
        rest[place] = False
    assert (sheet[rest] == 128).all()


def test_small_images_are_enlarged_without_blur(tmp_path: Path) -> None:
    pictures = images(2, 1)
    once = read(save_grid(pictures, tmp_path / "once.png", scale=1))
    auto = read(save_grid(pictures, tmp_path / "auto.png"))
    np.testing.assert_array_equal(auto, np.kron(once, np.ones((16, 16), np.uint8)))
    large = images(1, 3, side=70)
    assert read(save_grid(large, tmp_path / "large.png", columns=1)).shape == (74, 74, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_is_written_as_it_is(tmp_path: Path, channels: int) -> None:
    picture = images(1, channels)[0]
    back = read(save_image(picture, tmp_path / "new" / "folder" / "0.png"))
    np.testing.assert_array_equal(back.reshape(4, 4, channels), picture.permute(1, 2, 0).numpy())


def test_what_fails_leaves_the_picture_before_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_grid(images(3, 1), tmp_path / "grid.png")
    before = path.read_bytes()

    def full(self: Image.Image, file: Path, **options: str) -> None:
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match="No space left"):
        save_grid(images(4, 1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]

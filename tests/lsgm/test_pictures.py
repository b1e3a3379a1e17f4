"""Images and sheets for a notebook."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import lsgm
from lsgm.data import load, test_levels
from lsgm.errors import DataError, UserError


def test_images_of_a_binary_set_are_black_and_white_and_fewer_are_the_first_of_more() -> None:
    few, more = lsgm.images("glyphs", limit=3), lsgm.images("glyphs:test", limit=5)
    assert torch.equal(few, more[:3])
    assert set(more.unique().tolist()) == {0, 255}
    assert torch.equal(few, 255 * test_levels(load("glyphs"), "test", 0, limit=3))


def test_images_of_a_folder_are_its_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
    for k, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{k:02}.png")
    every, training = lsgm.images(str(tmp_path)), lsgm.images(f"{tmp_path}:train")
    stored = {picture.tobytes() for picture in pixels}
    assert {picture.permute(1, 2, 0).contiguous().numpy().tobytes() for picture in every} == stored
    assert every.shape == (12, 3, 8, 6)
    assert len(training) < 12
    assert lsgm.images(str(tmp_path), size=4, limit=2).shape == (2, 3, 4, 4)
    assert lsgm.images(str(tmp_path / "03.png")).shape == (1, 3, 8, 6)


def test_a_name_or_a_split_that_is_none_is_one_sentence() -> None:
    with pytest.raises(DataError, match="glyphs"):
        lsgm.images("glyhps")
    with pytest.raises(UserError, match="trane"):
        lsgm.images("glyphs:trane")
    with pytest.raises(UserError, match="limit is 0"):
        lsgm.images("glyphs", limit=0)


def test_a_sheet_has_every_image_at_its_place() -> None:
    images = torch.arange(6, dtype=torch.uint8).mul(40).reshape(6, 1, 1, 1).expand(6, 1, 4, 5)
    picture = np.asarray(lsgm.sheet(images, columns=3, scale=2))
    assert picture.shape == (2 * (2 * 6 + 2), 2 * (3 * 7 + 2))
    for k in range(6):
        top, left = 2 * (2 + k // 3 * 6), 2 * (2 + k % 3 * 7)
        assert (picture[top : top + 8, left : left + 10] == 40 * k).all()
    rows = np.asarray(lsgm.sheet(images.reshape(2, 3, 1, 4, 5), scale=2))
    assert np.array_equal(rows, picture)
    with pytest.raises(UserError, match="3 dimensions"):
        lsgm.sheet(images[0])

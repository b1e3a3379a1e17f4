"""The sheet of pairs shows the images it was given, where it says it does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsgm_eval.metrics.memorisation import Memorisation, memorisation, write_neighbours


def found() -> Memorisation:
    rng = np.random.default_rng(0)
    return memorisation(rng.normal(size=(30, 4)), rng.normal(size=(40, 4)), rng.normal(size=(100, 4)))


def flat(levels: list[int], channels: int) -> Tensor:
    return torch.tensor(levels, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 32, 32)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pair_is_on_the_sheet_enlarged_and_unchanged(tmp_path: Path, channels: int) -> None:
    pairs = found()
    chosen = {"closest": pairs.closest(3).tolist(), "at random": pairs.random(2).tolist()}
    samples, training = flat([1, 2, 3, 4, 5], channels), flat([101, 102, 103, 104, 105], channels)
    path = write_neighbours(tmp_path / "deep" / "pairs.png", pairs, samples, training, chosen)
    with Image.open(path) as picture:
        sheet = np.asarray(picture)
    assert sheet.ndim == 3
    corners = []
    for above, below in zip([1, 2, 3, 4, 5], [101, 102, 103, 104, 105], strict=True):
        # 32 pixels twice enlarged; anti-aliased letters may have such a level at a few places more.
        top, left = np.argwhere((sheet == above).all(axis=2))[0]
        assert (sheet[top : top + 64, left : left + 64] == above).all()
        assert (sheet[top + 64 : top + 128, left : left + 64] == below).all()
        corners.append((top, left))
    assert len({top for top, _ in corners[:3]}) == 1
    assert corners[3][0] > corners[0][0] + 128
    assert (sheet[corners[0][0] + 128 : corners[0][0] + 160, corners[0][1] : corners[0][1] + 64] < 99).any()


def test_long_bands_are_wrapped_and_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    pairs = found()
    images = flat(list(range(24)), 3)
    chosen = {"closest": pairs.closest(24).tolist()}
    once = write_neighbours(tmp_path / "a.png", pairs, images, images, chosen)
    again = write_neighbours(tmp_path / "b.png", pairs, images, images, chosen)
    assert once.read_bytes() == again.read_bytes()
    with Image.open(once) as picture:
        assert picture.width < 12 * 72
        assert picture.height > 3 * 128


def test_pairs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    pairs = found()
    with pytest.raises(ValueError, match="2 pairs need as many"):
        write_neighbours(tmp_path / "a.png", pairs, flat([1], 3), flat([1], 3), {"closest": [0, 1]})
    with pytest.raises(ValueError, match="at least one pair"):
        write_neighbours(tmp_path / "a.png", pairs, flat([], 3), flat([], 3), {"closest": []})

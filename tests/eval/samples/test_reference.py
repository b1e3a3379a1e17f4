"""The cache of reference features hits on the same data and misses when anything behind a number changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lockstep import in_step
from torch import Tensor

from lsgm.data import ImageSet, sha256_of
from lsgm.errors import UserError
from lsgm_eval.samples import reference
from lsgm_eval.samples.reference import (
    all_features,
    cache_key,
    choose,
    data_images,
    extract_together,
    reference_features,
)


class Corners:
    """Three means of an image as features, and a count of the images seen."""

    name, dim, image_shape, resize = "corners", 3, (1, 28, 28), ""

    def __init__(self, sha256: str = "e" * 64) -> None:
        self.sha256, self.seen = sha256, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        x = images.float()[:, 0]
        return torch.stack([x.mean((1, 2)), x[:, :14].mean((1, 2)), x[:, :, :14].mean((1, 2))], dim=1)


def files(folder: Path) -> list[Path]:
    return sorted((folder / "features").glob("*.npz"))


def test_the_second_time_comes_from_the_cache(bars: ImageSet) -> None:
    extractor = Corners()
    first = reference_features(bars, "train", 1, extractor)
    assert extractor.seen == 600
    again = reference_features(bars, "train", 1, extractor)
    assert extractor.seen == 600
    np.testing.assert_array_equal(again.stats.rows, first.stats.rows)
    np.testing.assert_array_equal(again.stats.moments.covariance, first.stats.moments.covariance)
    assert again.sha256 == first.sha256 == sha256_of(data_images(bars, "train", 1))


@pytest.mark.parametrize(
    "other",
    [
        lambda bars: (bars, "test", 1, None, Corners()),
        lambda bars: (bars, "train", 2, None, Corners()),
        lambda bars: (bars, "train", 1, 100, Corners()),
        lambda bars: (bars, "train", 1, None, Corners("f" * 64)),
        lambda bars: (replace(bars, sha256="0" * 64), "train", 1, None, Corners()),
    ],
    ids=["split", "binarisation seed", "rows", "weights", "data"],
)
def test_it_misses_when_anything_changes(bars: ImageSet, other: Callable[..., tuple]) -> None:
    assert cache_key(*other(bars)) != cache_key(bars, "train", 1, None, Corners())


def test_it_misses_when_the_code_changes(bars: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key(bars, "train", 1, None, Corners())
    monkeypatch.setattr(reference, "code_version", lambda *packages: "another")
    assert cache_key(bars, "train", 1, None, Corners()) != before


@pytest.mark.parametrize("damage", ["truncated", "corrupted", "emptied"])
def test_a_damaged_file_is_named_and_made_again(
    bars: ImageSet, damage: str, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extractor = Corners()
    first = reference_features(bars, "train", 1, extractor)
    [path] = files(own_cache)
    content = bytearray(path.read_bytes())
    if damage == "corrupted":
        content[len(content) // 2] ^= 0xFF
    kept = {"truncated": len(content) // 2, "corrupted": len(content), "emptied": 0}[damage]
    path.write_bytes(bytes(content[:kept]))
    again = reference_features(bars, "train", 1, extractor)
    assert extractor.seen == 1200
    assert str(path) in capsys.readouterr().err
    np.testing.assert_array_equal(again.stats.rows, first.stats.rows)


def test_binary_images_are_binarised_once_and_grey_ones_left_alone(bars: ImageSet) -> None:
    binary = data_images(bars, "test", 5)
    assert set(binary.unique().tolist()) == {0, 255}
    assert torch.equal(binary, data_images(bars, "test", 5))
    assert not torch.equal(binary, data_images(bars, "test", 6))
    grey = replace(bars, pixels="uint8")
    assert torch.equal(data_images(grey, "test", 5), bars.splits["test"])


def test_fewer_images_chosen_are_the_first_of_more() -> None:
    assert torch.equal(choose(100, 10, 3), choose(100, 60, 3)[:10])
    assert len(set(choose(100, 100, 3).tolist())) == 100
    assert not torch.equal(choose(100, 10, 3), choose(100, 10, 4))


# Several processes.


@pytest.mark.parametrize("every", [False, True])
def test_all_processes_extract_what_one_would_to_the_last_bit(
    bars: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool
) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "alone"))
    alone = reference_features(bars, "train", 1, Corners(), batch_size=64)
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "three"))
    own = [Corners() for _ in range(3)]
    for _ in range(2):  # the second time it is there
        in_step(
            3,
            lambda world: extract_together(
                bars, "train", 1, own[world.rank], every=every, world=world, batch_size=64
            ),
        )
    assert [extractor.seen for extractor in own] == [216, 192, 192]
    never = Corners()
    found = reference_features(bars, "train", 1, never)
    np.testing.assert_array_equal(found.stats.rows, alone.stats.rows)
    np.testing.assert_array_equal(found.stats.moments.covariance, alone.stats.moments.covariance)
    assert found.sha256 == alone.sha256
    if every:
        rows = all_features(bars, "train", 1, never)
        np.testing.assert_array_equal(rows[:], alone.stats.rows)
    assert never.seen == 0


def test_what_stops_one_process_is_raised_by_all(bars: ImageSet) -> None:
    class Refuses(Corners):
        def __call__(self, images: Tensor) -> Tensor:
            raise UserError("this network takes no bars")

    kinds = [Corners, Refuses]

    def work(world: object) -> str:
        with pytest.raises(UserError, match="takes no bars"):
            extract_together(bars, "train", 1, kinds[world.rank](), world=world)  # type: ignore[attr-defined, arg-type]
        return "told"

    assert in_step(2, work) == ["told", "told"]

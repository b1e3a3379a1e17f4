"""Statistics go out and come back the same, and a file of another space is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lsgm.errors import DataError
from lsgm_eval.frechet import frechet_distance
from lsgm_eval.moments import Moments
from lsgm_eval.statistics_file import UNVERIFIED, read_statistics, write_statistics


@dataclass
class Space:
    name: str = "inception"
    sha256: str = "a" * 64
    dim: int = 6
    image_shape: tuple[int, int, int] = (3, 8, 8)
    resize: str = "bilinear-299"

    def __call__(self, images: Any) -> Any:
        raise AssertionError("reading statistics extracts nothing")


def moments(seed: int = 0) -> Moments:
    rng = np.random.default_rng(seed)
    return Moments.of(3.0 + rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    write_statistics(path, moments(), Space(), dataset="bars@1@ff train")
    found = read_statistics(path, Space())
    assert (found.count, found.dataset, found.remark) == (50, "bars@1@ff train", "")
    assert found.moments.count == 50
    # Through mu = total / N and back: one rounding each.
    np.testing.assert_allclose(found.moments.mean, moments().mean, rtol=1e-15)
    np.testing.assert_allclose(found.moments.covariance, moments().covariance, rtol=1e-15)
    with np.load(path) as file:  # what others look for
        np.testing.assert_array_equal(file["mu"], moments().mean)
        np.testing.assert_array_equal(file["sigma"], moments().covariance)


def test_a_foreign_file_gives_the_same_distance_and_says_that_it_is_unverified(tmp_path: Path) -> None:
    path = tmp_path / "foreign.npz"
    np.savez(path, mu=moments().mean, sigma=moments().covariance, arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    found = read_statistics(path, Space())
    assert (found.count, found.remark) == (None, UNVERIFIED)
    np.testing.assert_allclose(
        frechet_distance(moments(1), found.moments), frechet_distance(moments(1), moments()), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Space(name="dinov2"), "of the extractor inception@a"),
        (Space(sha256="b" * 64), "distances are asked for in inception@b"),
        (Space(resize="bicubic-299"), "resized by 'bilinear-299' and inception resizes by 'bicubic-299'"),
    ],
)
def test_statistics_of_another_space_are_refused(tmp_path: Path, other: Space, said: str) -> None:
    path = tmp_path / "train.npz"
    write_statistics(path, moments(), Space(), dataset="bars")
    with pytest.raises(DataError, match=said) as error:
        read_statistics(path, other)
    assert str(path) in str(error.value)


def arrays(**changes: Any) -> dict[str, Any]:
    return {"mu": moments().mean, "sigma": moments().covariance} | changes


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (arrays(mu=np.zeros(5), sigma=np.eye(5)), r"of 5 features and the extractor inception has 6"),
        (arrays(sigma=np.eye(5)), r"mu \[6\] and sigma \[5, 5\]"),
        (arrays(mu=np.full(6, np.nan)), "not finite"),
        (arrays(sigma=np.triu(np.ones((6, 6)))), "no covariance"),
        (arrays(sigma=-np.eye(6)), "no covariance"),
        (arrays(extractor=np.array("inception")), "has extractor but not count, sha256, dataset, resize"),
        ({"act": np.zeros(3)}, "holds act and not mu and sigma"),
    ],
)
def test_what_is_no_mean_and_covariance_of_this_space_is_named(
    tmp_path: Path, held: dict[str, Any], said: str
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **held)
    with pytest.raises(DataError, match=said):
        read_statistics(path, Space())


def test_a_file_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    with pytest.raises(DataError, match=r"train\.npz are not here"):
        read_statistics(path, Space())
    write_statistics(path, moments(), Space(), dataset="bars")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"train\.npz are damaged"):
        read_statistics(path, Space())

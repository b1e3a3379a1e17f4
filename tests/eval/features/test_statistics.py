"""Statistics go out and come back the same, and a file of another space is refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaged_arrays import FILES

from lsgm.errors import DataError
from lsgm_eval.features.statistics import (
    UNVERIFIED,
    read_statistics,
    space_of,
    statistics_in,
    write_statistics,
)
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.metrics.moments import Moments


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


def ours(**changes: Any) -> dict[str, Any]:
    known = {"count": np.array(50), "extractor": np.array("inception"), "sha256": np.array("a" * 64)}
    return arrays(**known, dataset=np.array("bars"), resize=np.array("bilinear-299")) | changes


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
        (arrays(mu=moments().mean + 0j), "mu in complex128"),
        (arrays(sigma=moments().covariance + 1j), "sigma in complex128"),
        (arrays(sigma=np.eye(6, dtype=np.int64)), "sigma in int64"),
        (arrays(mu=np.zeros(6, bool)), "mu in bool"),
        (arrays(mu=np.zeros(6, "U3")), "mu in <U3"),
        (arrays(mu=np.zeros(6, "M8[s]")), "damaged"),
        (arrays(mu=np.zeros(6, object)), "damaged"),
        (arrays(mu=np.zeros(6, "f8,f8")), "damaged"),
        (arrays(sigma=np.full((6, 6), np.inf)), "not finite"),
        (arrays(sigma=np.eye(6) * 1e300), "beyond 1e"),
        (arrays(mu=np.zeros(6, np.longdouble) + np.longdouble("1e4000")), "beyond 1e"),
        (arrays(mu=np.zeros(0), sigma=np.zeros((0, 0))), "of 0 features"),
        (arrays(mu=np.float64(1.0)), r"mu \[\] and sigma \[6, 6\]"),
        (arrays(mu=np.zeros((6, 1))), r"mu \[6, 1\]"),
        (ours(count=np.array(50.0)), "count that is no whole number"),
        (ours(count=np.array([50])), "count that is no whole number"),
        (ours(count=np.array("50")), "count that is no whole number"),
        (ours(count=np.array(True)), "count that is no whole number"),
        (ours(count=np.array(1)), "of 1 images"),
        (ours(count=np.array(-3)), "of -3 images"),
        (ours(count=np.array(2**62)), "of 4611686018427387904 images"),
        (ours(count=np.array(2**64 - 1, np.uint64)), "of 18446744073709551615 images"),
        (ours(extractor=np.array(3)), "'extractor' is int64"),
        (ours(sha256=np.array(["a", "b"])), "must be one text"),
        (ours(dataset=np.array("a\x1b[2Jb")), "'dataset' that is no line of text"),
        (ours(dataset=np.array("a" * 5000)), "'dataset' that is no line of text"),
        (ours(resize=np.array(b"bilinear-299")), r"'resize' is \|S12"),
    ],
)
def test_what_is_no_mean_and_covariance_of_this_space_is_named(
    tmp_path: Path, held: dict[str, Any], said: str
) -> None:
    path = tmp_path / "bad.npz"
    np.savez(path, **held)
    with pytest.raises(DataError, match=said) as error:
        read_statistics(path, Space())
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("damage", FILES)
def test_a_file_of_another_kind_is_refused_at_once(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train.npz"
    write_statistics(path, moments(), Space(), dataset="bars")
    FILES[damage](path)
    for read in (lambda: read_statistics(path, Space()), lambda: space_of(path)):
        with pytest.raises(DataError, match=r"train\.npz (are|is|holds)"):
            read()
    listed = damage in ("flipped", "encrypted")  # what is wrong is within the members
    assert bool(statistics_in(path)) == listed


def test_statistics_beyond_the_limit_are_refused_with_what_raises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.npz"
    np.savez_compressed(path, mu=np.zeros(400), sigma=np.zeros((400, 400)))
    monkeypatch.setenv("LSGM_LARGEST_STATISTICS", "1000000")
    with pytest.raises(DataError, match=r"1,283,.* set LSGM_LARGEST_STATISTICS=1283"):
        space_of(path)


def test_statistics_that_are_kept_again_put_a_folder_aside(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    path.mkdir()
    (path / "mine").write_text("kept")
    write_statistics(path, moments(), Space(), dataset="bars")
    assert read_statistics(path, Space()).count == 50
    assert [file.read_text() for file in tmp_path.glob("train.npz.aside-*/mine")] == ["kept"]


def test_a_file_that_is_missing_or_cut_short_is_named(tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    with pytest.raises(DataError, match=r"train\.npz are not here"):
        read_statistics(path, Space())
    write_statistics(path, moments(), Space(), dataset="bars")
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"train\.npz are damaged"):
        read_statistics(path, Space())

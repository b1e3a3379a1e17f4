"""Distances of two models paired seed by seed, from what their passes have kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval.compare.result_rows import row
from numpy.typing import NDArray

from lsgm_eval.cache import write_kept
from lsgm_eval.compare.numbers import Shelf, paired_distance
from lsgm_eval.metrics.difference import Difference, compare_frechet, compare_kernel
from lsgm_eval.metrics.frechet import frechet_distance
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import FeatureStats, Moments
from lsgm_eval.samples.collect import Collector

DIM, N = 5, 120
PIXELS = "f" * 64
EXTRACTOR = f"glyphs-features@{'e' * 64}"
Features = NDArray[np.float32]


def features(seed: int, shift: float = 0.0, n: int = N) -> Features:
    rng = np.random.default_rng(seed)
    return (shift + rng.normal(size=(n, DIM)) * np.linspace(0.5, 1.5, DIM)).astype(np.float32)


A = features(0, 0.3)
B = A + np.float32(0.1) * features(1)
REFERENCE = features(2, n=300)
OTHER = features(3)


def keep(folder: Path, own: Features, *, processes: int = 1, model: str = "lsgm") -> Path:
    """Write what a pass leaves behind: features of one set of images in two spaces."""
    spaces = {f"other@{'0' * 64}": OTHER, EXTRACTOR: own}
    (folder / "passes").mkdir(parents=True)
    for rank in range(processes):
        numbers = np.arange(rank, N, processes)
        arrays: dict[str, Any] = {"key": "k", "numbers": numbers, "nfe": np.zeros(len(numbers))}
        for label, space in spaces.items():
            collector = Collector(DIM)
            collector.add(space[numbers], numbers)
            arrays |= {f"{label}/features/{name}": value for name, value in collector.state().items()}
        suffix = f"-{rank}-of-{processes}" if processes > 1 else ""
        np.savez(folder / "passes" / f"{model}{suffix}.npz", **arrays)
    return folder


@pytest.fixture(autouse=True)
def reference(own_cache: Path) -> Path:
    """Put the reference's features, and those of another space, into the cache."""
    (own_cache / "features").mkdir()
    for name, found in ((f"other@{'0' * 64}", features(9, n=300)), (EXTRACTOR, REFERENCE)):
        texts = {"sha256": np.array(PIXELS), "extractor": np.array(name)}
        arrays = {"rows": found, **texts, **Moments.of(found).arrays()}
        write_kept(own_cache / "features" / f"{name[:5]}.npz", arrays, sealed=True)
    return own_cache / "features" / f"{EXTRACTOR[:5]}.npz"


def rows(family: str, a: Features = A, b: Features = B) -> tuple[dict[str, Any], dict[str, Any]]:
    def value(x: Features) -> float:
        if family == "kernel":
            return kernel_distance(x, REFERENCE).value
        return frechet_distance(Moments.of(x), Moments.of(REFERENCE))

    fields = {"seeds": f"0-{N - 1}", "n": N, "reference_sha256": PIXELS, "extractor": EXTRACTOR}
    first, second = (row(f"{family}_glyphs", value(x), **fields) for x in (a, b))
    return first, second


def paired(a: Path, b: Path, found: tuple[dict[str, Any], dict[str, Any]]) -> Difference | str:
    told = paired_distance((a, b), ("lsgm", "lsgm"), found, Shelf())
    return told if isinstance(told, str) else told[0]


@pytest.mark.parametrize("family", ["frechet", "kernel"])
@pytest.mark.parametrize("processes", [1, 3])
def test_distances_of_the_same_seeds_are_paired(tmp_path: Path, family: str, processes: int) -> None:
    places = [keep(tmp_path / name, x, processes=processes) for name, x in (("a", A), ("b", B))]
    found = paired(*places, rows(family))
    a, b = (FeatureStats(Moments.of(x), x) for x in (A, B))
    if family == "kernel":
        oracle = compare_kernel(B, A, REFERENCE, paired=True).difference
    else:
        oracle = compare_frechet(b, a, Moments.of(REFERENCE), paired=True).difference
    assert isinstance(found, Difference)
    assert (found.value, found.low, found.high) == pytest.approx((oracle.value, oracle.low, oracle.high))


def test_features_that_do_not_give_the_recorded_distance_are_not_its_own(tmp_path: Path) -> None:
    a, b = keep(tmp_path / "a", A), keep(tmp_path / "b", OTHER)
    assert paired(a, b, rows("frechet")) == (
        "unpaired: what was gathered of the images gives other values than the rows"
    )


def test_other_seeds_are_not_paired(tmp_path: Path) -> None:
    a, b = keep(tmp_path / "a", A), keep(tmp_path / "b", B)
    first, second = rows("frechet")
    found = paired(a, b, (first, replace(second, seeds=f"1-{N}")))
    assert found == f"unpaired: other seeds, 0-{N - 1} and 1-{N}"


def test_what_is_gone_unfinished_or_damaged_is_not_paired(tmp_path: Path, reference: Path) -> None:
    a, b = keep(tmp_path / "a", A), keep(tmp_path / "b", B)
    kept = b / "passes" / "lsgm.npz"
    whole, gone = kept.read_bytes(), "unpaired: what was gathered of the images of B is gone"
    kept.write_bytes(whole[: len(whole) // 2])
    assert paired(a, b, rows("frechet")) == gone
    with np.load(a / "passes" / "lsgm.npz") as file:
        fewer = {"numbers": file["numbers"][:-1], "nfe": file["nfe"][:-1]}
        others = {"numbers": file["numbers"] + 1}
        for change in (fewer, others, {"numbers": fewer["numbers"]}):
            np.savez(kept, **{**file, **change})
            assert paired(a, b, rows("frechet")) == gone
    kept.unlink()
    assert paired(a, b, rows("frechet")) == gone
    kept.write_bytes(whole)
    assert isinstance(paired(a, b, rows("frechet")), Difference)
    reference.unlink()
    assert paired(a, b, rows("frechet")) == "unpaired: the features of the reference are not in the cache"


def test_a_point_of_a_curve_has_kept_nothing(tmp_path: Path) -> None:
    a, b = keep(tmp_path / "a", A), keep(tmp_path / "b", B)
    first, second = rows("frechet")
    assert paired(a, b, (replace(first, group="curve"), replace(second, group="curve"))) == "unpaired"


def test_what_an_earlier_version_kept_by_place_is_as_good_as_gone(tmp_path: Path) -> None:
    """Its arrays are called after the extractor's place in the call, which says of no space what they are."""
    a, b = keep(tmp_path / "a", A), keep(tmp_path / "b", B)
    kept = a / "passes" / "lsgm.npz"
    with np.load(kept) as file:
        np.savez(kept, **{name.replace(EXTRACTOR, "0"): array for name, array in file.items()})
    assert paired(a, b, rows("frechet")) == "unpaired: what was gathered of the images of A is gone"

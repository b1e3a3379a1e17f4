"""The benchmark of intervals: every law runs, its answers are right, and real features join them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lsgm.errors import ConfigError, DataError
from lsgm_eval.bench.coverage import run
from lsgm_eval.bench.laws import Law, coverage, lognormal_mmd, worlds
from lsgm_eval.metrics.intervals import Interval
from lsgm_eval.metrics.kernel import kernel_distance


def test_shares_are_of_intervals_that_end_too_soon() -> None:
    ends = iter([(0.0, 2.0), (1.5, 2.0), (0.0, 0.5), (0.5, 1.0)])

    def draw(rng: np.random.Generator) -> Interval:
        low, high = next(ends)
        return Interval((low + high) / 2, low, high, 1.0)

    found = coverage(Law("mean", "given", 3, 1, draw, 1.0), 4, 0)
    assert (found["covered"], found["below"], found["above"]) == (0.5, 0.25, 0.25)


@pytest.mark.parametrize(("dim", "sigma"), [(1, 0.3), (5, 0.5)])
def test_the_distance_of_lognormal_features_is_that_of_many(dim: int, sigma: float) -> None:
    x, y = np.random.default_rng(0).lognormal(0, sigma, (2, 1500, dim))
    found = kernel_distance(1.3 * x, y)
    assert found.value == pytest.approx(lognormal_mmd(1.3, dim, sigma), abs=4 * found.standard_error)
    assert lognormal_mmd(1.0, dim, sigma) == 0


def test_means_of_the_laws_are_the_laws() -> None:
    for world in worlds():
        if world.statistic == "mean":
            rng = np.random.default_rng(1)
            values = [world.draw(rng).value for _ in range(1000)]
            assert world.truth is not None
            assert np.mean(values) == pytest.approx(world.truth, abs=4.5 * np.std(values) / np.sqrt(1000))


def test_every_law_and_ones_own_features_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, file = np.random.default_rng(2), tmp_path / "mine.npz"
    np.savez(file, model=rng.normal(0.5, 1, (60, 4)), reference=rng.normal(size=(80, 4)))
    ask = ["--repeats", "2", "--features", str(file), "--images", "20"]
    assert run([*ask, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len(list(worlds())) + 2
    assert {(row["statistic"], row["n"], row["dim"]) for row in rows if row["law"] == "mine"} == {
        ("Frechet", 20, 4),
        ("kernel", 20, 4),
    }
    assert run(ask) == 0
    assert "| kernel | mine | 20 | 4 | " in capsys.readouterr().out


def test_two_populations_are_covered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The distance of finite populations counts an image with itself: draws may repeat it."""
    rng, file = np.random.default_rng(3), tmp_path / "few.npz"
    np.savez(file, model=rng.normal(0.8, 1, (12, 3)), reference=rng.normal(size=(10, 3)))
    monkeypatch.setattr("lsgm_eval.bench.laws.worlds", lambda: iter(()))
    run(["--repeats", "150", "--features", str(file), "--images", "60", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    # 150 repeats have a standard error of 1.8 points.
    assert all(row["covered"] > 0.95 - 4 * 0.018 for row in rows)


def test_what_cannot_be_drawn_from_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="images is '2,x'; give whole numbers of 3 or more"):
        run(["--images", "2,x"])
    with pytest.raises(ConfigError, match="repeats is 1"):
        run(["--repeats", "1"])
    np.savez(tmp_path / "odd.npz", model=np.zeros((3, 2)))
    np.savez(tmp_path / "complex.npz", model=np.ones((3, 2)), reference=np.ones((3, 2), np.complex64))
    for name in ("odd.npz", "none.npz", "complex.npz"):
        with pytest.raises(DataError, match=f"{name} is no npz with arrays 'model' and 'reference'"):
            run(["--features", str(tmp_path / name)])

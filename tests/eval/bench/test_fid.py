"""The benchmark of sample quality: every part runs, its ways agree, and bad options are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inception import Script, random_script

from lsgm.errors import ConfigError
from lsgm_eval.bench import fid_ways
from lsgm_eval.bench.fid import run
from lsgm_eval.bench.fid_memory import FreeFeatures, FreeImages
from lsgm_eval.bench.fid_ways import LETTERS, SPECTRA, feature_moments, random_state, take_turns
from lsgm_eval.bench.options import PARTS, FidBenchOptions
from lsgm_eval.features.published import FidelityInception

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TINY = ["--dim", "12", "--rows", "40", "--counts", "20,60", "--images", "2", "--batch", "2", "--repeats", "1"]
TINY += ["--files", "12"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(1), path)
    return path


def rows_of(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert run([*TINY, *argv, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_distances_of_all_ways_agree_on_every_spectrum(
    capsys: pytest.CaptureFixture[str], glyphs_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(glyphs_cache))
    rows = rows_of(capsys, "--only", "distance")
    assert {row["spectrum"] for row in rows} == {*SPECTRA, LETTERS}
    assert len(rows) == 5 * (len(SPECTRA) + 1)
    for row in rows:
        # Roots of eigenvalues that should be 0 are 1e-8 each in other packages' ways.
        assert row["difference"] < (1e-8 if row["way"].startswith("this package") else 1e-5)
        assert (row["dim"], row["rows"], row["bench"]) == (12, 40, "fid")
        assert row["seconds"] > 0
        assert {"processor", "threads", "load", "torch-fidelity", "clean-fid", "scipy"} <= set(row)


def test_two_sets_of_features_have_the_spectrum_asked_for() -> None:
    a, b = feature_moments("1/k", 6, 40_000, seed=1)
    found = np.linalg.eigvalsh(a.covariance)[::-1]
    # A variance of 40,000 draws is known to 0.7 %.
    np.testing.assert_allclose(found, 1 / np.arange(1, 7), rtol=0.03)
    assert b.covariance.trace() == pytest.approx(1.21 * a.covariance.trace(), rel=0.03)


def test_files_are_read_by_every_way_at_both_sizes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(capsys, "--only", "reading")
    assert [(row["size"], row["files"]) for row in rows] == [(32, 12)] * 3 + [(256, 2)] * 3
    decided = [row for row in rows if row.get("target") == "reading"]
    assert {row["way"] for row in decided} == {"this package, two workers"}
    assert all(row["target_value"] == row["loop_over"] > 0 for row in decided)


def test_memory_is_measured_for_every_number_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(capsys, "--only", "memory", "--counts", "20")
    assert [row["images"] for row in rows] == [20]
    assert rows[0]["peak_bytes"] == rows[0]["before_bytes"] + rows[0]["rise_bytes"] > 0


def test_a_free_model_draws_the_same_image_for_a_seed_in_any_company() -> None:
    model = FreeImages(fid_ways.pictures(5, 8, seed=1))
    together = model.sample([7, 3], fid_ways.SAMPLER).images
    assert torch.equal(together[1], model.sample([3], fid_ways.SAMPLER).images[0])
    assert torch.equal(together[0], model.table[2])
    assert FreeFeatures((3, 8, 8), 4)(together).shape == (2, 4)


def test_random_weights_make_an_inception_that_sees_its_image(weights: Path) -> None:
    features = FidelityInception(str(weights))(fid_ways.pictures(2, 32, seed=2))
    assert features.shape == (2, 2048)
    assert float((features[0] - features[1]).abs().max()) > 0.01


def test_the_pass_and_the_packages_are_timed_on_the_same_images(
    weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A few layers in clean-fid's format, because tracing the whole network takes seconds.
    monkeypatch.setattr(fid_ways, "write_script", lambda state, path: random_script(path, Script()))
    # Of two images covariances have rank one, and so has their product: its one eigenvalue is its trace.
    monkeypatch.setattr(np.linalg, "eigvals", lambda product: np.array([np.trace(product)]))
    rows = rows_of(capsys, "--only", "pass,packages", "--weights", str(weights))
    whole = [(row["way"], row["images"]) for row in rows if row["part"] == "pass"]
    assert whole == [("extractor alone", 2), ("whole pass", 2)]
    compared = [(row["with"], row["result"]) for row in rows if row["part"] == "packages"][::2]
    assert compared == [
        ("torch-fidelity", "features"),
        ("clean-fid", "features"),
        ("torch-fidelity", "distance"),
    ]
    for row in rows:
        if row["part"] == "packages":
            # Features agree to float32's rounding, and so does the distance that follows from them.
            assert row["difference"] < 1e-6


def test_the_page_has_a_table_for_each_part_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*TINY, "--only", "reading"]) == 0
    page = capsys.readouterr().out
    assert "## Reading image files" in page
    assert "## Files end to end" not in page
    assert "clean-fid 0." in page


def test_a_round_takes_every_way_and_the_next_begins_with_another() -> None:
    order: list[str] = []
    timed = take_turns({n: lambda n=n: order.append(n) or n for n in "ab"}, 2, desc="", warm=["b"])  # type: ignore[misc]
    assert order == ["b", "a", "b", "b", "a"]
    assert [(len(times.wall), times.value) for times in timed.values()] == [(2, "a"), (2, "b")]
    assert timed["a"].as_row(timed["a"])["over_ours"] == 1


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("only", "distnce", "did you mean 'distance'"),
        ("dim", 1, "dim is 1; give at least 2"),
        ("repeats", 0, "repeats is 0"),
        ("counts", "10,x", "counts is '10,x'"),
        ("counts", ",", "counts lists no number"),
    ],
)
def test_bad_options_are_refused_with_what_to_give(option: str, value: Any, said: str) -> None:
    assert FidBenchOptions().parts == list(PARTS)
    with pytest.raises(ConfigError, match=said):
        FidBenchOptions(**{option: value})

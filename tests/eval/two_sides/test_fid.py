"""`lsgm fid` and `lsgm_eval.fid`: both sides of every kind, against the definitions and torch-fidelity."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from oracles.distances import frechet_of_features
from PIL import Image
from torch import Tensor

import lsgm_eval
from lsgm.data import ImageSet, sha256_of
from lsgm.data.splits import subset
from lsgm.errors import DataError, UserError
from lsgm.results.files import read_rows
from lsgm_eval.commands import fid as command
from lsgm_eval.features.published import ensure_torchvision
from lsgm_eval.features.statistics import write_statistics
from lsgm_eval.metrics.kernel import kernel_distance
from lsgm_eval.metrics.moments import Moments
from lsgm_eval.metrics.precision_recall import precision_recall
from lsgm_eval.two_sides import sides as side


class Corners:
    """Means of every channel's four quarters, and of its halves as spatial features; any size and colour."""

    resize, image_shape, dim, spatial_dim = "tensorflow1-bilinear-299", (3, None, None), 12, 6

    def __init__(self, name: str = "inception", official: bool = True) -> None:
        self.name, self.official, self.sha256, self.seen = name, official, name[-1] * 64, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        x = images.expand(-1, 3, -1, -1).double() / 255
        h, w = x.shape[2] // 2, x.shape[3] // 2
        parts = (x[..., :h, :w], x[..., :h, w:], x[..., h:, :w], x[..., h:, w:])
        return torch.cat([part.mean((2, 3)) for part in parts], dim=1).float()

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self(images)
        return features, features[:, :6] + features[:, 6:]


NET = Corners()


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> dict[str, Corners]:
    """Let the networks be small ones; ``absent`` ones are not here."""
    found = {"inception": Corners(), "inception-clean": Corners("inception-clean")}

    def load(word: str, shape: Any, *, device: Any = "cpu") -> Corners:
        if word not in found:
            raise DataError(f"{word}.pth is not here; looked for /data/{word}.pth; run `curl {word}`")
        return found[word]

    monkeypatch.setattr(side, "load_extractor", load)
    return found


def pictures(count: int, seed: int, shape: tuple[int, int, int] = (3, 8, 8)) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    low = torch.randint(0, 100 + 50 * (seed % 3), (count, shape[0], 1, 1), generator=draw)
    return (low + torch.randint(0, 50, (count, *shape), generator=draw)).to(torch.uint8)


REAL, MADE = pictures(120, 1), pictures(90, 2)


def as_folder(images: Tensor, path: Path) -> Path:
    path.mkdir()
    for number, image in enumerate(images):
        grey = image[0] if len(image) == 1 else image.permute(1, 2, 0)
        Image.fromarray(grey.numpy()).save(path / f"{number:05d}.png")
    return path


def as_zip(images: Tensor, path: Path) -> Path:
    folder = as_folder(images, path.with_suffix(""))
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


def as_npz(images: Tensor, path: Path, **more: Any) -> Path:
    np.savez(path, arr_0=images.permute(0, 2, 3, 1).numpy(), **more)
    return path


def as_npy(images: Tensor, path: Path) -> Path:
    np.save(path, images.permute(0, 2, 3, 1).numpy())
    return path


WAYS: dict[str, Callable[[Tensor, Path], Any]] = {
    "folder": lambda images, path: as_folder(images, path / "folder"),
    "zip": lambda images, path: as_zip(images, path / "zipped.zip"),
    "npz": lambda images, path: as_npz(images, path / "images.npz"),
    "npy": lambda images, path: as_npy(images, path / "images.npy"),
    "tensor": lambda images, path: images,
    "array": lambda images, path: images.numpy(),
}


@pytest.mark.parametrize("samples", WAYS)
def test_images_of_every_kind_give_the_numbers_of_the_definitions(samples: str, tmp_path: Path) -> None:
    """The oracles are the functions that are themselves held against torch-fidelity's and clean-fid's."""
    found = lsgm_eval.fid(as_npz(REAL, tmp_path / "real.npz"), WAYS[samples](MADE, tmp_path))
    x, y = NET(MADE).numpy(), NET(REAL).numpy()
    assert found["fid"].value == pytest.approx(frechet_of_features(x, y), rel=1e-9)
    assert found["fid_clean"].value == found["fid"].value  # of the same stand-in
    assert found["kid"].value == pytest.approx(kernel_distance(x, y).value, rel=1e-9)
    expected = precision_recall(x, y)
    assert found["precision"].value == expected.precision.value
    assert (found["recall"].value, found["recall"].low) == (expected.recall.value, expected.recall.low)
    spatial = [NET.with_spatial(images)[1].numpy() for images in (MADE, REAL)]
    assert found["sfid"].value == pytest.approx(frechet_of_features(*spatial), rel=1e-9)
    assert found.value == found["fid"].value
    for number in found.numbers:
        counts = number.counts
        assert (counts.samples, counts.samples_of) == (90, 90)
        assert (counts.reference, counts.reference_of) == (120, 120)
        assert number.low <= number.value <= number.high


def test_fid_and_kid_are_torch_fidelitys(tmp_path: Path) -> None:
    ensure_torchvision()
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    found = lsgm_eval.fid(as_folder(REAL, tmp_path / "real"), as_folder(MADE, tmp_path / "made"))
    statistics = [fid_features_to_statistics(NET(images)) for images in (MADE, REAL)]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert found["fid"].value == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("first", ["folder", "npz"])
@pytest.mark.parametrize("second", ["folder", "zip", "npy", "tensor"])
def test_the_same_images_are_at_distance_0_however_they_are_stored(
    first: str, second: str, tmp_path: Path
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    found = lsgm_eval.fid(WAYS[first](REAL, tmp_path / "a"), WAYS[second](REAL, tmp_path / "b"))
    assert (found["fid"].value, found["fid_clean"].value, found["sfid"].value) == (0, 0, 0)
    assert (found["precision"].value, found["recall"].value) == (1, 1)
    folder = as_folder(MADE, tmp_path / "made")
    assert lsgm_eval.fid(folder, folder, images=50)["fid"].value == 0


def test_the_order_of_storage_has_no_say(tmp_path: Path) -> None:
    order = torch.randperm(len(MADE), generator=torch.Generator().manual_seed(0))
    stored = lsgm_eval.fid(REAL, MADE), lsgm_eval.fid(REAL.flip(0), MADE[order])
    for number in stored[0].numbers:
        other = stored[1][number.metric]
        # Sums in another order; the error of recall comes from subsets by place.
        assert number.value == pytest.approx(other.value, rel=1e-9)
        if number.metric != "recall":
            assert number.low == pytest.approx(other.low, rel=1e-6)


def test_a_subset_is_uniform_seeded_and_said(tmp_path: Path) -> None:
    found = lsgm_eval.fid(REAL, MADE, images=40, seed=3)
    taken = [images[torch.from_numpy(subset(len(images), 40, 3))] for images in (MADE, REAL)]
    expected = frechet_of_features(*(NET(images).numpy() for images in taken))
    assert found["fid"].value == pytest.approx(expected, rel=1e-9)
    counts = found["fid"].counts
    assert (counts.samples, counts.samples_of, counts.reference, counts.reference_of) == (40, 90, 40, 120)
    assert "40 of the 90 images of samples, a uniform subset drawn with seed 3" in found["fid"].note
    assert "40 of the 120 images of reference, a uniform" in found["fid"].note
    whole = lsgm_eval.fid(REAL, MADE, images=40, reference_images="all", seed=3)["fid"].counts
    assert (whole.samples, whole.reference) == (40, 120)
    with pytest.raises(UserError, match="samples has 90 images and 100 are asked for"):
        lsgm_eval.fid(REAL, MADE, images=100)
    with pytest.raises(UserError, match="images is 1; a distance needs at least 2"):
        lsgm_eval.fid(REAL, MADE, images=1)


def test_too_few_images_for_the_dimension_are_said() -> None:
    note = lsgm_eval.fid(REAL, MADE, images=10)["fid"].note
    assert "upward bias at this n about" in note
    assert "the covariance is singular (10 images in 12 dimensions" in note
    few = lsgm_eval.fid(REAL, MADE, images=2)
    assert few["fid"].value is not None or "ask for more" in few["fid"].note
    assert "at least 3 images" in few["kid"].note
    assert "3 nearest neighbours cannot be found among 2 images" in few["precision"].note
    assert "at least 10 images" in lsgm_eval.fid(REAL, MADE, images=9)["precision"].note


@pytest.fixture
def statistics(tmp_path: Path) -> Callable[..., Path]:
    """Return a writer of files of statistics of some images: ours, or as others write them."""

    def write(name: str, images: Tensor, kind: str, net: Corners = NET) -> Path:
        pooled, spatial = (Moments.of(rows.numpy()) for rows in net.with_spatial(images))
        path = tmp_path / f"{name}.npz"
        if kind == "ours":
            write_statistics(path, pooled, net, dataset="real@1@ff train", spatial=spatial)
            return path
        arrays = {"mu": pooled.mean, "sigma": pooled.covariance}
        if kind == "adm":
            arrays |= {"mu_s": spatial.mean, "sigma_s": spatial.covariance}
            arrays["arr_0"] = images[:70].permute(0, 2, 3, 1).numpy()
        np.savez(path, **arrays)
        return path

    return write


@pytest.mark.parametrize("kind", ["ours", "foreign", "adm"])
def test_statistics_give_the_frechet_distances_of_their_images(
    kind: str, statistics: Callable[..., Path]
) -> None:
    of_images = lsgm_eval.fid(REAL, MADE)
    found = lsgm_eval.fid(statistics("real", REAL, kind), MADE)
    assert found["fid"].value == pytest.approx(of_images["fid"].value, rel=1e-9)
    assert found["fid"].low == pytest.approx(of_images["fid"].low, rel=1e-6)
    if kind != "foreign":
        assert found["sfid"].value == pytest.approx(of_images["sfid"].value, rel=1e-9)
    else:
        assert found["sfid"].value is None
        assert "without statistics of spatial features (mu_s, sigma_s)" in found["sfid"].note
    if kind == "adm":
        expected = precision_recall(NET(MADE).numpy(), NET(REAL[:70]).numpy())
        assert found["precision"].value == expected.precision.value
        assert found["precision"].counts.reference == 70
        assert found["fid"].counts.reference is None
        # Of another network the file's images serve, and the note says which they are.
        clean = lsgm_eval.fid(REAL[:70], MADE)["fid_clean"]
        assert found["fid_clean"].value == pytest.approx(clean.value, rel=1e-9)
        assert found["fid_clean"].counts.reference == 70
    else:
        for metric in ("kid", "precision", "recall"):
            assert found[metric].value is None
            assert "the reference is a file of mean and covariance" in found[metric].note
        assert len(found.not_measured) == 1
        assert found.not_measured[0].startswith("inception-clean: ")
    assert ("unverified extractor" in found["fid"].note) == (kind != "ours")


def test_statistics_of_samples_have_no_interval_and_two_files_need_no_network(
    statistics: Callable[..., Path], opened: dict[str, Corners]
) -> None:
    expected = lsgm_eval.fid(REAL, MADE)
    for kind in ("ours", "foreign"):
        made = statistics(f"made-{kind}", MADE, kind)
        one_sided = lsgm_eval.fid(REAL, made)
        assert one_sided["fid"].value == pytest.approx(expected["fid"].value, rel=1e-9)
        assert "the samples are a file of mean and covariance" in one_sided["kid"].note
        if kind == "foreign":
            assert one_sided["fid"].low is None
            assert "no interval: mean and covariance do not tell" in one_sided["fid"].note
    opened.clear()
    ours = lsgm_eval.fid(statistics("real", REAL, "ours"), statistics("made", MADE, "ours"))
    assert ours.numbers[0].value == pytest.approx(expected["fid"].value, rel=1e-9)
    foreign = lsgm_eval.fid(statistics("a", REAL, "foreign"), statistics("b", MADE, "foreign"))
    assert foreign["frechet_statistics"].value == pytest.approx(expected["fid"].value, rel=1e-9)
    with pytest.raises(UserError, match="both sides are statistics, whose network is fixed"):
        lsgm_eval.fid(statistics("a", REAL, "foreign"), statistics("b", MADE, "foreign"), extractor="glyphs")
    same = statistics("same", REAL, "adm")
    with pytest.raises(DataError, match="is not here"):
        lsgm_eval.fid(same, same)  # it has images as well, of which the rest is measured


def test_two_files_of_the_size_of_inception_are_of_the_protocol_that_they_are_named_by(
    tmp_path: Path, opened: dict[str, Corners], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.clear()
    assert side.INCEPTION_DIM == 2048
    monkeypatch.setattr(side, "INCEPTION_DIM", 128)  # which is as good, and sooner done
    draw = np.random.default_rng(0)
    for name, shift in (("real", 0.0), ("made", 1.0), ("made_clean", 1.0)):
        rows = draw.normal(size=(40, 128)) + shift
        np.savez(tmp_path / f"{name}.npz", mu=rows.mean(0), sigma=np.diag(rows.var(0, ddof=1)))
    first, second, clean = (tmp_path / f"{name}.npz" for name in ("real", "made", "made_clean"))
    found = lsgm_eval.fid(first, second)
    shift = np.load(second)["mu"] - np.load(first)["mu"]
    roots = [np.sqrt(np.diagonal(np.load(path)["sigma"])) for path in (first, second)]
    expected = float(shift @ shift) + float(((roots[0] - roots[1]) ** 2).sum())  # diagonal covariances
    assert found["fid"].value == pytest.approx(expected, rel=1e-7)
    assert found["fid"].low is None
    assert lsgm_eval.fid(clean, clean)["fid_clean"].value == 0
    with pytest.raises(DataError, match=r"by their names .* are of different protocols"):
        lsgm_eval.fid(first, clean)
    assert lsgm_eval.fid(first, clean, extractor="inception")["fid"].value > 0


def test_the_same_file_of_statistics_and_images_is_at_distance_0(statistics: Callable[..., Path]) -> None:
    same = statistics("same", REAL, "adm")
    found = lsgm_eval.fid(same, same)
    assert (found["fid"].value, found["fid_clean"].value, found["sfid"].value) == (0, 0, 0)


def test_statistics_of_another_network_are_refused_in_its_name(statistics: Callable[..., Path]) -> None:
    other = statistics("other", REAL, "ours", Corners("dinov2"))
    with pytest.raises(DataError, match="of the extractor dinov2@2"):
        lsgm_eval.fid(other, MADE)
    named = lsgm_eval.fid(statistics("cifar10_clean_train", REAL, "foreign"), MADE)  # as clean-fid names them
    assert [number.metric for number in named.numbers][:1] == ["fid_clean"]
    assert "inception: " in named.not_measured[0]
    foreign = statistics("foreign", REAL, "foreign")
    alone = lsgm_eval.fid(foreign, MADE, extractor="inception-clean")
    assert alone["fid_clean"].value == pytest.approx(lsgm_eval.fid(REAL, MADE)["fid"].value, rel=1e-9)


def test_the_call_gives_a_row_of_a_frame() -> None:
    found = lsgm_eval.fid(REAL, MADE)
    frame = found.frame()
    assert isinstance(frame, pd.DataFrame)
    assert len(frame) == 1
    row = frame.iloc[0]
    assert (row["n"], row["reference_n"], row["samples"]) == (90, 120, "samples")
    assert row["fid_low"] <= row["fid"] <= row["fid_high"]
    assert found.row()["kid"] == found["kid"].value
    with pytest.raises(UserError, match="no 'fed' was measured; did you mean 'fid'"):
        found["fed"]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (MADE.float(), "is torch.float32 and images are uint8"),
        (MADE.permute(0, 2, 3, 1), r"has shape \[90, 8, 8, 3\] .*: move the channels to the front"),
        (MADE[0], r"has shape \[3, 8, 8\]"),
        (MADE[:0], r"has shape \[0, 3, 8, 8\]"),
        (None, "is a NoneType and no tensor or array"),
        ([MADE], "is a list and no tensor or array"),
        (np.array([None]), "is a ndarray and no tensor or array"),
        (MADE // 255, "has no value above 1"),
    ],
    ids=["floats", "channels last", "one image", "none", "nothing", "a list", "objects", "levels"],
)
def test_arrays_that_are_no_images_are_refused(images: Any, said: str) -> None:
    with pytest.raises(DataError, match=f"samples {said}"):
        lsgm_eval.fid(REAL, images)


def test_a_protocol_that_resizes_says_what_it_does(opened: dict[str, Corners]) -> None:
    note = lsgm_eval.fid(REAL, pictures(30, 4, (3, 12, 16)))["fid"].note
    assert "images of different size (reference 3x8x8 and samples 3x12x16) are each resized" in note
    assert "rectangles are made square" in note
    grey = lsgm_eval.fid(REAL, pictures(30, 4, (1, 8, 8)))["fid"].note
    assert "the grey images of samples are repeated over three channels" in grey
    opened["inception"].image_shape = (3, 8, 8)  # one that does not
    said = "the images of samples are 3x12x16 and those of reference are 3x8x8, and inception takes 3x8x8"
    with pytest.raises(UserError, match=said):
        lsgm_eval.fid(REAL, pictures(30, 4, (3, 12, 16)))


def test_without_weights_the_other_protocol_is_measured_and_without_any_it_ends(
    opened: dict[str, Corners], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    del opened["inception"]
    words = [str(as_folder(REAL, tmp_path / "real")), str(as_folder(MADE, tmp_path / "made"))]
    assert command.run(words) == 0
    captured = capsys.readouterr()
    assert "fid_clean" in captured.out
    missing = "lsgm: not measured: inception: inception.pth is not here; looked for /data/inception.pth; run"
    assert missing in captured.err
    del opened["inception-clean"]
    with pytest.raises(DataError, match=r"inception\.pth is not here.*inception-clean\.pth is not here"):
        command.run(words)
    with pytest.raises(UserError, match="unknown feature extractor 'incepton'; did you mean 'inception'"):
        command.run([*words, "--extractor", "incepton"])


@pytest.mark.parametrize("dtype", [">u2", "float32", "bool", "U1", "complex64", "uint32"])
def test_arrays_of_other_types_are_refused_in_a_sentence(dtype: str) -> None:
    with pytest.raises(DataError, match=r"reference is .* and images are uint8 in 0\.\.255: round them"):
        lsgm_eval.fid(np.zeros((20, 3, 8, 8), dtype), MADE)


@pytest.mark.filterwarnings("error")
def test_arrays_that_may_not_be_written_to_are_measured(opened: dict[str, Corners]) -> None:
    images = REAL.numpy()[::-1]
    images.flags.writeable = False
    assert lsgm_eval.fid(REAL, images).value == pytest.approx(0, abs=1e-6)


def test_a_single_image_is_no_set(opened: dict[str, Corners], tmp_path: Path) -> None:
    one, many = as_folder(REAL[:1], tmp_path / "one"), as_folder(MADE, tmp_path / "many")
    for words in ([one, many], [many, one]):
        with pytest.raises(UserError, match="one has 1 image: a distance is of sets, give at least 2"):
            command.run([str(word) for word in words])


def test_a_folder_without_images_says_what_it_has_instead(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    np.savez(tmp_path / "made" / "samples.npz", REAL.numpy())
    many = as_folder(MADE, tmp_path / "many")
    with pytest.raises(
        DataError, match=r"no image in it; .* 1 \.npz \(samples\.npz\): give samples\.npz itself"
    ):
        command.run([str(many), str(tmp_path / "made")])


def test_the_command_prints_what_the_call_returns_and_its_rows_make_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from lsgm_reports.commands.report import run as report

    words = [str(as_folder(REAL, tmp_path / "real")), f"mine={as_folder(MADE, tmp_path / 'made')}"]
    out = tmp_path / "out"
    assert command.run([*words, "--images", "80", "--seed", "2", "--json", "--out", str(out)]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = lsgm_eval.fid(*words, images=80, seed=2)
    assert [(row["metric"], row["value"]) for row in printed] == [(n.metric, n.value) for n in found.numbers]
    assert [row.as_dict() for row in read_rows(out / "results.jsonl")] == printed
    first = printed[0]
    assert (first["task"], first["model"], first["n"], first["n_of"]) == (
        "fid@1/images-80-seed-2",
        "mine",
        80,
        90,
    )
    manifest = json.loads((out / "manifests" / f"{first['manifest']}.json").read_text())
    assert manifest["command"][:4] == ["lsgm", "fid", *words]
    assert manifest["again"] == ["lsgm", "fid", *words, "--images", "80", "--seed", "2"]
    assert command.run([*words, "--images", "80", "--seed", "2", "--out", str(out)]) == 0
    table = capsys.readouterr().out
    assert "mine against real" in table
    assert "80 of 90" in table
    assert "80 of 120" in table
    assert len(read_rows(out / "results.jsonl")) == len(printed)
    assert report([str(out)]) == 0
    assert "FID" in (out / "report.md").read_text(encoding="utf-8")


def test_help_imports_no_torch() -> None:
    code = (
        "import sys; from lsgm_eval.commands import fid\n"
        "try: fid.run(['--help'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "lsgm fid cifar10:train" in done.stdout


@pytest.fixture
def sets(monkeypatch: pytest.MonkeyPatch) -> dict[str, ImageSet]:
    """Let two data sets be small ones: photographs, and drawings in grey."""
    colour = {"train": REAL[:60], "val": REAL[60:80], "test": REAL[80:]}
    grey = {name: pictures(60, k, (1, 8, 8)) for k, name in enumerate(("train", "val", "test"))}
    found = {
        "cifar10": ImageSet("cifar10", "1", sha256_of(*colour.values()), "uint8", colour),
        "mnist": ImageSet("mnist", "1", sha256_of(*grey.values()), "binary", grey),
    }
    monkeypatch.setattr(side, "load", lambda name: found[name])
    return found


def test_a_split_of_a_data_set_is_a_side(sets: dict[str, ImageSet]) -> None:
    found = lsgm_eval.fid("cifar10:train", MADE)
    assert found["fid"].value == pytest.approx(lsgm_eval.fid(REAL[:80], MADE)["fid"].value, rel=1e-9)
    assert "cifar10:train is train+val, all that was published as training" in found["fid"].note
    assert found.rows[0]["dataset"] == sets["cifar10"].identity
    assert found.rows[0]["split"] == "train+val"
    assert lsgm_eval.fid("cifar10:test", MADE)["fid"].counts.reference == 40
    for word, said in (
        ("cifar10", "say which, as cifar10:train or cifar10:test"),
        ("cifar10:tset", "cifar10 has no split 'tset'; it has train, val, test"),
        ("cifar:train", "there is no data set 'cifar'; did you mean 'cifar10'"),
    ):
        with pytest.raises(UserError, match=said):
            lsgm_eval.fid(word, MADE)


def test_drawings_are_binarised_unless_they_meet_grey_values(sets: dict[str, ImageSet]) -> None:
    black = torch.where(pictures(50, 5, (1, 8, 8)) > 60, 255, 0).to(torch.uint8)
    assert "mnist:test is binarised with seed 0" in lsgm_eval.fid("mnist:test", black)["fid"].note
    grey = lsgm_eval.fid("mnist:test", pictures(50, 5, (1, 8, 8)))
    assert "mnist:test is taken in its grey values, as the other side has them" in grey["fid"].note
    own = lsgm_eval.fid(sets["mnist"].splits["test"], pictures(50, 5, (1, 8, 8)))
    assert grey["fid"].value == pytest.approx(own["fid"].value, rel=1e-9)
    assert lsgm_eval.fid("mnist:test", "mnist:test")["fid"].value == 0


def test_a_model_draws_as_many_as_it_is_told(
    bernoulli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = bernoulli(name="mine")
    monkeypatch.setattr(side, "open_model", lambda word, device="cpu": model)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").touch()
    reference = pictures(50, 5, (1, 28, 28))
    with pytest.raises(UserError, match="mine draws its images: say how many by --images N"):
        lsgm_eval.fid(reference, tmp_path / "run")
    found = lsgm_eval.fid(reference, tmp_path / "run", images=30, reference_images="all", first_seed=7)
    row = found.rows[0]
    assert (row["n"], row["n_of"], row["seeds"]) == (30, None, "7-36")
    assert found["fid"].counts.reference == 50
    with pytest.raises(UserError, match="neither side is a model that draws"):
        lsgm_eval.fid(reference, reference, first_seed=3)


def test_files_that_are_not_plain_are_converted_where_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = as_folder(MADE, tmp_path / "made")
    Image.fromarray(MADE[0].permute(1, 2, 0).numpy()).convert("RGBA").save(folder / "00000.png")
    with pytest.raises(DataError, match="alpha"):
        lsgm_eval.fid(REAL, folder)
    found = lsgm_eval.fid(REAL, folder, convert="alpha")["fid"]
    assert found.value == pytest.approx(lsgm_eval.fid(REAL, MADE)["fid"].value, rel=1e-9)
    assert "files of made are converted: alpha" in found.note
    words = [str(as_npz(REAL, tmp_path / "real.npz")), str(folder), "--convert", "alpha"]
    assert command.run(words) == 0
    assert "converted: alpha" in capsys.readouterr().out
    with pytest.raises(UserError, match="convert has no 'alfa'; did you mean 'alpha'"):
        command.run([*words, "--convert", "alfa"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("./nowhere", "nowhere does not exist: give a folder, zip, npz"),
        ("nowhere.npz", r"nowhere\.npz does not exist"),
        ("", "empty word"),
        ("{}/notes.txt", r"notes\.txt is none of what can be measured"),
        ("{}/empty", "empty holds neither images nor a checkpoint"),
        ("{}/cut.npz", r"cut\.npz"),
    ],
)
def test_what_is_no_side_is_one_sentence(word: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.npz").write_bytes(as_npz(MADE, tmp_path / "whole.npz").read_bytes()[:700])
    for sides in ((word.format(tmp_path), MADE), (MADE, word.format(tmp_path))):
        with pytest.raises(UserError, match=said) as error:
            lsgm_eval.fid(*sides)
        assert "\n" not in str(error.value)


def test_features_are_kept_by_content(tmp_path: Path, opened: dict[str, Corners]) -> None:
    folder = as_folder(MADE, tmp_path / "made")
    first = lsgm_eval.fid(REAL, folder)
    seen = opened["inception"].seen
    assert lsgm_eval.fid(REAL, folder)["fid"] == first["fid"]
    assert opened["inception"].seen == seen
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "00003.png")
    assert lsgm_eval.fid(REAL, folder)["fid"].value != first["fid"].value

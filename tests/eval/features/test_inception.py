"""Inception features are those of torch-fidelity and of clean-fid, run on the same files."""

from __future__ import annotations

import inspect
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from inception import photographs, random_script
from oracles.distances import frechet_of_features
from PIL import Image
from torch import Tensor, nn

from lsgm.errors import DataError, UserError
from lsgm_eval.bench.fid_ways import random_state
from lsgm_eval.features import published
from lsgm_eval.features.extractor import Classifies, Spatial, load_extractor
from lsgm_eval.features.published import CleanInception, CleanResize, FidelityInception
from lsgm_eval.metrics.moments import Moments

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

COLOUR = (3, 32, 32)
SQRTM_REPORTS = "disp" in inspect.signature(scipy.linalg.sqrtm).parameters


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(random_state(0), path)
    return path


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_script(tmp_path_factory.mktemp("script") / "inception-2015-12-05.pt")


@pytest.fixture(scope="module")
def fidelity(weights: Path) -> FidelityInception:
    return FidelityInception(str(weights))


@pytest.fixture(scope="module")
def clean(script: Path) -> CleanInception:
    return CleanInception(str(script))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Path]:
    images, folder = photographs(4), tmp_path_factory.mktemp("photos")
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index}.png")
    return images, folder


def noise(count: int, side: int = 32, channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator)


def test_features_and_logits_are_torch_fidelitys_to_the_last_bit(
    fidelity: FidelityInception, weights: Path, photos: tuple[Tensor, Path]
) -> None:
    from torch_fidelity.utils import create_feature_extractor, extract_featuresdict_from_input_id

    theirs = create_feature_extractor(
        "inception-v3-compat",
        ["2048", "logits_unbiased"],
        cuda=False,
        feature_extractor_weights_path=str(weights),
        verbose=False,
    )
    options = {"input1": str(photos[1]), "cuda": False, "save_cpu_ram": True, "verbose": False}
    expected = extract_featuresdict_from_input_id(1, theirs, batch_size=4, **options)
    found = fidelity(photos[0])
    assert (found.shape, found.dtype) == ((4, 2048), torch.float32)
    assert torch.equal(found, expected["2048"])
    assert torch.equal(fidelity.class_logits(found), expected["logits_unbiased"])
    assert found.std(0).max() > 0.01  # the weights do see the images


def test_spatial_features_are_the_first_seven_channels_of_a_map_of_17_by_17(
    fidelity: FidelityInception,
) -> None:
    from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

    images = noise(2)
    pooled, spatial = fidelity.with_spatial(images)
    assert (spatial.shape, fidelity.spatial_dim) == ((2, 2023), 7 * 17 * 17)
    assert torch.equal(pooled, fidelity(images))  # and the hook is gone
    names = [name for name, _ in fidelity.net.named_children()]
    trunk = nn.Sequential(*(getattr(fidelity.net, n) for n in names[: names.index("Mixed_6d") + 1]))
    x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
    # A block's output begins with the channels of its 1x1 branch.
    with torch.inference_mode():
        block = trunk((x - 128) / 128)
    assert torch.equal(spatial, block[:, :7].flatten(1))


def test_clean_features_are_clean_fids_to_the_last_bit(
    clean: CleanInception, script: Path, photos: tuple[Tensor, Path]
) -> None:
    from cleanfid.fid import get_folder_features
    from cleanfid.inception_torchscript import InceptionV3W

    theirs = InceptionV3W(str(script.parent), download=False)
    options = {"num_workers": 0, "batch_size": 4, "device": torch.device("cpu"), "verbose": False}
    expected = get_folder_features(str(photos[1]), theirs, mode="clean", **options)
    found = clean(photos[0])
    assert found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), expected)
    with torch.inference_mode():
        by_hand = found @ theirs.base.output.weight.T
    torch.testing.assert_close(clean.class_logits(found), by_hand)


@pytest.mark.parametrize(
    "wrong",
    [("PIL", True, "bicubic"), ("PIL", False, "bilinear"), ("PyTorch", False, "bilinear")],
    ids=["rounded", "bilinear", "not antialiased"],
)
@pytest.mark.parametrize("side", [32, 400])
def test_a_wrong_resize_moves_clean_features_and_their_distance(
    wrong: tuple[str, bool, str], side: int, clean: CleanInception, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cleanfid.resize import make_resizer

    images = noise(3, side)
    right = clean(images)
    torch.testing.assert_close(clean(images), right, rtol=0, atol=0)
    library, rounded, kernel = wrong
    one = make_resizer(library, rounded, kernel, (299, 299))
    chosen = CleanResize(299)
    chosen.one = lambda x: np.asarray(one(x), np.float32)
    monkeypatch.setattr(clean, "to_size", chosen)
    moved = clean(images)
    # float32 rounding is 1e-7 of the features; a rounding to 8 bits alone moves them a thousand times more.
    assert torch.linalg.norm(moved - right) > 1e-4 * torch.linalg.norm(right)
    # The distance is a square: (1e-4)^2 of the features' own size, where equal features give float64's zero.
    scale = float(right.double().square().sum(1).mean())
    assert frechet_of_features(right.numpy(), right.numpy()) == pytest.approx(0, abs=1e-12 * scale)
    assert frechet_of_features(right.numpy(), moved.numpy()) > 1e-8 * scale


def test_features_do_not_depend_on_the_batch(fidelity: FidelityInception, clean: CleanInception) -> None:
    images = noise(3)
    for extractor in (fidelity, clean):
        parts = torch.cat([extractor(images[:1]), extractor(images[1:])])
        # Convolutions sum in another order for another batch: float32 rounding through fifty layers.
        torch.testing.assert_close(parts, extractor(images), rtol=1e-4, atol=1e-5)


def test_grey_images_are_repeated_and_any_size_will_do(
    fidelity: FidelityInception, clean: CleanInception
) -> None:
    grey = noise(2, side=20, channels=1)
    for extractor in (fidelity, clean):
        assert torch.equal(extractor(grey), extractor(grey.repeat(1, 3, 1, 1)))


@pytest.mark.parametrize(
    "images",
    [noise(1).float() / 255, noise(1, channels=4), noise(1)[0]],
    ids=["float", "alpha", "no batch"],
)
def test_what_is_not_8_bit_colour_or_grey_is_refused(images: Tensor, clean: CleanInception) -> None:
    with pytest.raises(UserError, match="takes uint8 images of 3xanyxany and was given"):
        clean(images)


def test_features_that_are_not_finite_are_named(
    fidelity: FidelityInception, clean: CleanInception, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = torch.zeros(3, 2048)
    broken[1, 5] = torch.nan
    monkeypatch.setattr(fidelity, "net", lambda images: (broken,))
    with pytest.raises(UserError, match=r"inception-own-random gave .* not finite for image 1 of a batch"):
        fidelity(noise(3))
    monkeypatch.setattr(clean, "_features", lambda images: broken)
    with pytest.raises(UserError, match=r"inception-clean-own-.* not finite for image 1 of a batch"):
        clean(noise(3))


def test_only_the_official_bytes_have_the_official_name(
    weights: Path, script: Path, clean: CleanInception, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_extractor(f"inception:{weights}", COLOUR)
    assert isinstance(own, FidelityInception)
    assert isinstance(own, Classifies)
    assert isinstance(own, Spatial)
    assert (own.name, own.official) == ("inception-own-random", False)
    assert (clean.name, clean.official) == ("inception-clean-own-inception-2015-12-05", False)
    assert isinstance(clean, Classifies)
    assert not isinstance(clean, Spatial)
    monkeypatch.setenv("LSGM_DATA", os.pathsep.join([str(weights.parent), str(script.parent)]))
    as_if = replace(published.FIDELITY_INCEPTION, file=weights.name, sha256=own.sha256)
    monkeypatch.setattr(published, "FIDELITY_INCEPTION", as_if)
    monkeypatch.setattr(published, "_fidelity_net", lambda path, raw: nn.Identity())
    official = load_extractor("inception", COLOUR)
    assert (official.name, official.sha256) == ("inception", own.sha256)
    as_if = replace(published.CLEAN_INCEPTION, sha256=clean.sha256)
    monkeypatch.setattr(published, "CLEAN_INCEPTION", as_if)
    assert load_extractor("inception-clean", COLOUR).name == "inception-clean"
    assert len({official.resize, clean.resize, ""}) == 3


class Spy:
    """A pickle that would run code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_weights_that_are_none_are_refused_and_never_run(tmp_path: Path, weights: Path, script: Path) -> None:
    cut, strange, spy = tmp_path / "cut.pth", tmp_path / "strange.pth", tmp_path / "spy.pth"
    cut.write_bytes(weights.read_bytes()[:100_000])
    torch.save({"conv": torch.zeros(3)}, strange)
    torch.save({"conv": Spy(tmp_path / "ran")}, spy)
    for file in (cut, strange, spy, script):
        with pytest.raises(DataError, match=rf"{file.name} does not hold the weights of torch-fidelity's"):
            FidelityInception(str(file))
    assert not (tmp_path / "ran").exists()
    with pytest.raises(DataError, match=r"strange.pth is not a TorchScript file"):
        CleanInception(str(strange))


class Plain(nn.Module):
    """A script without layers."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Short(nn.Module):
    """A script in the right format whose layers give too few features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 50, stride=50), nn.AdaptiveAvgPool2d(1))
        self.output = nn.Linear(2048, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_scripts_of_another_format_are_pointed_to_the_general_extractor(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"plain.pt is not a TorchScript in the format .*export:FILE.pt2"):
        CleanInception(str(random_script(tmp_path / "plain.pt", Plain())))
    short = CleanInception(str(random_script(tmp_path / "short.pt", Short())))
    with pytest.raises(DataError, match=r"give 6 features instead of 2048: .*export:FILE.pt2"):
        short(noise(1))


def test_distances_of_photographs_are_those_of_both_packages(fidelity: FidelityInception) -> None:
    from cleanfid.fid import frechet_distance as clean_fids
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    # Of the 5 features that vary most, so that 8 images give covariances of full rank.
    features = fidelity(photographs(16)).double()
    x, y = features[:, features.var(dim=0).topk(5).indices].split(8)
    ours = frechet_of_features(x.numpy(), y.numpy())
    statistics = [fid_features_to_statistics(features) for features in (x, y)]
    theirs = fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert ours == pytest.approx(theirs, rel=1e-6)
    if not SQRTM_REPORTS:
        pytest.skip("clean-fid 0.1.35 calls sqrtm(disp=False), which SciPy 1.18 took away")
    moments = [Moments.of(features.numpy()) for features in (x, y)]
    parts = [array for m in moments for array in (m.mean, m.covariance)]
    assert ours == pytest.approx(clean_fids(*parts), rel=1e-6)

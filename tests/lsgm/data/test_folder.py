"""Any folder or zip of images: decoded once, mapped, split by name, and refused with the file's name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lsgm.data import ImageSet, celeba, folder, load
from lsgm.errors import DataError


def photo(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    (path / "more").mkdir(parents=True)
    for k, suffix in enumerate(["png", "webp", "bmp", "jpg", "JPEG"] * 8):
        photo(k).save(path / ("more" if k % 3 else ".") / f"{k:02d}.{suffix}")
    (path / "notes.txt").write_text("no image")
    return path


def read(path: Path, size: int = 16) -> ImageSet:
    return load(str(path), image_size=size)


def test_a_folder_is_found_recursively_and_split_without_overlap(photos: Path) -> None:
    images = read(photos)
    assert {split: tuple(rows.shape) for split, rows in images.splits.items()} == {
        "train": (36, 3, 16, 16),
        "val": (2, 3, 16, 16),
        "test": (2, 3, 16, 16),
    }
    assert len(torch.unique(images.split("train+val+test").flatten(1), dim=0)) == 40
    assert images.name == "photos"
    assert images.version == f"16px+{images.sha256[:12]}"


def test_a_zip_of_a_folder_is_the_same_dataset(photos: Path, tmp_path: Path) -> None:
    for name, base in (("bare.zip", photos), ("wrapped.zip", tmp_path)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in sorted(photos.rglob("*")):
                archive.write(path, path.relative_to(base))
        assert read(tmp_path / name).sha256 == read(photos).sha256


def test_decoding_happens_once_and_again_when_a_file_changes(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = folder.decode

    def counting(entry: folder.Entry, where: Path, size: int, channels: int) -> np.ndarray:
        decoded.append(entry.name)
        return original(entry, where, size, channels)

    monkeypatch.setattr(folder, "decode", counting)
    first = read(photos).sha256
    assert read(photos).sha256 == first
    assert len(decoded) == 40
    photo(99).save(photos / "00.png")
    assert read(photos).sha256 != first
    assert len(decoded) == 80
    read(photos, 8)
    assert len(decoded) == 120


def test_an_image_is_cropped_to_its_centre_then_reduced(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # the centre square is white
    entry = _entry(tmp_path, "a.png", Image.fromarray(pixels))
    assert folder.decode(entry, tmp_path, 10, 3).min() == 255
    same = photo(0, 16, 16)
    kept = folder.decode(_entry(tmp_path, "b.png", same), tmp_path, 16, 3)
    assert np.array_equal(kept, np.asarray(same).transpose(2, 0, 1))


def test_a_photo_lying_on_its_side_is_turned_by_its_tag(tmp_path: Path) -> None:
    upright = photo(1, 16, 16)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned left by a quarter
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    entry = folder.list_images(tmp_path)[0]
    assert np.array_equal(folder.decode(entry, tmp_path, 16, 3), np.asarray(upright).transpose(2, 0, 1))


def _entry(tmp_path: Path, name: str, image: Image.Image) -> folder.Entry:
    image.save(tmp_path / name)
    return next(entry for entry in folder.list_images(tmp_path) if entry.name == name)


def _rgba(path: Path) -> None:
    photo(0).convert("RGBA").save(path)


def _sixteen_bits(path: Path) -> None:
    Image.fromarray(np.full((32, 32), 4000, np.uint16)).save(path)


def _half(path: Path) -> None:
    photo(0).save(path)
    path.write_bytes(path.read_bytes()[:900])


def _text(path: Path) -> None:
    path.write_text("not an image")


def _palette_with_transparency(path: Path) -> None:
    photo(0).quantize(8).save(path, transparency=0)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_rgba, "alpha channel; flatten"),
        (_palette_with_transparency, "alpha channel; flatten"),
        (_sixteen_bits, "more than 8 bits"),
        (_half, "cannot be read"),
        (_text, "cannot be read"),
        (
            lambda path: photo(0, 12, 40).save(path),
            "12 x 40, smaller than 16; choose a smaller data.image-size",
        ),
    ],
)
def test_an_image_that_cannot_be_used_is_named(
    photos: Path, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(photos / "zz.png")
    with pytest.raises(DataError, match=rf"photos: zz\.png .*{words}"):
        read(photos)


def test_a_folder_of_grey_images_has_one_channel(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for k in range(5):
        photo(k).convert("L").save(tmp_path / "grey" / f"{k}.png")
    assert read(tmp_path / "grey").image_shape == (1, 16, 16)


def test_folders_named_train_and_test_decide_the_split(photos: Path) -> None:
    (photos / "more").rename(photos / "train")
    (photos / "test").mkdir()
    for k in range(3):
        photo(50 + k).save(photos / "test" / f"{k}.png")
    images = read(photos)
    assert len(images.splits["test"]) == 3
    assert len(images.split("train+val")) == 26


def test_adding_images_keeps_most_of_the_split(photos: Path) -> None:
    before = folder.split_names(folder.list_images(photos))
    for k in range(100, 110):
        photo(k).save(photos / f"{k}.png")
    after = folder.split_names(folder.list_images(photos))
    old = {entry.name for entry in before["train"]}
    assert len(old & {entry.name for entry in after["train"]}) >= len(old) - 4


def test_a_truncated_cache_is_named(photos: Path, tmp_path: Path) -> None:
    read(photos)
    (path,) = (tmp_path / "cache" / "derived").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path.name} is truncated or corrupted; delete it"):
        read(photos)


def test_a_disk_too_small_is_said_before_anything_is_decoded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(DataError, match="set LSGM_CACHE to a larger disk"):
        read(photos)


def test_paths_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.zip").write_text("not a zip")
    for path, words in (
        ("empty", "has no image"),
        ("nowhere", "does not exist"),
        ("x.zip", "neither a folder nor"),
    ):
        with pytest.raises(DataError, match=words):
            read(tmp_path / path)
    photo(0).save(tmp_path / "empty" / "a.png")
    with pytest.raises(DataError, match="has 1 images; at least 3"):
        read(tmp_path / "empty")
    for name in ("", " "):
        with pytest.raises(DataError, match="the name of the dataset is empty"):
            load(name)


def test_a_single_image_is_a_set_whose_only_split_is_test(tmp_path: Path) -> None:
    photo(3).save(tmp_path / "one.PNG")
    images = load(str(tmp_path / "one.PNG"), image_size=16)
    assert list(images.splits) == ["test"]
    assert images.image_shape == (3, 16, 16)
    assert images.version == f"16px+{images.sha256[:12]}"
    (entry,) = folder.list_images(tmp_path)
    assert torch.equal(
        images.splits["test"][0], torch.from_numpy(folder.decode(entry, tmp_path, 16, 3).copy())
    )
    with pytest.raises(DataError, match=r"one\.PNG has no split 'train'; it has test"):
        images.split("train")


def test_celebahq_is_split_by_order_from_array_or_folder(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (50, 256, 256, 3), dtype=np.uint8)
    np.save(tmp_path / "celebahq256.npy", array)
    images = celeba.read_celebahq([tmp_path], counts=(40, 10))
    assert {split: len(rows) for split, rows in images.splits.items()} == {"train": 38, "val": 2, "test": 10}
    assert torch.equal(images.splits["test"][0], torch.from_numpy(array[40]).permute(2, 0, 1))
    assert images.bits == 5
    (tmp_path / "other" / "celebahq256").mkdir(parents=True)
    for k, pixels in enumerate(array):
        Image.fromarray(pixels).save(tmp_path / "other" / "celebahq256" / f"{k:05d}.bmp")
    assert celeba.read_celebahq([tmp_path / "other"], counts=(40, 10)).sha256 == images.sha256
    with pytest.raises(DataError, match="has 50 images; put 30,000"):
        load("celebahq256", root=tmp_path)


def test_celebahq_refuses_arrays_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "celebahq256.npy", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"uint8 \(4, 8, 8, 3\)"):
        celeba.read_celebahq([tmp_path])
    (tmp_path / "celebahq256.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="truncated or not an array"):
        celeba.read_celebahq([tmp_path])
    with pytest.raises(DataError, match=r"is not here; looked in .*30,000 images"):
        celeba.read_celebahq([tmp_path / "none"])

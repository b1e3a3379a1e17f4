"""Any folder, zip or array of images: decoded once by content, mapped, split by name, never mixed up."""

from __future__ import annotations

import os
import shutil
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pictures import photos as write_photos
from pictures import zipped
from PIL import Image

from lsgm.data import ImageSet, arrays, cache, celeba, decoding, load
from lsgm.data.listing import list_files
from lsgm.data.splits import split_files
from lsgm.errors import ConfigError, DataError
from lsgm.train.loop import load_images


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
    assert (images.name, images.carved) == ("photos", ("val", "test"))
    assert images.version == f"16px+{images.sha256[:12]}"


def test_a_zip_of_a_folder_is_the_same_dataset(photos: Path, tmp_path: Path) -> None:
    for name, base in (("bare.zip", photos), ("wrapped.zip", tmp_path)):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for path in sorted(photos.rglob("*")):
                archive.write(path, path.relative_to(base))
        assert read(tmp_path / name).sha256 == read(photos).sha256


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded."""
    names: list[str] = []
    original = decoding.decode

    def counting(raw: bytes, where: str, *how: object) -> np.ndarray:
        names.append(where)
        return original(raw, where, *how)

    monkeypatch.setattr(decoding, "decode", counting)
    return names


def test_decoding_happens_once_and_again_when_a_file_changes(photos: Path, decoded: list[str]) -> None:
    first = read(photos).sha256
    assert read(photos).sha256 == first
    assert len(decoded) == 40
    photo(99).save(photos / "00.png")
    assert read(photos).sha256 != first
    assert len(decoded) == 80
    read(photos, 8)
    assert len(decoded) == 120


def test_the_same_images_elsewhere_are_not_decoded_again(
    photos: Path, tmp_path: Path, decoded: list[str]
) -> None:
    first = read(photos).sha256
    assert read(zipped(photos, tmp_path / "photos.zip")).sha256 == first
    assert read(shutil.copytree(photos, tmp_path / "copy")).sha256 == first
    assert len(decoded) == 40


def _twins(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders whose files agree in name, size and dates, and in nothing else."""
    twins = tmp_path / "one" / "set", tmp_path / "other" / "set"
    for seed, folder in zip((0, 50), twins, strict=True):
        folder.mkdir(parents=True)
        for k in range(6):
            photo(seed + k, 16, 16).save(folder / f"{k}.bmp")  # of one size, whatever the pixels
            os.utime(folder / f"{k}.bmp", (10**9, 10**9))
    return twins


def test_folders_that_agree_in_name_size_and_date_do_not_share_their_pixels(tmp_path: Path) -> None:
    one, other = _twins(tmp_path)
    assert [p.stat().st_size for p in one.iterdir()] == [p.stat().st_size for p in other.iterdir()]
    expected = {split: rows.clone() for split, rows in read(one).splits.items()}
    assert read(other).sha256 != read(one).sha256
    assert not torch.equal(read(other).splits["train"], expected["train"])
    # Nor where the folder itself is put in the other's place, or a file is written over and dated back.
    one.rename(tmp_path / "gone")
    other.rename(one)
    assert not torch.equal(read(one).splits["train"], expected["train"])


def test_a_file_written_over_and_dated_back_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_SETTLED", 0)
    one, other = _twins(tmp_path)
    before = read(one).sha256
    time.sleep(0.02)
    for file in one.iterdir():
        file.write_bytes((other / file.name).read_bytes())
        os.utime(file, (10**9, 10**9))
    assert read(one).sha256 == read(other).sha256 != before


def test_files_left_alone_are_not_even_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, _ = _twins(tmp_path)
    looked: list[str] = []
    original = decoding.inspect

    def counting(raw: bytes, where: str, *how: object) -> object:
        looked.append(where)
        return original(raw, where, *how)

    monkeypatch.setattr(decoding, "inspect", counting)
    first = read(one).sha256
    read(one)
    assert len(looked) == 12  # they are too new for their dates to stand for their content
    monkeypatch.setattr(cache, "_SETTLED", -(10**12))
    read(one)
    assert read(one).sha256 == first
    assert len(looked) == 18
    shutil.rmtree(cache.cache_dir() / "derived")
    assert read(one).sha256 == first
    for file in (cache.cache_dir() / "derived").glob("images-*"):
        file.unlink()
    assert read(one).sha256 == first


def test_an_image_is_cropped_to_its_centre_then_reduced(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # the centre square is white
    for k in range(3):
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    assert read(tmp_path, 10).split("train").min() == 255


def test_an_image_too_small_is_named(photos: Path) -> None:
    photo(0, 12, 40).save(photos / "zz.png")
    with pytest.raises(
        DataError, match=r"photos: zz\.png is 12 x 40, smaller than 16; choose a smaller data\.image-size"
    ):
        read(photos)


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (32, 40)])
def test_rectangles_are_read_as_rectangles(photos: Path, size: tuple[int, int]) -> None:
    images = load(str(photos), image_size=size)
    assert images.image_shape == (3, *size)
    assert images.version == f"{size[0]}x{size[1]}px+{images.sha256[:12]}"


def test_images_keep_their_own_size_where_that_is_asked_for(photos: Path) -> None:
    assert load(str(photos), image_size=None).image_shape == (3, 32, 40)
    photo(0, 41, 32).save(photos / "zz.png")
    with pytest.raises(DataError, match=r"zz\.png is 41 x 32 and other images are 40 x 32: give a data\."):
        load(str(photos), image_size=None)


def test_a_folder_of_grey_images_has_one_channel(tmp_path: Path) -> None:
    (tmp_path / "grey").mkdir()
    for k in range(5):
        photo(k).convert("L").save(tmp_path / "grey" / f"{k}.png")
    assert read(tmp_path / "grey").image_shape == (1, 16, 16)


def split_of(path: Path) -> dict[str, list[str]]:
    found, split = split_files(list_files(path))
    return {role: [found[row].name for row in rows] for role, rows in split.parts.items()}


NAMES = [
    ("train", "val", "test"), ("Train", "VALID", "Testing"), ("training", "validation", "eval"),
    ("TRAINING", "dev", "TEST"),
]  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("around", ["", "dataset/", "a/b/"])
@pytest.mark.parametrize("inside", ["", "cats/"])
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_folders_named_after_splits_decide(
    names: tuple[str, str, str], around: str, inside: str, as_zip: bool, tmp_path: Path
) -> None:
    top = tmp_path / "set"
    for k, name in enumerate(names):
        write_photos(top / around / name / inside, 3 + k, first=10 * k)
    path = zipped(top, tmp_path / "set.zip") if as_zip else top
    split = split_of(path)
    assert {role: len(found) for role, found in split.items()} == {"train": 3, "val": 4, "test": 5}
    assert {role: {name.split("/")[0] for name in found} for role, found in split.items()} == {
        "train": {names[0]}, "val": {names[1]}, "test": {names[2]},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train2017", "val2017", "test2017"),
        ("train_64x64", "valid_64x64", "Test_64x64"),
        ("seg_train", "seg_dev", "seg_test"),
        ("TrainSet", "ValSet", "TestSet"),
        ("training_images", "validation_images", "evaluation_images"),
        ("trn", "val", "tst"),
    ],
)
@pytest.mark.parametrize("place", ["{}", "data/{}", "cats/{}"])
def test_a_splits_name_may_have_a_rest_that_all_share(
    tmp_path: Path, train: str, val: str, test: str, place: str
) -> None:
    for start, name, count in ((0, train, 9), (9, val, 3), (12, test, 4)):
        folder = tmp_path / "set" / place.format(name)
        folder.mkdir(parents=True)
        for k in range(count):
            photo(start + k).save(folder / f"{start + k:02d}.png")
    images = read(tmp_path / "set")
    assert {name: len(rows) for name, rows in images.splits.items()} == {"train": 9, "val": 3, "test": 4}
    assert f"4 test ({test}/)" in images.remark


def test_words_in_the_names_of_classes_are_no_splits(tmp_path: Path) -> None:
    for k, name in enumerate(("bullet_train", "test_tube", "device", "valley") * 5):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True, exist_ok=True)
        photo(k).save(folder / f"{k:02d}.png")
    assert read(tmp_path / "set").carved == ("val", "test")


def test_masks_beside_the_splits_stay_beside(tmp_path: Path) -> None:
    for k, name in enumerate(("train", "test", "train_masks", "test_masks") * 3):
        folder = tmp_path / "set" / name
        folder.mkdir(parents=True, exist_ok=True)
        photo(k).save(folder / f"{k:02d}.png")
    assert [len(rows) for rows in read(tmp_path / "set").splits.values()] == [2, 1, 3]


def test_train_and_val_without_test_keep_val_and_give_up_some_of_train(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 20)
    write_photos(tmp_path / "val", 4, first=50)
    split = split_of(tmp_path)
    assert split["val"] == [f"val/{k:03d}.png" for k in range(50, 54)]
    assert load(str(tmp_path), image_size=8).carved == ("test",)
    assert len(split["train"]) == 19
    assert {name.split("/")[0] for name in split["test"]} == {"train"}
    assert load(str(tmp_path), image_size=8).remark == (
        "19 train (train/), 4 val (val/), 1 test (5 % by hash of the names)"
    )


def test_classes_with_their_own_train_and_test_are_split_as_they_say(tmp_path: Path) -> None:
    for name in ("bottle", "cable"):
        write_photos(tmp_path / name / "train" / "good", 4)
        write_photos(tmp_path / name / "test" / "broken", 2, first=20)
        write_photos(tmp_path / name / "ground_truth", 2, first=40)
    split = split_of(tmp_path)
    assert all("/test/" in name for name in split["test"])
    assert all("/train/" in name for name in split["train"] + split["val"])
    assert sum(map(len, split.values())) == 12


def test_what_lies_beside_the_splits_is_not_used_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, count in (("train", 5), ("test", 2), ("unlabeled", 4), ("extra", 1)):
        write_photos(tmp_path / name, count)
    photo(70).save(tmp_path / "cover.png")
    assert len(load(str(tmp_path), image_size=8).split("train+val+test")) == 7
    assert (
        f"{tmp_path}: left out are images in unlabeled/: 4 (unlabeled/000.png); images beside the splits' "
        "folders: 1 (cover.png); images in extra/: 1 (extra/000.png)"
    ) in capsys.readouterr().err


def test_images_of_a_test_folder_never_train_whatever_is_beside_it(tmp_path: Path) -> None:
    write_photos(tmp_path / "cats", 10)
    write_photos(tmp_path / "test", 3, first=50)
    split = split_of(tmp_path)
    assert {name.split("/")[0] for name in split["train"] + split["val"]} == {"cats"}
    assert {name.split("/")[0] for name in split["test"]} == {"test"}
    shutil.rmtree(tmp_path / "cats")
    with pytest.raises(DataError, match="has images in test/ only and none to train on"):
        split_of(tmp_path)
    write_photos(tmp_path / "val", 3, first=70)
    with pytest.raises(DataError, match="has folders for val and test and no image to train on"):
        split_of(tmp_path)


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    write_photos(tmp_path / "bus", 20)
    write_photos(tmp_path / "train", 20)
    split = split_of(tmp_path)
    assert {name.split("/")[0] for name in split["train"]} == {"bus", "train"}


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "test", "val", "valid"):
        write_photos(tmp_path / name, 3)
    with pytest.raises(DataError, match="has two folders for val, val and valid: keep one of them"):
        split_of(tmp_path)


def test_links_to_one_folder_cannot_be_train_and_test(tmp_path: Path) -> None:
    pool = write_photos(tmp_path / "pool", 4)
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train").symlink_to(pool)
    (folder / "test").symlink_to(pool)
    with pytest.raises(DataError, match=r"train/000\.png and test/000\.png are one file"):
        split_of(folder)


def test_splits_that_link_into_a_pool_beside_them_are_kept(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_photos(tmp_path / "all" / name, 4, first=ord(name[0]))
    (tmp_path / "train").symlink_to("all/one")
    (tmp_path / "test").symlink_to("all/two")
    split = split_of(tmp_path)
    assert len(split["test"]) == 4
    assert len(split["train"]) + len(split["val"]) == 4


def test_test_images_that_train_has_too_are_counted(tmp_path: Path) -> None:
    write_photos(tmp_path / "train", 5)
    write_photos(tmp_path / "val", 2, first=50)
    write_photos(tmp_path / "test", 4, first=3)  # 003 and 004 again
    assert "2 of the test images train too, byte for byte" in load(str(tmp_path), image_size=8).remark


def test_adding_images_keeps_most_of_the_split(photos: Path) -> None:
    before = split_of(photos)
    for k in range(100, 110):
        photo(k).save(photos / f"{k}.png")
    old = set(before["train"])
    assert len(old & set(split_of(photos)["train"])) >= len(old) - 4


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_an_array_is_a_dataset_of_the_pixels_of_its_rows(name: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (40, 16, 24, 3), dtype=np.uint8)
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, rows)
    images = load(str(tmp_path / name), image_size=None)
    assert {split: len(part) for split, part in images.splits.items()} == {"train": 36, "val": 2, "test": 2}
    found = {row.tobytes() for row in images.split("train+val+test").permute(0, 2, 3, 1).contiguous().numpy()}
    assert found == {row.tobytes() for row in rows}
    assert load(str(tmp_path / name), image_size=8).image_shape == (3, 8, 8)


def test_rows_of_an_array_are_read_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a compressed npz any step back begins at the first row again."""
    got: list[int] = []
    original = arrays.ArrayImages.row

    def counting(self: arrays.ArrayImages, row: int) -> np.ndarray:
        got.append(row)
        return original(self, row)

    monkeypatch.setattr(arrays.ArrayImages, "row", counting)
    rows = np.random.default_rng(0).integers(0, 256, (400, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "a.npz", rows)
    load(str(tmp_path / "a.npz"), image_size=8)
    assert got == list(range(400))


def test_arrays_named_after_splits_decide(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "medical.npz", train_images=rows[:8], train_labels=np.arange(8), val_images=rows[8:9],
             test_images=rows[9:])  # fmt: skip
    np.savez(tmp_path / "keras.npz", x_train=rows[:9], y_train=np.arange(9), x_test=rows[9:])
    for name, counts in (("medical", [8, 1, 3]), ("keras", [8, 1, 3])):
        images = load(str(tmp_path / f"{name}.npz"), image_size=16)
        assert [len(part) for part in images.splits.values()] == counts
        assert torch.equal(images.splits["test"][:, 0], torch.from_numpy(rows[9:]))


def test_a_cache_that_may_not_be_read_is_not_called_truncated(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(photos)
    (path,) = (tmp_path / "cache" / "derived").glob("*.npy")
    whole = os.open

    def shut(name: Any, *rest: Any, **more: Any) -> int:
        if os.fspath(name) == str(path):
            raise PermissionError(13, "Permission denied")
        return whole(name, *rest, **more)

    monkeypatch.setattr(os, "open", shut)
    with pytest.raises(DataError, match=rf"{path.name} cannot be read \(Permission denied\)"):
        read(photos)


def test_a_truncated_cache_is_named(photos: Path, tmp_path: Path) -> None:
    read(photos)
    (path,) = (tmp_path / "cache" / "derived").glob("*.npy")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=f"{path.name} is truncated or corrupted; delete it"):
        read(photos)


def test_a_disk_too_small_is_said_before_anything_is_decoded(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(DataError, match="set LSGM_CACHE to a larger disk"):
        read(photos)


def test_paths_without_images_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.zip").write_text("not a zip")
    for path, words in (
        ("empty", "has no image"),
        ("nowhere", "does not exist"),
        ("x.zip", "cannot be read"),
    ):
        with pytest.raises(DataError, match=words):
            read(tmp_path / path)
    photo(0).save(tmp_path / "empty" / "a.png")
    with pytest.raises(DataError, match="has 1 image to train on; at least 3"):
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
    write_photos(tmp_path / "set", 2, width=40, height=32)
    photo(3).save(tmp_path / "set" / "one.PNG")
    same = load(str(tmp_path / "set"), image_size=16).split("train+val+test")
    assert any(torch.equal(images.splits["test"][0], row) for row in same)
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
    with pytest.raises(ConfigError, match="--convert is for images of your own, and celebahq256 is none"):
        load("celebahq256", root=tmp_path, convert="all")


def test_what_a_mac_leaves_beside_celebahq_is_not_it(tmp_path: Path) -> None:
    (tmp_path / "celebahq256").mkdir()
    (tmp_path / "celebahq256" / "._real.npy").write_bytes(b"x")
    assert celeba.find_celebahq(tmp_path) == tmp_path / "celebahq256"


def test_celebahq_refuses_arrays_of_another_kind(tmp_path: Path) -> None:
    np.save(tmp_path / "celebahq256.npy", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"uint8 \(4, 8, 8, 3\)"):
        celeba.read_celebahq([tmp_path])
    (tmp_path / "celebahq256.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="truncated or not an array"):
        celeba.read_celebahq([tmp_path])
    with pytest.raises(DataError, match=r"is not here; looked in .*30,000 images"):
        celeba.read_celebahq([tmp_path / "none"])


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(DataError, match=r"pipe\.zip is no regular file: give a folder, zip, npz or npy"):
        read(tmp_path / "pipe.zip")


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8), (8, 8, 4), (8, 8, 1)])
def test_an_array_that_may_be_one_image_is_not_taken_for_a_set(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", np.full(shape, 9, np.uint8))
    with pytest.raises(DataError, match=rf"one image or {shape[0]} grey ones .*array\[None\] for the one"):
        read(tmp_path / "a.npy", 8)


def test_arrays_of_images_beside_the_first_are_said_to_be_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.full((9, 8, 8, 3), 9, np.uint8)
    np.savez(tmp_path / "a.npz", images, images, np.arange(9))
    assert len(read(tmp_path / "a.npz", 8).split("train+val+test")) == 9
    said = "a.npz: left out are arrays of images beside arr_0: 1 (arr_1)"
    assert capsys.readouterr().err.count(said) == 1


def test_a_single_image_is_nothing_to_train_on(tmp_path: Path) -> None:
    photo(0).save(tmp_path / "one.png")
    data = SimpleNamespace(dataset=str(tmp_path / "one.png"), size=None, convert="")
    with pytest.raises(DataError, match=r"one\.png is a single image: give a folder or zip of at least 3"):
        load_images(SimpleNamespace(data=data))

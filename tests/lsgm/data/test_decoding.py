"""Many files read side by side: the same images, order and errors by threads, by processes and by neither."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import photo, zipped
from PIL import Image

from lsgm.data import decoding, load, open_images
from lsgm.data.folder import FileImages
from lsgm.data.imagefile import fitted
from lsgm.errors import DataError

KINDS = ("one after the other", "threads", "processes")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Have even few files read in one of the ways."""
    monkeypatch.setattr(decoding, "MANY", 1)
    monkeypatch.setattr(decoding, "CHUNK", 4)
    if request.param == "threads":
        monkeypatch.setattr(decoding, "LARGE", 1)
    decoding.set_workers(1 if request.param == KINDS[0] else 2)
    yield request.param
    decoding.set_workers(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of 23 photographs, one in every way that a PNG is packed."""
    place = tmp_path / "set"
    place.mkdir()
    for number in range(23):
        photo(number).save(place / f"{number:03d}.png", optimize=number % 2 == 0, interlace=number % 3)
    return place


def test_images_are_those_of_pillow_in_their_order(kind: str, folder: Path) -> None:
    images = open_images(folder)
    assert isinstance(images, FileImages)
    assert images._team.kind == kind
    rows = [5, *range(23), 0, 22]
    plainly = [np.asarray(Image.open(folder / f"{row:03d}.png")).transpose(2, 0, 1) for row in rows]
    assert torch.equal(images.read(rows), torch.from_numpy(np.stack(plainly)))


def test_a_set_to_train_on_has_every_image_brought_to_its_size(
    kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(folder.parent / "cache"))  # where no other way has left them
    splits = load(str(folder), image_size=8).splits.values()
    found = [image.numpy().tobytes() for split in splits for image in split]
    files = (np.asarray(Image.open(path)).transpose(2, 0, 1) for path in folder.iterdir())
    assert sorted(found) == sorted(fitted(pixels, (8, 8)).tobytes() for pixels in files)


def test_the_first_damaged_file_is_named_as_by_one_reader_alone(kind: str, folder: Path) -> None:
    for name in ("019.png", "007.png"):
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:-20] + bytes(8) + raw[-12:])
    with pytest.raises(DataError, match=r"set: 007\.png cannot be read \(.*\): replace it"):
        open_images(folder)


def test_a_file_that_changes_after_it_was_checked_is_named(kind: str, folder: Path) -> None:
    images = open_images(folder)
    photo(99).save(folder / "011.png")
    os.remove(folder / "012.png")
    assert len(images.read(range(11))) == 11
    with pytest.raises(DataError, match=r"set: 011\.png has changed since it was checked"):
        images.read(range(23))
    with pytest.raises(DataError, match=r"set: 012\.png cannot be read \(there is no "):
        images.read(range(12, 23))


def test_members_of_a_zip_stay_with_its_one_reader(kind: str, folder: Path, tmp_path: Path) -> None:
    images = open_images(zipped(folder, tmp_path / "set.zip"))
    assert isinstance(images, FileImages)
    assert images._team.kind == ("threads" if kind == "threads" else KINDS[0])
    assert torch.equal(images.read(range(23)), open_images(folder).read(range(23)))


def test_as_many_are_at_work_as_there_are_cores_unless_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsgm.workers.cores", lambda: 3)
    assert decoding.worker_count() == 3
    decoding.set_workers(7)
    assert decoding.worker_count() == 7
    decoding.set_workers(0)
    assert decoding.worker_count() == 3

"""CIFAR-10 from the python archive, never executed, and from a mirror of sheets."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsgm.data import cifar, load
from lsgm.data.cifar import load_arrays
from lsgm.data.places import read_manifest
from lsgm.errors import DataError

BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


def batch(seed: int) -> dict[bytes, Any]:
    draw = np.random.default_rng(seed)
    return {
        b"data": draw.integers(0, 256, (20, 3072), dtype=np.uint8),
        b"labels": [int(k) for k in draw.integers(0, 10, 20)],
    }


def write_archive(path: Path, contents: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def test_the_archive_gives_red_green_blue_planes_and_their_labels(tmp_path: Path) -> None:
    contents = {name: pickle.dumps(batch(seed)) for seed, name in enumerate(BATCHES)}
    images = cifar.read_archive(write_archive(tmp_path / "c.tar.gz", contents))
    assert {split: tuple(rows.shape) for split, rows in images.splits.items()} == {
        "train": (95, 3, 32, 32),
        "val": (5, 3, 32, 32),
        "test": (20, 3, 32, 32),
    }
    stored = batch(5)
    assert torch.equal(images.splits["test"].flatten(1), torch.from_numpy(stored[b"data"]))
    assert images.labels["test"]["class"].tolist() == stored[b"labels"]
    pairs = {row.tobytes(): label for s in range(5) for row, label in zip(*batch(s).values(), strict=True)}
    for split in ("train", "val"):
        rows = images.splits[split].flatten(1).numpy()
        assert [pairs[row.tobytes()] for row in rows] == images.labels[split]["class"].tolist()


def test_an_archive_whose_pickle_would_run_something_runs_nothing(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'pwned'}",)

    contents = {name: pickle.dumps({b"data": Bomb()}) for name in BATCHES}
    with pytest.raises(DataError, match=r"data_batch_1 in .* refers to .*system.*do not trust this file"):
        cifar.read_archive(write_archive(tmp_path / "c.tar.gz", contents))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("payload", [b"cbuiltins\neval\n.", b"cnumpy\nload\n.", b"cnumpy\nndarray.tofile\n."])
def test_no_name_outside_the_list_is_looked_up(payload: bytes) -> None:
    with pytest.raises(DataError, match="refers to"):
        load_arrays(payload, "x")


@pytest.mark.parametrize("payload", [b"", b"garbage", pickle.dumps([1])])
def test_what_is_no_pickled_dictionary_is_refused(payload: bytes) -> None:
    with pytest.raises(DataError, match="fetch it again"):
        load_arrays(payload, "x")


def test_arrays_in_a_pickle_are_read() -> None:
    for protocol in (3, 4):
        value = load_arrays(pickle.dumps({b"a": np.arange(3)}, protocol=protocol), "x")
        assert value[b"a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("damage", ["truncated", "batch missing", "wrong array"])
def test_a_damaged_archive_is_named(tmp_path: Path, damage: str) -> None:
    contents = {name: pickle.dumps(batch(seed)) for seed, name in enumerate(BATCHES)}
    if damage == "batch missing":
        del contents["data_batch_3"]
    if damage == "wrong array":
        contents["data_batch_3"] = pickle.dumps({b"data": np.zeros((2, 7)), b"labels": [0, 1]})
    path = write_archive(tmp_path / "c.tar.gz", contents)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"c\.tar\.gz"):
        cifar.read_archive(path)


def test_an_archive_with_another_checksum_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "cifar10" / "cifar-10-python.tar.gz").write_bytes(b"x")
    with pytest.raises(
        DataError, match="instead of 6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    ):
        load("cifar10", root=tmp_path)


def test_tiles_are_cut_row_by_row() -> None:
    sheet = np.zeros((64, 96, 3), np.uint8)
    for k in range(6):
        row, column = divmod(k, 3)
        sheet[32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = k
    tiles = cifar.untile(sheet, rows=2, columns=3)
    assert tiles.shape == (6, 32, 32, 3)
    assert [np.unique(tile).tolist() for tile in tiles] == [[k] for k in range(6)]


def test_a_mirror_of_sheets_is_decoded_checked_and_cached(tmp_path: Path) -> None:
    from json import dumps

    draw = np.random.default_rng(0)
    folder = tmp_path / "mirror"
    splits: dict[str, dict[str, Any]] = {}
    labels: dict[str, Any] = {}
    folder.mkdir()
    for split in ("train", "test"):
        sheet = draw.integers(0, 256, (1280, 800, 3), dtype=np.uint8)
        Image.fromarray(sheet).save(folder / f"{split}-00.webp", lossless=True, quality=0, method=0)
        labels |= {f"{split}_labels": np.arange(1000) % 10, f"{split}_exact": np.ones(1000, bool)}
        pixels = hashlib.sha256(cifar.untile(sheet).data).hexdigest()
        splits[split] = {"files": [entry(folder / f"{split}-00.webp")], "pixels_sha256": pixels}
    np.savez(folder / "labels.npz", **labels)
    manifest = {
        "name": "cifar10",
        "version": "mirror-x",
        "splits": splits,
        "labels": entry(folder / "labels.npz"),
    }
    (folder / "manifest.json").write_text(dumps(manifest))
    images = load("cifar10", root=tmp_path)
    assert images.version == "mirror-x"
    assert images.mirror
    assert {split: len(rows) for split, rows in images.splits.items()} == {
        "train": 950,
        "val": 50,
        "test": 1000,
    }
    assert images.labels["test"]["class"].tolist() == labels["test_labels"].tolist()
    assert torch.equal(images.splits["test"][1, :, 0, 0], torch.from_numpy(sheet[0, 32]))
    splits["test"]["pixels_sha256"] = "0" * 64
    (folder / "manifest.json").write_text(dumps(manifest))
    with pytest.raises(DataError, match="the test pixels of"):
        cifar.read_sheets(read_manifest(folder))


def entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def test_the_mirror_has_the_statistics_of_cifar10(shared_mirror: Callable[[str], Path]) -> None:
    """Decoding 100 MB takes five seconds, so only a sheet of the real mirror is looked at here."""
    mirror = read_manifest(shared_mirror("cifar10") / "cifar10")
    with Image.open(mirror.path("train-00.webp")) as sheet:
        tiles = cifar.untile(np.asarray(sheet.convert("RGB")))
    with np.load(mirror.path("labels.npz")) as labels:
        first = [cifar.CLASSES[k] for k in labels["train_labels"][:5]]
        assert first == ["frog", "truck", "truck", "deer", "automobile"]  # as every tutorial shows them
        assert (labels["train_exact"].size, labels["train_exact"].sum()) == (50_000, 49_927)
    # Channel means of CIFAR-10 are (125.3, 123.0, 113.9); of 1,000 images within four standard errors.
    assert np.abs(tiles.mean((0, 1, 2)) - np.array([125.3, 123.0, 113.9])).max() < 4 * 40 / 1000**0.5

"""Of several copies of a dataset a bad one hides no good one, wherever either lies."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsgm.data import ImageSet, celeba, cifar, load, mnist, omniglot, sha256_of
from lsgm.data.registry import find_dataset
from lsgm.errors import DataError


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    found = tmp_path / "first", tmp_path / "second"
    monkeypatch.setenv("LSGM_DATA", f"{found[0]}:{found[1]}")
    return found


def put(path: Path, raw: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def mnist_files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Return four small idx files, whose md5s are taken for the official ones."""
    draw = np.random.default_rng(0)
    arrays = draw.integers(0, 9, (60, 28, 28)), np.arange(60) % 10, np.ones((9, 28, 28)), np.ones(9)
    items, found = [], {}
    for item, array in zip(mnist.MNIST_FILES, arrays, strict=True):
        found[item.file] = gzip.compress(idx(array))
        items.append(replace(item, contents_md5=hashlib.md5(idx(array)).hexdigest()))
    monkeypatch.setattr(mnist, "MNIST_FILES", tuple(items))
    return found


@pytest.mark.parametrize("where", ["another root", "the same root"])
def test_a_damaged_file_of_mnist_is_passed_over(
    where: str,
    roots: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    files = mnist_files(monkeypatch)
    good = roots[1] / "mnist" if where == "another root" else roots[0]
    for file, raw in files.items():
        put(good / file, raw)
    first = next(iter(files))
    bad = put(roots[0] / "mnist" / first, files[first][:99])
    assert len(load("mnist").splits["test"]) == 9
    assert f"another copy is used, because {bad} is truncated" in capsys.readouterr().err
    put(good / first, b"<html>")
    with pytest.raises(DataError) as error:
        load("mnist")
    for path in (bad, good / first):
        assert f"{path} is truncated or corrupted" in str(error.value)
    assert f"there is no other copy in {roots[0]}, {roots[1]}" in str(error.value)


def test_a_file_that_may_not_be_read_is_passed_over(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, raw in mnist_files(monkeypatch).items():
        for root in roots:
            put(root / "mnist" / file, raw)
    read, refused = os.open, []

    def refuse(path: Path | str, *arguments: Any, **options: Any) -> int:
        if roots[0] in Path(path).parents:
            refused.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    assert len(load("mnist").splits["test"]) == 9
    assert refused


def small(name: str) -> ImageSet:
    pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    return ImageSet(name, "small", sha256_of([pixels]), "uint8", {"test": pixels})


def test_an_archive_of_cifar10_that_is_cut_hides_no_whole_one(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = put(roots[1] / "cifar-10-python.tar.gz", b"an archive")
    item = replace(cifar.CIFAR_FILES[0], sha256=hashlib.sha256(b"an archive").hexdigest())
    monkeypatch.setattr(cifar, "CIFAR_FILES", (item,))
    monkeypatch.setattr(cifar, "read_archive", lambda path: small("cifar10") if path == whole else None)
    put(roots[0] / "cifar10" / item.file, b"an arch")
    assert load("cifar10").version == "small"


def mirror(folder: Path, name: str, raw: bytes, version: str) -> Path:
    about = {"file": "images.npz", "bytes": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}
    put(folder / "images.npz", raw)
    return put(
        folder / "manifest.json", json.dumps({"name": name, "version": version, "files": [about]}).encode()
    )


def packed() -> bytes:
    raw = io.BytesIO()
    np.savez(raw, **{name: np.zeros((3, 98), np.uint8) for name in ("train", "valid", "test")})
    return raw.getvalue()


@pytest.mark.parametrize("damage", ["file", "manifest"])
@pytest.mark.parametrize("where", ["another root", "the same root"])
def test_a_damaged_mirror_hides_no_good_one(
    where: str, damage: str, roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "FIXED_COUNTS", {"train": 3, "val": 3, "test": 3})
    bad = mirror(roots[0] / "mnist-fixed", "mnist-fixed", packed(), "bad")
    put(bad if damage == "manifest" else bad.with_name("images.npz"), b"{")
    good = roots[1 if where == "another root" else 0] / "nearby"
    mirror(good, "mnist-fixed", packed(), "good")
    assert load("mnist-fixed").version == "good"
    if damage == "manifest":
        assert find_dataset("mnist-fixed", list(roots)) == good
    (good / "manifest.json").unlink()
    with pytest.raises(DataError, match=str(bad.parent)):
        load("mnist-fixed")


def test_of_omniglot_and_celeba_too_the_next_copy_serves(
    roots: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(roots[0] / "omniglot" / "chardata.mat", b"cut")
    whole = put(roots[1] / "chardata.mat", b"whole")
    read = omniglot.read_chardata
    monkeypatch.setattr(
        omniglot,
        "read_chardata",
        lambda path, version: small("omniglot") if path == whole else read(path, version),
    )
    assert load("omniglot").version == "small"
    put(roots[0] / "celebahq256.npy", b"\x93NUMPY")
    np.save(roots[1] / "celebahq256.npy", np.zeros((12, 256, 256, 3), np.uint8))
    assert len(celeba.read_celebahq(list(roots), counts=(10, 2)).splits["test"]) == 2

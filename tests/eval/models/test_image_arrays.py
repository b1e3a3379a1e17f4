"""Ready images in an npz or npy: arr_0 as ADM and this project write it, or the only one that fits."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lsgm.config import SamplerConfig
from lsgm.data import arrays as array_images
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm_eval.models import open_source

SAMPLER = SamplerConfig()


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def nchw(images: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_seed_k_is_row_k_in_any_order_and_batch(write: object, tmp_path: Path) -> None:
    images, path = noise(9, 10, 12, 3), tmp_path / "adm.npz"
    assert callable(write)
    write(path, images, np.arange(9))  # arr_1: ADM keeps class labels there
    model = open_source(path)
    assert (model.name, len(model), model.pixels) == ("adm", 9, Pixels(3, 10, 12, "discrete", 8))
    assert model.remark == "images of an npz file, costs unknown"
    assert torch.equal(model.sample(range(9), SAMPLER).images, nchw(images))
    assert torch.equal(model.sample([7, 0, 7, 3], SAMPLER).images, nchw(images)[[7, 0, 7, 3]])
    assert model.sample(range(9), SAMPLER).nfe.tolist() == [0] * 9


def test_an_npz_gives_the_pixels_of_a_folder_of_the_same_images(tmp_path: Path) -> None:
    images = noise(5, 10, 12, 3)
    np.savez(tmp_path / "a.npz", images)
    (tmp_path / "a").mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "a" / f"{k}.png")
    drawn = [open_source(tmp_path / name).sample(range(5), SAMPLER).images for name in ("a.npz", "a")]
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("shape", "pixels"),
    [
        ((4, 8, 6, 3), Pixels(3, 8, 6, "discrete")),
        ((4, 8, 6, 1), Pixels(1, 8, 6, "discrete")),
        ((4, 8, 6), Pixels(1, 8, 6, "discrete")),
        ((4, 3, 8, 6), Pixels(3, 8, 6, "discrete")),
    ],
)
def test_channels_are_found_first_last_or_absent(
    shape: tuple[int, ...], pixels: Pixels, tmp_path: Path
) -> None:
    images, path = noise(*shape), tmp_path / "rows.npy"
    np.save(path, images)
    model = open_source(path)
    expected = images.transpose(0, 3, 1, 2) if shape[-1] in (1, 3) else images.reshape(4, *pixels.shape)
    assert model.pixels == pixels
    assert model.sample(range(4), SAMPLER).images.stride() == torch.empty(4, *pixels.shape).stride()
    assert np.array_equal(model.sample(range(4), SAMPLER).images.numpy(), expected)


def test_black_and_white_rows_are_binary_pixels_and_the_first_grey_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_images, "BLOCK", 200)  # three images of 64 bytes at a time
    bits, path = (noise(10, 8, 8) > 127).astype(np.uint8) * 255, tmp_path / "bits.npy"
    np.save(path, bits)
    assert open_source(path).pixels == Pixels(1, 8, 8, "binary", 1)
    bits[7, 0, 0] = 128
    np.save(path, bits)
    with pytest.raises(DataError, match=r"bits\.npy: image 7 has grey values"):
        open_source(path).fitted(Pixels(1, 8, 8, "binary", 1), 10)


def test_the_sha256_is_of_the_pixels_and_not_of_how_they_are_packed(tmp_path: Path) -> None:
    images = noise(4, 8, 6, 3)
    np.savez(tmp_path / "a.npz", images)
    np.savez_compressed(tmp_path / "b.npz", arr_0=images, labels=np.arange(4))
    np.save(tmp_path / "c.npy", images)
    np.save(tmp_path / "d.npy", images[::-1])
    a, b, c, d = (open_source(tmp_path / name).sha256 for name in ("a.npz", "b.npz", "c.npy", "d.npy"))
    assert a == b == c != d


def test_only_a_block_of_a_large_file_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_images, "BLOCK", 1 << 18)
    path = tmp_path / "large.npz"
    np.savez(path, noise(800, 64, 64, 3))
    tracemalloc.start()
    model = open_source(path)
    for start in range(0, 800, 10):
        model.sample(range(start, start + 10), SAMPLER)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Two copies of a block while it is put together; a batch is half of one.
    assert most < 4 << 18 < path.stat().st_size / 8


FITTING = noise(3, 8, 6, 3)
BAD: dict[str, tuple[dict[str, NDArray[np.generic]], str]] = {
    "floats": (
        {"arr_0": np.zeros((3, 8, 6, 3), np.float32)},
        "bad.npz: arr_0 is float32 and ready images are uint8 in 0..255: round them",
    ),
    "16 bits": ({"arr_0": np.zeros((3, 8, 6, 3), np.uint16)}, "arr_0 is uint16 and ready images are uint8"),
    "alpha": ({"arr_0": noise(3, 8, 6, 4)}, "arr_0 has 4 channels, the last one alpha: flatten it"),
    "features": ({"arr_0": noise(3, 64)}, "arr_0 has shape [3, 64] and holds no images: write [N, height"),
    "no rows": ({"arr_0": noise(0, 8, 6, 3)}, "arr_0 has shape [0, 8, 6, 3] and holds no images"),
    "levels": ({"arr_0": noise(3, 8, 6, 1) // 128}, "arr_0 has no value above 1: give 0..255 in place of"),
    "columns": ({"arr_0": np.asfortranarray(FITTING)}, "arr_0 is stored column by column: write"),
    "statistics": (
        {"mu": np.zeros(4), "sigma": np.eye(4)},
        "bad.npz holds mu float64[4], sigma float64[4, 4] and not one array of images: write them as arr_0",
    ),
    "two sets": ({"a": FITTING, "b": FITTING}, "holds a uint8[3, 8, 6, 3], b uint8[3, 8, 6, 3] and not one"),
    "no array": ({}, "bad.npz holds nothing and not one array of images"),
}


@pytest.mark.parametrize("bad", BAD)
def test_an_array_that_is_no_images_is_named_with_what_it_is(bad: str, tmp_path: Path) -> None:
    arrays, says = BAD[bad]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(DataError, match=re.escape(says)):
        open_source(tmp_path / "bad.npz")


def test_the_only_array_of_images_needs_no_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=np.arange(3), samples=FITTING)
    assert torch.equal(open_source(tmp_path / "a.npz").sample([2], SAMPLER).images, nchw(FITTING[2:]))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[[object()]]], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy is object and ready images are uint8"):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_named(name: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / name
    (np.savez if name == "a.npz" else np.save)(path, noise(20, 8, 6, 3))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(DataError, match=rf"{re.escape(name)} cannot be read"):
        open_source(path)


def test_a_flipped_bit_in_an_npz_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, noise(20, 8, 6, 3))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(DataError, match=r"a\.npz.* cannot be read .*CRC"):
        open_source(path)


def test_a_file_that_became_shorter_is_named_when_its_rows_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, noise(2000, 8, 6, 3))
    model = open_source(path)
    with path.open("r+b") as stream:
        stream.truncate(1000)
    with pytest.raises(DataError, match=r"a\.npy cannot be read \(its end is missing\)"):
        model.sample([1999], SAMPLER)

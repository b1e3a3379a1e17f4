"""Folders and zips of ready images: image k is seed k, and every file that is none is refused by its name."""

from __future__ import annotations

import io
import re
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lsgm import cli
from lsgm.config import SamplerConfig
from lsgm.data import decoding
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm_eval.models import fit, is_source, open_source

SAMPLER = SamplerConfig()
COUNT = 6


def noise(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape or (10, 12, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six RGB PNGs, 12 wide and 10 high, in two sub-folders."""
    path = tmp_path / "samples"
    for k in range(COUNT):
        file = path / str(k // 3) / f"{k:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(k)).save(file)
    return path


def zipped(folder: Path, name: str, base: Path) -> Path:
    path = folder.parent / name
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):  # a zip's own order must not matter
            archive.write(file, file.relative_to(base))
    return path


def test_seed_k_is_image_k_in_order_of_names_whatever_the_batch(folder: Path) -> None:
    model = open_source(folder)
    expected = torch.from_numpy(np.stack([noise(k) for k in range(COUNT)])).permute(0, 3, 1, 2)
    assert torch.equal(model.sample(range(COUNT), SAMPLER).images, expected)
    assert torch.equal(model.sample([4, 1, 4], SAMPLER).images, expected[[4, 1, 4]])
    assert model.sample([], SAMPLER).images.shape == (0, 3, 10, 12)
    assert (model.name, len(model)) == ("samples", COUNT)
    assert model.pixels == Pixels(3, 10, 12, "discrete", 8)


def test_images_lie_in_memory_as_those_of_any_model(folder: Path) -> None:
    """Else a network takes another path for them and rounds differently."""
    assert open_source(folder).sample([0, 1], SAMPLER).images.stride() == torch.empty(2, 3, 10, 12).stride()


def test_what_the_images_cost_is_not_known_and_said_so(folder: Path) -> None:
    model = open_source(folder)
    drawn = model.sample([0, 1], SAMPLER)
    assert drawn.nfe.tolist() == [0, 0]
    assert not model.has_prior
    assert not model.costs_known
    assert model.remark == "images of a folder, costs unknown"


def test_a_zip_is_the_same_set_as_its_folder_with_or_without_a_folder_around(
    folder: Path, tmp_path: Path
) -> None:
    model = open_source(folder)
    for name, base in (("bare.zip", folder), ("wrapped.zip", tmp_path)):
        same = open_source(zipped(folder, name, base))
        assert same.sha256 == model.sha256
        assert torch.equal(
            same.sample(range(COUNT), SAMPLER).images, model.sample(range(COUNT), SAMPLER).images
        )
    assert same.remark == "images of a zip, costs unknown"
    assert same.name == "wrapped"


def test_the_sha256_changes_with_a_pixel_and_with_the_order(folder: Path) -> None:
    before = open_source(folder).sha256
    (folder / "0" / "000.png").rename(folder / "0" / "009.png")
    renamed = open_source(folder).sha256
    pixels = noise(4)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(folder / "1" / "004.png")
    assert len({before, renamed, open_source(folder).sha256}) == 3


def test_hidden_files_and_what_a_mac_adds_to_a_zip_are_left_out(folder: Path, tmp_path: Path) -> None:
    before = open_source(folder).sha256
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / ".thumbnails").mkdir()
    Image.fromarray(noise(99)).save(folder / ".thumbnails" / "0.png")
    assert open_source(folder).sha256 == before
    path = zipped(folder, "mac.zip", tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/samples/._000.png", b"x")
    assert open_source(path).sha256 == before


def test_only_the_images_asked_for_are_decoded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    original = decoding.decode

    def counting(raw: bytes, where: str, *how: Any) -> NDArray[np.uint8]:
        decoded.append(Path(where).name)
        return original(raw, where, *how)

    monkeypatch.setattr(decoding, "decode", counting)
    model = open_source(folder)
    assert decoded == []
    model.sample([3, 5], SAMPLER)
    assert sorted(decoded) == ["003.png", "005.png"]


def test_memory_grows_with_the_batch_and_not_with_the_set(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        path = tmp_path / str(count)
        path.mkdir()
        raw = encoded(Image.fromarray(noise(0, 64, 64, 3)))
        for k in range(count):
            (path / f"{k:04d}.png").write_bytes(raw)
        tracemalloc.start()
        model = open_source(path)
        for start in range(0, count, 10):
            model.sample(range(start, start + 10), SAMPLER)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    few, many = peak(50), peak(250)
    # 200 more images are 2.4 MB decoded; names, readers and hashes take about a kilobyte each.
    assert many - few < 0.25 * 200 * 64 * 64 * 3


def test_lossy_files_are_counted_in_the_remark(folder: Path) -> None:
    (folder / "2").mkdir()
    Image.fromarray(noise(7)).save(folder / "2" / "a.jpg")
    Image.fromarray(noise(8)).save(folder / "2" / "b.webp", lossless=False)
    Image.fromarray(noise(9)).save(folder / "2" / "c.webp", lossless=True)
    model = open_source(folder)
    assert "2 of 9 files are JPEG or lossy WebP, whose artefacts move distances" in model.remark
    assert torch.equal(model.sample([8], SAMPLER).images[0].permute(1, 2, 0), torch.from_numpy(noise(9)))


def test_black_and_white_greyscale_images_are_binary_pixels(tmp_path: Path) -> None:
    bits = (noise(3, 4, 8, 8) > 127).astype(np.uint8) * 255
    for k, image in enumerate(bits):
        Image.fromarray(image).convert("1" if k == 2 else "L").save(tmp_path / f"{k}.png")
    model = open_source(tmp_path)
    assert model.pixels == Pixels(1, 8, 8, "binary", 1)
    assert torch.equal(model.sample(range(4), SAMPLER).images[:, 0], torch.from_numpy(bits))
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "3.png")
    assert open_source(tmp_path).pixels == Pixels(1, 8, 8, "discrete", 8)


RGB = Image.fromarray(noise(0))
GREY = Image.fromarray(noise(0, 10, 12))


def sixteen_bit_rgb() -> bytes:
    """A PNG of 16 bits per channel, which Pillow reads as 8 bits without a word and cannot write."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 12, 10, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(12 * 6) for _ in range(10)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def rotated(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(RGB, kind, exif=exif)


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "a smaller image": (
        lambda: encoded(RGB.resize((8, 8))),
        "0/000.png is 12 x 10 pixels and 1/004.png is 8 x 8: the images of a set have one size",
    ),
    "greyscale among colours": (
        lambda: encoded(GREY),
        " mixes greyscale and RGB: 1 grey (1/004.png) and 5 RGB (0/000.png): write all images alike",
    ),
    "16-bit greyscale": (
        lambda: encoded(Image.fromarray(np.full((10, 12), 4000, np.uint16))),
        "1/004.png has more than 8 bits per channel: round it",
    ),
    "16-bit colours": (sixteen_bit_rgb, "1/004.png has more than 8 bits per channel: round it"),
    "alpha": (lambda: encoded(RGB.convert("RGBA")), "1/004.png has an alpha channel: flatten it"),
    "a transparent colour": (
        lambda: encoded(RGB, transparency=(0, 0, 0)),
        "1/004.png has an alpha channel: flatten it",
    ),
    "a palette": (lambda: encoded(RGB.quantize(8)), "1/004.png has a palette of at most 256 colours: write"),
    "ink": (lambda: encoded(RGB.convert("CMYK"), "JPEG"), "1/004.png has the colour mode CMYK: write it as"),
    "a film": (
        lambda: encoded(RGB, save_all=True, append_images=[RGB.rotate(180)]),
        "1/004.png holds several frames: write each",
    ),
    "a sleeping PNG": (lambda: rotated("PNG"), "1/004.png is stored rotated (an EXIF tag)"),
    "a sleeping JPEG": (lambda: rotated("JPEG"), "1/004.png is stored rotated (an EXIF tag)"),
    "half a PNG": (lambda: encoded(RGB)[:300], "1/004.png cannot be read ("),
    "a flipped byte": (
        lambda: encoded(RGB)[:200] + bytes([encoded(RGB)[200] ^ 1]) + encoded(RGB)[201:],
        "1/004.png cannot be read (",
    ),
    "nothing": (lambda: b"", "1/004.png is no image, whatever its name says: replace it"),
    "text": (lambda: b"not an image", "1/004.png is no image, whatever its name says: replace it"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_a_bad_file_in_the_middle_is_named_before_anything_is_measured(
    bad: str, as_zip: bool, folder: Path
) -> None:
    write, says = BAD[bad]
    (folder / "1" / "004.png").write_bytes(write())
    path = zipped(folder, "set.zip", folder) if as_zip else folder
    with pytest.raises(DataError, match=re.escape(says)) as caught:
        open_source(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_jpeg_cut_short_is_named_when_its_turn_comes(folder: Path) -> None:
    """JPEG has no checksums: what is missing shows when it is decoded."""
    (folder / "1" / "004.png").write_bytes(encoded(RGB, "JPEG")[:-40])
    model = open_source(folder)
    model.sample(range(4), SAMPLER)
    with pytest.raises(DataError, match=r"1/004\.png cannot be read"):
        model.sample(range(COUNT), SAMPLER)


def test_a_file_that_changes_or_goes_after_the_check_is_named(folder: Path) -> None:
    model = open_source(folder)
    Image.fromarray(noise(77)).save(folder / "0" / "001.png")
    with pytest.raises(DataError, match=r"0/001\.png has changed since it was checked"):
        model.sample([1], SAMPLER)
    (folder / "0" / "002.png").unlink()
    with pytest.raises(DataError, match=r"0/002\.png cannot be read"):
        model.sample([2], SAMPLER)


def test_what_is_no_image_is_not_skipped_in_silence(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "notes.txt").write_text("best of three")
    assert len(open_source(folder)) == COUNT
    assert "samples: left out are files not read: 1 .txt (notes.txt)" in capsys.readouterr().err


def test_words_of_convert_make_images_of_what_else_is_refused(folder: Path) -> None:
    before = open_source(folder)
    assert open_source(folder, convert="all").sha256 == before.sha256  # nothing is converted
    (folder / "1" / "004.png").write_bytes(encoded(GREY))
    mixed = open_source(folder, convert="all")
    assert mixed.pixels == before.pixels
    assert torch.equal(mixed.sample([4], SAMPLER).images[0, 1], torch.from_numpy(np.array(GREY)))


def test_an_empty_folder_or_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("samples/", b"")
    for name in ("empty", "empty.zip"):
        with pytest.raises(DataError, match=rf"{name} is empty.*put \.png"):
            open_source(tmp_path / name)


def test_a_damaged_or_encrypted_zip_is_named(folder: Path, tmp_path: Path) -> None:
    path = zipped(folder, "set.zip", folder)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"set\.zip cannot be read"):
        open_source(path)
    locked = bytearray(whole)
    for at in re.finditer(rb"PK\x01\x02", whole):
        locked[at.start() + 8] |= 1  # the flag of encryption, of each member
    path.write_bytes(bytes(locked))
    with pytest.raises(DataError, match=r"000\.png cannot be read .*(encrypt|password)"):
        open_source(path)
    with pytest.raises(DataError, match=r"gone\.zip does not exist"):
        open_source(tmp_path / "gone.zip")


def test_fewer_images_than_asked_for_are_an_error_and_never_a_smaller_measurement(folder: Path) -> None:
    model = open_source(folder)
    says = r"samples has 6 images and 50,000 are asked for: add images or choose a smaller tier"
    with pytest.raises(DataError, match=says):
        fit(model, model.pixels, 50_000)
    with pytest.raises(DataError, match="has 6 images and 7 are asked for"):
        model.sample([5, 6], SAMPLER)
    with pytest.raises(DataError, match="no image number -1"):
        model.sample([-1], SAMPLER)


def test_images_of_another_task_are_refused_with_a_file_of_theirs(folder: Path, tmp_path: Path) -> None:
    model = open_source(folder)
    with pytest.raises(DataError, match=r"000\.png is 12 x 10 pixels and the task's images are 32 x 32"):
        fit(model, Pixels(3, 32, 32, "discrete"), 1)
    grey = tmp_path / "grey"
    grey.mkdir()
    for k in range(3):
        Image.fromarray(np.full((10, 12), 0 if k < 2 else 9, np.uint8)).save(grey / f"{k}.png")
    with pytest.raises(DataError, match=r"0\.png is greyscale and the task's images are RGB"):
        fit(open_source(grey), model.pixels, 1)
    with pytest.raises(DataError, match=r"2\.png has grey values and the task's images are black and white"):
        fit(open_source(grey), Pixels(1, 10, 12, "binary", 1), 1)


def test_bits_of_a_likelihood_do_not_keep_eight_bit_images_out(folder: Path) -> None:
    five = Pixels(3, 10, 12, "discrete", 5)
    assert fit(open_source(folder), five, COUNT).pixels == five


def test_a_folder_is_ready_images_unless_it_is_a_run(folder: Path) -> None:
    assert is_source(folder)
    (folder / "config.toml").write_text("")
    assert not is_source(folder)
    assert not is_source(folder.parent / "nothing")


class Mean(torch.nn.Module):
    """Three features of an image."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


def test_a_mixed_set_is_measured_by_a_command_that_allows_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSGM_CACHE", str(tmp_path / "cache"))
    for k in range(104):
        (folder / f"{k:03d}.png").write_bytes(encoded(GREY if k == 3 else Image.fromarray(noise(k))))
    script = str(tmp_path / "mean.ts")
    torch.jit.trace(Mean(), torch.zeros(2, 3, 10, 12, dtype=torch.uint8)).save(script)
    words = ["eval", "image-folder", "--data", str(folder), "--model", f"a={folder}", "--images", "all"]
    words += ["--extractor", f"torchscript:{script}", "--only", "quality", "--tier", "smoke"]
    words += ["--out", str(tmp_path / "out"), "--device", "cpu", "--report", "no"]
    assert cli.main(words) == 2
    assert "mixes greyscale and RGB: 1 grey (003.png) and 109 RGB" in capsys.readouterr().err
    assert cli.main([*words, "--convert", "gray"]) == 2
    assert "did you mean 'grey'?" in capsys.readouterr().err
    assert cli.main([*words, "--convert", "grey"]) == 0

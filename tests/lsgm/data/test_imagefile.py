"""What one image file must be: the same answer in every use, and what each word of --convert does."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import deep_png, deep_tiff, encoded, photo, photos, turned, zipped
from PIL import Image, ImageOps

from lsgm.config import CONVERSIONS, DataConfig
from lsgm.data import imagefile, load, open_images, parse_convert
from lsgm.data.imagefile import decode, fitted, inspect
from lsgm.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
RGB, GREY = photo(0), photo(1).convert("L")
DEEP = RNG.integers(0, 65536, (10, 12, 4), dtype=np.uint16)
TWO = {"save_all": True, "append_images": [RGB.rotate(180)]}

NEEDS: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "16-bit RGB PNG": (lambda: deep_png(DEEP[..., :3]), "16bit", "more than 8 bits"),
    "16-bit RGB TIFF": (lambda: deep_tiff(DEEP[..., :3], "<"), "16bit", "more than 8 bits"),
    "16-bit PPM": (
        lambda: b"P6\n12 10\n65535\n" + DEEP[..., :3].astype(">u2").tobytes(),
        "16bit",
        "more than",
    ),
    "alpha": (lambda: encoded(RGB.convert("RGBA")), "alpha", "an alpha channel"),
    "a transparent colour": (lambda: encoded(RGB, transparency=(0, 0, 0)), "alpha", "an alpha channel"),
    "a palette": (lambda: encoded(RGB.quantize(8)), "palette", "a palette"),
    "ink": (lambda: encoded(RGB.convert("CMYK"), "JPEG"), "cmyk", "the colour mode CMYK"),
    "a moving PNG": (lambda: encoded(RGB, **TWO), "frame", "several frames"),
    "a moving GIF": (lambda: encoded(RGB, "GIF", **TWO), "frame", "several frames"),
    "pages": (lambda: encoded(RGB, "TIFF", **TWO), "frame", "several frames"),
    "a rotated PNG": (lambda: turned(RGB, 3, "PNG"), "rotated", "stored rotated"),
    "a rotated JPEG": (lambda: turned(RGB, 3, "JPEG"), "rotated", "stored rotated"),
    "a rotated TIFF": (lambda: turned(RGB, 3, "TIFF"), "rotated", "stored rotated"),
    "grey among colours": (lambda: encoded(GREY), "grey", "mixes greyscale and RGB"),
}
NEVER: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", r"is no image.*it is empty"),
    "a web page": (lambda: b"\n<!DOCTYPE html><title>404</title>", r"is no image.*it is a web page"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "text": (lambda: b"not an image", "is no image, whatever its name says: replace it"),
    "half a PNG": (lambda: encoded(RGB)[:300], "cannot be read"),
    "half a JPEG": (lambda: encoded(RGB, "JPEG")[:-40], "cannot be read"),
    "half a TIFF": (lambda: encoded(RGB, "TIFF")[:60], "cannot be read|no image"),
    "floats": (lambda: encoded(Image.new("F", (12, 10)), "TIFF"), "32 bits or floats"),
    "whole numbers": (lambda: encoded(Image.new("I", (12, 10)), "TIFF"), "32 bits or floats"),
    "a programme": (lambda: encoded(RGB, "EPS"), "is no image"),
    "16 bits and grey alpha": (lambda: deep_png(DEEP[..., :2]), "16 bits per channel in a form that is not"),
}
USES: dict[str, Callable[[Path, str], object]] = {
    "train": lambda path, convert: load(str(path), image_size=8, convert=convert),
    "native": lambda path, convert: load(str(path), image_size=None, convert=convert),
    "samples": lambda path, convert: _all(path, convert),
}


def _all(path: Path, convert: str) -> object:
    images = open_images(path, convert)
    return images.read(range(len(images)))


def with_one(raw: bytes, tmp_path: Path, as_zip: bool) -> Path:
    folder = photos(tmp_path / "set")
    (folder / "zz.png").write_bytes(raw)
    return zipped(folder, tmp_path / "set.zip") if as_zip else folder


@pytest.mark.parametrize("kind", NEEDS)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_every_use_refuses_what_needs_converting_and_takes_it_by_its_word(
    kind: str, use: str, as_zip: bool, tmp_path: Path
) -> None:
    write, word, says = NEEDS[kind]
    path = with_one(write(), tmp_path, as_zip)
    for convert in ("", ",".join({*CONVERSIONS} - {word, f"{word}-black"})):
        with pytest.raises(DataError, match=rf"zz\.png.*{says}|{says}.*zz\.png") as caught:
            USES[use](path, convert)
        assert f"--convert {word}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert USES[use](path, word) is not None


@pytest.mark.parametrize("kind", NEVER)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("as_zip", [False, True], ids=["folder", "zip"])
def test_every_use_refuses_what_is_no_image_and_names_it(
    kind: str, use: str, as_zip: bool, tmp_path: Path
) -> None:
    write, says = NEVER[kind]
    path = with_one(write(), tmp_path, as_zip)
    with pytest.raises(DataError, match=rf"set(\.zip)?: zz\.png .*({says})") as caught:
        USES[use](path, "all,frame")
    assert "0x" not in str(caught.value)


WHOLE = [encoded(RGB, kind) for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF")]
WHOLE += [deep_png(DEEP[..., :3]), deep_tiff(DEEP[..., :3], ">"), turned(RGB, 6, "TIFF")]
WHOLE += [encoded(RGB.quantize(8))]
CHANGES = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=4)


def outcome(raw: bytes) -> str:
    """Return what is wrong with an image file, or that it is one of the shape that its header says."""
    words = parse_convert("all,frame")
    try:
        header = inspect(raw, "x.png", words)
        if header.height * header.width > 10**6:
            return "x.png is large"
        right = decode(raw, "x.png", words, header.channels).shape == header.shape
    except DataError as error:
        return str(error)
    return "x.png is an image" if right else "of another shape"


@settings(max_examples=200)
@given(st.sampled_from(WHOLE), CHANGES)
@pytest.mark.filterwarnings("ignore")
def test_whatever_bytes_are_damaged_it_is_an_image_or_one_sentence(
    raw: bytes, changes: list[tuple[float, int]]
) -> None:
    damaged = bytearray(raw)
    for place, value in changes:
        damaged[int(place**2 * (len(raw) - 1))] = value  # most of what can break is at the beginning
    said = outcome(bytes(damaged))
    assert said.startswith("x.png ")
    assert "\n" not in said


def chunks_of(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return the kind and content of every chunk of a PNG."""
    found, at = [], 8
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "big")
        found.append((raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def png_of(chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG of chunks, each with its checksum."""
    parts = [kind + content for kind, content in chunks]
    sized = (len(part[4:]).to_bytes(4, "big") + part + zlib.crc32(part).to_bytes(4, "big") for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(sized)


def read_whole(raw: bytes) -> object:
    """Return header and pixels of an image file, or what is wrong with it."""
    try:
        header = inspect(raw, "x.png", parse_convert(""))
        pixels = decode(raw, "x.png", parse_convert(""), header.channels)
    except DataError as error:
        return str(error)
    return header, pixels.shape, pixels.tobytes()


PLAIN = [encoded(RGB), encoded(GREY), encoded(RGB, dpi=(72, 72)), encoded(Image.new("RGB", (1, 1)))]
EXTRA = [
    *((b"gAMA", bytes(4)), (b"gAMA", bytes(3)), (b"sRGB", b"\0"), (b"pHYs", bytes(9)), (b"tEXt", b"a\0b")),
    *((b"tRNS", bytes(6)), (b"tRNS", bytes(2)), (b"PLTE", bytes(6)), (b"IEND", b""), (b"IEND", b"more")),
    *((b"IHDR", bytes(13)), (b"IDAT", b""), (b"IDAT", b"abc"), (b"acTL", bytes(8)), (b"quIt", b"")),
]


@settings(max_examples=200)
@given(
    st.sampled_from(PLAIN),
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from(EXTRA)), max_size=2),
    st.lists(st.tuples(st.integers(0, 5), st.floats(0, 1), st.integers(0, 255)), max_size=2),
    st.integers(0, 5),
    st.integers(0, 9),
)
@pytest.mark.filterwarnings("ignore")
def test_a_png_read_the_short_way_is_what_pillow_makes_of_it_down_to_the_words_of_errors(
    raw: bytes,
    more: list[tuple[int, tuple[bytes, bytes]]],
    changes: list[tuple[int, float, int]],
    without: int,
    cut: int,
) -> None:
    chunks = chunks_of(raw)
    for place, chunk in more:
        chunks.insert(place, chunk)
    for place, share, value in changes:
        kind, content = chunks[place % len(chunks)]
        if content:
            changed = bytearray(content)
            changed[int(share * (len(content) - 1))] = value
            chunks[place % len(chunks)] = (kind, bytes(changed))
    if without < len(chunks) and more:
        del chunks[without]
    raw = png_of(chunks)[: -cut or None]
    quick = read_whole(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imagefile, "_plain_png", lambda raw, known=False: None)
        assert quick == read_whole(raw)


def test_the_short_way_is_taken_by_what_pillow_writes() -> None:
    assert all(imagefile._plain_png(raw) is not None for raw in PLAIN)
    assert imagefile._plain_png(encoded(RGB.convert("RGBA"))) is None


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    path = photos(tmp_path / "set")
    for read in USES.values():
        with pytest.raises(DataError, match=r"set: 000\.png claims more pixels than any image of a set"):
            read(path, "")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2**26)
    monkeypatch.setenv("LSGM_LARGEST_PICTURE", "50")
    for read in USES.values():
        with pytest.raises(
            DataError, match=r"000\.png has \d+ pixels, and at most 50 are read; .* set LSGM_LARGE"
        ):
            read(path, "")


def turned_into(raw: bytes, convert: str) -> np.ndarray:
    words = parse_convert(convert)
    header = inspect(raw, "x.png", words)
    pixels = decode(raw, "x.png", words, header.channels)
    assert pixels.shape == header.shape
    return pixels.transpose(1, 2, 0)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_rounded_and_not_cut(channels: int) -> None:
    values = DEEP[..., :channels]
    expected = np.round(values / 257).astype(np.uint8)
    files = [deep_png(values)]
    files += [deep_tiff(values, end) for end in "<>"] if channels == 3 else []
    if channels == 1:
        files += [encoded(Image.fromarray(values[..., 0]), kind) for kind in ("TIFF", "PPM", "PNG")]
    for raw in files:
        assert np.array_equal(turned_into(raw, "16bit"), expected)


@pytest.mark.parametrize("most", [1023, 65535])
def test_deep_ppm_is_scaled_by_what_it_says_white_is(most: int) -> None:
    values = RNG.integers(0, most + 1, (10, 12, 3))
    raw = b"P6\n# 12 10 255\n12 10\n%d\n" % most + values.astype(">u2").tobytes()
    assert np.abs(turned_into(raw, "16bit") - values * 255 / most).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("word", "behind"), [("alpha", 255), ("alpha-black", 0)])
def test_alpha_is_laid_onto_the_background_that_the_word_says(word: str, behind: int) -> None:
    rgba = RNG.integers(0, 256, (10, 12, 4), dtype=np.uint8)
    share = rgba[..., 3:] / 255
    expected = rgba[..., :3] * share + behind * (1 - share)
    flat = turned_into(encoded(Image.fromarray(rgba)), word)
    assert np.abs(flat - expected).max() <= 1
    grey = turned_into(encoded(Image.fromarray(rgba).convert("LA")), word)
    assert grey.shape == (10, 12, 1)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_a_rotation_is_done_as_its_tag_says(orientation: int, kind: str) -> None:
    raw = turned(RGB, orientation, kind, **({"lossless": True} if kind == "WEBP" else {}))
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(raw))))
    assert np.array_equal(turned_into(raw, "rotated"), upright)


def test_a_palette_gives_the_colours_that_it_names_and_greys_alone_grey() -> None:
    colours, greys = RGB.quantize(8), GREY.convert("P")
    assert np.array_equal(turned_into(encoded(colours), "palette"), np.asarray(colours.convert("RGB")))
    assert np.array_equal(turned_into(encoded(greys), "palette")[..., 0], np.asarray(GREY))


def test_a_gif_has_no_form_without_a_palette_and_is_read_as_its_colours() -> None:
    colours = RGB.quantize(8)
    assert np.array_equal(turned_into(encoded(colours, "GIF"), ""), np.asarray(colours.convert("RGB")))
    assert np.array_equal(turned_into(encoded(GREY, "GIF"), "")[..., 0], np.asarray(GREY))


def test_the_first_frame_is_taken_where_one_is_asked_for() -> None:
    assert np.array_equal(turned_into(encoded(RGB, "TIFF", **TWO), "frame"), np.asarray(RGB))


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "BMP", "PNG"])
def test_lossless_kinds_give_the_pixels_as_they_are(kind: str) -> None:
    for image in (RGB, GREY):
        assert np.array_equal(turned_into(encoded(image, kind), "").squeeze(), np.asarray(image))


def test_a_jpeg_with_a_preview_behind_it_is_one_picture() -> None:
    raw = encoded(RGB, "MPO", save_all=True, append_images=[RGB.resize((6, 5))])
    assert turned_into(raw, "").shape == (10, 12, 3)


@pytest.mark.parametrize("first", ["000", "zzz"])
@pytest.mark.parametrize("use", USES)
def test_a_mixture_of_grey_and_colour_is_not_decided_by_the_first_name(
    first: str, use: str, tmp_path: Path
) -> None:
    folder = photos(tmp_path / "set", 6, first=1)
    GREY.save(folder / f"{first}.png")
    with pytest.raises(
        DataError, match=rf"set mixes greyscale and RGB: 1 grey \({first}\.png\) and 6 RGB \(001\.png\)"
    ):
        USES[use](folder, "")
    grey = open_images(folder, "grey").read([0 if first == "000" else 6])[0].numpy()
    assert np.array_equal(grey, np.stack([np.asarray(GREY)] * 3))


@given(st.integers(8, 40), st.integers(8, 40), st.integers(8, 20), st.integers(8, 20))
def test_cropping_keeps_the_centre_and_the_proportions(height: int, width: int, h: int, w: int) -> None:
    height, width = max(height, h), max(width, w)
    flat = np.full((3, height, width), 77, np.uint8)
    out = fitted(flat, (h, w))
    assert out.shape == (3, h, w)
    assert (out == 77).all()


def test_what_has_the_size_is_not_touched_and_a_wide_one_loses_its_sides() -> None:
    pixels = np.asarray(RGB).transpose(2, 0, 1)
    assert np.array_equal(fitted(pixels, (10, 12)), pixels)
    wide = np.zeros((1, 8, 48), np.uint8)
    wide[:, :, 16:32] = 200
    assert (fitted(wide, (8, 16)) == 200).all()


def test_a_word_that_is_none_is_refused_where_it_is_given() -> None:
    assert parse_convert("all").words == {"grey", "palette", "cmyk", "alpha", "rotated", "16bit"}
    assert str(parse_convert(" Alpha, alpha-black")) == "alpha-black"
    with pytest.raises(ConfigError, match="convert has no 'palete'; did you mean 'palette'"):
        parse_convert("palete")
    with pytest.raises(ConfigError, match="convert has no 'x'; give all, or some of grey, palette"):
        DataConfig(convert="x")

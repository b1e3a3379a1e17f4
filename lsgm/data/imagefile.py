"""One image file: what it must be in every use, what ``--convert`` allows besides, how it becomes pixels.

It is 8-bit greyscale or RGB, upright, of one frame, or is refused in one sentence that says what to do.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
import sys
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lsgm.config import Convert
from lsgm.errors import DataError, UserError
from lsgm.files.limits import IMAGE_PIXELS
from lsgm.files.names import said


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow, zipfile or zlib raise into a DataError that names it."""
    try:
        yield
    except UserError:
        raise
    except UnidentifiedImageError as error:  # its own words name a buffer in memory
        raise DataError(f"{where} is no image, whatever its name says: replace it") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{where} claims more pixels than any image of a set: replace it") from error
    # A list of what is raised for damaged bytes would never be whole: SyntaxError for a PNG, TypeError for a
    # TIFF, RuntimeError for an encrypted zip, TokenError for an array's header, MemoryError for any size.
    except Exception as error:
        why = (isinstance(error, OSError) and error.strerror) or said(error)
        raise DataError(f"{where} cannot be read ({why}): replace it") from error


# What a file says of its image before it is decoded

# What Pillow warns of is refused here or means nothing for pixels, and a hostile file makes thousands of it.
warnings.filterwarnings("ignore", module=r"PIL\.")

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "DIB", "TIFF", "GIF", "PPM")
"""What is opened, whatever a file is called."""
_CHANNELS = {"1": 1, "L": 1, "LA": 1, "La": 1, "RGB": 3, "RGBA": 3, "RGBa": 3, "PA": 3, "CMYK": 3, "YCbCr": 3}
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")
_PNG, _DEPTH, _ORIENTATION, _BITS = b"\x89PNG\r\n\x1a\n", 24, 0x0112, 258
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TAGGED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_LFS = b"version https://git-lfs"


class ImageHeader(NamedTuple):
    """What a file says of its image before it is decoded, as it will be once that is done."""

    channels: int
    height: int
    width: int
    lossy: bool
    """Whether its compression changed pixels, as that of JPEG does."""
    converted: bool = False
    """Whether it is accepted by a word of ``--convert`` alone."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


def inspect(raw: bytes, where: str, convert: Convert) -> ImageHeader:
    """Return what the bytes of an image file say of it; a PNG's checksums are verified, nothing is decoded.

    Raises DataError that begins with ``where`` for a damaged file, and for one with alpha, a palette (but for
    GIF, which has no other form), other colours than grey and RGB, more than 8 bits per channel, several
    frames or an EXIF rotation, unless ``convert`` has the word for it.
    """
    if plain := _plain_png(raw):
        return plain.header
    _refuse_pages(raw, where)
    if (most := IMAGE_PIXELS.value) > IMAGE_PIXELS.default:  # Pillow has a bound of its own, of twice this
        Image.MAX_IMAGE_PIXELS = max(most // 2, Image.MAX_IMAGE_PIXELS or most)
    with reading(where), Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
        IMAGE_PIXELS.hold(where, image.width * image.height)
        if wrong := _wrong(image, raw, convert):
            raise DataError(f"{where} {wrong}")
        width, height = image.size
        if image.format == "TIFF":  # whose turned size not every Pillow gives before it is decoded
            (width,), (height,) = _tag(image, 256, (width,)), _tag(image, 257, (height,))
        if _orientation(image) >= 5:
            width, height = height, width
        converted = bool(convert.words) and bool(_wrong(image, raw, Convert()))
        header = ImageHeader(_channels(image), height, width, _lossy(image, raw), converted)
        untouched = image.mode != "P" and not _TAGGED & image.info.keys()
        if untouched:
            image.verify()
    if not untouched:  # asking for its colours, or for its tags, may have decoded it
        with reading(where), Image.open(io.BytesIO(raw), formats=_FORMATS) as again:
            again.verify()
    return header


@dataclass(frozen=True)
class _PlainPng:
    """A PNG that is grey or RGB, 8 bits deep, not interlaced, and says nothing that moves its pixels."""

    header: ImageHeader
    packed: bytes
    """Its pixels, filtered and deflated."""

    def pixels(self) -> NDArray[np.uint8] | None:
        """Return the pixels uint8 [C, H, W] by Pillow's own decoder, or None where it is damaged."""
        channels, height, width = self.header.shape
        mode = "L" if channels == 1 else "RGB"
        try:
            raw = Image.frombytes(mode, (width, height), self.packed, "zip", mode).tobytes()
        except (ValueError, OSError, MemoryError):
            return None
        return np.frombuffer(raw, np.uint8).reshape(height, width, channels).transpose(2, 0, 1)


_CHUNK, _IHDR = struct.Struct(">I4s"), struct.Struct(">8sI4sIIBBBBB")
_IGNORED = {b"gAMA": 4, b"sRGB": 1, b"cHRM": 32, b"pHYs": 9, b"tIME": 7}
"""Chunks that a plain PNG may have, and their lengths; a reader that corrects no colours passes over them."""
_PLAIN_PIXELS = 2**24


def _plain_png(raw: bytes, *, known: bool = False) -> _PlainPng | None:
    """Return what a PNG of the kind that programs write by the thousand holds, None of any other file.

    Pillow takes several times as long to find out the same. Every checksum is verified, unless they are
    ``known`` to be right. What is unusual or damaged is left to Pillow, which knows what is wrong with it.
    """
    if len(raw) < _IHDR.size:
        return None
    signature, length, kind, width, height, depth, colour, *rest = _IHDR.unpack_from(raw)
    channels = {0: 1, 2: 3}.get(colour, 0)
    if (signature, length, kind, depth, rest) != (_PNG, 13, b"IHDR", 8, [0, 0, 0]):
        return None
    if not (channels and 0 < width * height <= min(_PLAIN_PIXELS, Image.MAX_IMAGE_PIXELS or _PLAIN_PIXELS)):
        return None
    if not known and width * height > IMAGE_PIXELS.value:
        return None
    at, data, view = len(_PNG), [], memoryview(raw)
    while at + 12 <= len(raw):
        length, kind = _CHUNK.unpack_from(raw, at)
        end = at + 8 + length
        if not known and zlib.crc32(view[at + 4 : end]).to_bytes(4, "big") != raw[end : end + 4]:
            return None
        if kind == b"IDAT":
            data.append(view[at + 8 : end])
        elif kind == b"IEND":
            header = ImageHeader(channels, height, width, lossy=False)
            return _PlainPng(header, b"".join(data)) if data and not length else None
        elif data or not (_IGNORED.get(kind) == length or at == len(_PNG)):
            return None
        at = end + 4
    return None


def _refuse_pages(raw: bytes, where: str) -> None:
    """Name what failed downloads leave under an image's name."""
    start = raw[:512].lstrip().lower()
    if not raw:
        what = "it is empty"
    elif start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        what = "it is a web page"
    elif start.startswith(_LFS):
        what = "it is a pointer of Git LFS: run git lfs pull"
    else:
        return
    raise DataError(f"{where} is no image, whatever its name says: replace it ({what})")


def _wrong(image: Image.Image, raw: bytes, convert: Convert) -> str:
    """Return what keeps an image out and what to do about it, or an empty string."""
    mode, bits = image.mode, _bits(image, raw)
    if bits > 16 or mode == "F" or (mode == "I" and bits <= 8):
        return "has values of 32 bits or floats, whose white is not stated: round them to 8 bits first"
    if bits > 8 and "16bit" not in convert:
        return (
            "has more than 8 bits per channel: round it to 8 bits as the model means it, or give "
            "--convert 16bit"
        )
    if bits not in (8, 16) or (bits == 16 and (mode not in (*_DEEP, "RGB", "RGBA") or _cut_out(image))):
        return f"has {bits} bits per channel in a form that is not read ({mode}): round it to 8 bits first"
    if (mode in _ALPHA or "transparency" in image.info) and convert.alpha is None:
        return (
            "has an alpha channel: flatten it onto a background first, or give --convert alpha (onto white) "
            "or alpha-black"
        )
    if mode == "P" and image.format != "GIF" and "palette" not in convert:
        return "has a palette of at most 256 colours: write it as RGB or greyscale, or give --convert palette"
    if mode in ("CMYK", "YCbCr") and "cmyk" not in convert:
        return f"has the colour mode {mode}: write it as RGB or greyscale, or give --convert cmyk"
    if mode not in _CHANNELS and mode not in _DEEP and mode != "P":
        return f"has the colour mode {mode}: write it as RGB or greyscale"
    # MPO is how cameras write a JPEG with its preview behind it: one picture.
    if image.format != "MPO" and getattr(image, "is_animated", False) and "frame" not in convert:
        return "holds several frames: write each as a file of its own, or give --convert frame for the first"
    if _orientation(image) != 1 and "rotated" not in convert:
        return (
            "is stored rotated (an EXIF tag), which not every reader undoes: write it upright, or give "
            "--convert rotated"
        )
    return ""


def _cut_out(image: Image.Image) -> bool:
    """Return whether 16-bit values have a sign, a transparent colour or an order that rounding would miss."""
    if "transparency" in image.info or _tag(image, 339, (1,))[0] != 1:
        return True
    return image.mode not in _DEEP and image.format != "PPM" and _swapped(_forms(image)[0]) is None


def _bits(image: Image.Image, raw: bytes) -> int:
    """Return bits per channel, 8 for fewer.

    Pillow gives 16-bit RGB as plain RGB with half of its bits cut off: the file itself must be asked.
    """
    if image.format == "PNG":
        return max(8, raw[_DEPTH])
    if image.format == "TIFF":
        return max(8, *_tag(image, _BITS, (1,)))
    if image.format == "PPM" and image.mode != "1":
        numbers = re.findall(rb"\d+", re.sub(rb"#[^\r\n]*", b"", raw[2:4096]))
        return 16 if int(numbers[2]) > 255 else 8
    return 8


def _tag(image: Image.Image, tag: int, default: tuple[int, ...]) -> tuple[int, ...]:
    tags: Any = getattr(image, "tag_v2", {})
    value = tags.get(tag, default)
    return tuple(value) if isinstance(value, tuple) else (int(value),)


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 for upright, without decoding a PNG for tags that it does not have."""
    if not _TAGGED & image.info.keys() and image.format != "TIFF":
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if value in range(2, 9) else 1


def _channels(image: Image.Image) -> int:
    if image.mode == "P":
        palette = np.frombuffer(bytes(image.getpalette("RGB") or ()), np.uint8).reshape(-1, 3)
        return 1 if bool((palette == palette[:, :1]).all()) else 3
    return _CHANNELS.get(image.mode, 1)


def _lossy(image: Image.Image, raw: bytes) -> bool:
    if image.format == "TIFF":
        return _tag(image, 259, (1,))[0] in (6, 7, 50001)  # JPEG, old and new, and WebP
    return image.format in ("JPEG", "MPO") or (image.format == "WEBP" and b"VP8L" not in raw[:64])


# From a file's bytes to pixels


def decode(raw: bytes, where: str, convert: Convert, channels: int) -> NDArray[np.uint8]:
    """Return the pixels uint8 [C, H, W] of a file that `inspect` accepted, grey as RGB where a set has it.

    Raises DataError that begins with ``where`` for a file that is damaged inside.
    """
    png = _plain_png(raw, known=True)
    if png and png.header.channels == channels and (found := png.pixels()) is not None:
        return found
    with reading(where), Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
        # A TIFF is turned by Pillow as it is decoded.
        turn = None if image.format == "TIFF" else _TURNS.get(_orientation(image))
        deep = image.mode in _DEEP or (_bits(image, raw) == 16 and image.format != "PPM")
        flat = _flattened(_rounded(image, raw) if deep else image, convert)
        if turn is not None:
            flat = flat.transpose(turn)
        plain = flat.convert("L" if channels == 1 else "RGB")
        return np.atleast_3d(np.asarray(plain)).transpose(2, 0, 1)


def _to_8(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Return round(v / 257), by which 0 stays 0 and 65535 becomes 255."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _rounded(image: Image.Image, raw: bytes) -> Image.Image:
    """Return an image of 16 bits per channel rounded to 8.

    Of several channels Pillow keeps the upper byte alone. It gives the lower one where it is told that the
    bytes lie the other way round, so the file is decoded once each way.
    """
    if image.mode in _DEEP:
        return Image.fromarray(_to_8(np.asarray(image)))
    with Image.open(io.BytesIO(raw), formats=_FORMATS) as again:
        tiles: Any = getattr(again, "tile")  # noqa: B009 - of the class that Pillow really returns
        for k, (decoder, extents, offset, args) in enumerate(tiles):
            form = _swapped(_forms(again)[k])
            tiles[k] = (decoder, extents, offset, form if isinstance(args, str) else (form, *args[1:]))
        high, low = np.asarray(image), np.asarray(again)
    rounded = np.empty_like(high)
    for row, (upper, lower) in enumerate(zip(high, low, strict=True)):  # by rows, which needs little memory
        rounded[row] = _to_8(upper.astype(np.uint32) * 256 + lower)
    return Image.fromarray(rounded)


def _forms(image: Image.Image) -> list[str]:
    """Return how the bytes of each stretch of a file become pixels, in Pillow's words: ``RGB;16B``."""
    return [tile[3] if isinstance(tile[3], str) else tile[3][0] for tile in getattr(image, "tile", [])]


def _swapped(form: str) -> str | None:
    """Return the form whose bytes lie the other way round, None where there is none."""
    kind, _, order = form.partition(";16")
    if kind not in ("RGB", "RGBX", "RGBA") or order not in ("B", "L", "N"):
        return None
    large = order == "B" or (order == "N" and sys.byteorder == "big")
    return f"{kind};16{'L' if large else 'B'}"


def _flattened(image: Image.Image, convert: Convert) -> Image.Image:
    """Return an image without transparency, palette and ink."""
    if image.mode in _ALPHA or "transparency" in image.info:
        colours = image.convert("RGBA")
        background = Image.new("RGBA", colours.size, (convert.alpha or 0,) * 3 + (255,))
        return Image.alpha_composite(background, colours).convert("RGB")
    return image.convert("RGB") if image.mode in ("P", "CMYK", "YCbCr") else image


def is_binary(pixels: NDArray[np.uint8]) -> bool:
    """Return whether every pixel is 0 or 255: black and white, with no grey between."""
    return bool(((pixels == 0) | (pixels == 255)).all())


def fitted(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return an image [C, H, W] cropped at its centre to the shape of ``size`` and reduced to it (Lanczos).

    The largest stretch of H x W proportions is kept; an image that is of the size already is not touched. It
    must be at least as large (`DataError` is its reader's affair).
    """
    height, width = size
    _, have_height, have_width = pixels.shape
    if (have_height, have_width) == size:
        return pixels
    if have_width * height >= have_height * width:
        keep_height, keep_width = have_height, round(have_height * width / height)
    else:
        keep_height, keep_width = round(have_width * height / width), have_width
    top, left = (have_height - keep_height) // 2, (have_width - keep_width) // 2
    cut = pixels[:, top : top + keep_height, left : left + keep_width]
    image = Image.fromarray(cut[0] if len(cut) == 1 else np.ascontiguousarray(cut.transpose(1, 2, 0)))
    reduced = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.atleast_3d(np.asarray(reduced)).transpose(2, 0, 1)

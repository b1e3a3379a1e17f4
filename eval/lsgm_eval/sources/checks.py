"""What a file of ready images must be: 8-bit greyscale or RGB, upright, whole. Everything else is named."""

from __future__ import annotations

import contextlib
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from lsgm.errors import DataError

__all__ = ["SUFFIXES", "Header", "check_same", "decode", "inspect", "is_binary", "reading"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
_CHANNELS = {"1": 1, "L": 1, "RGB": 3}
_PNG, _DEPTH, _ORIENTATION = b"\x89PNG\r\n\x1a\n", 24, 0x0112


@dataclass(frozen=True)
class Header:
    """What a file says of its image before it is decoded."""

    channels: int
    height: int
    width: int
    lossy: bool
    """Whether its compression changed pixels, as that of JPEG does."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return self.channels, self.height, self.width


@contextlib.contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn whatever a damaged file makes Pillow, zipfile or zlib raise into a DataError that names it."""
    try:
        yield
    except UnidentifiedImageError as error:  # its own words name a buffer in memory
        raise DataError(f"{where} is no image, whatever its name says: replace it") from error
    except (
        OSError,
        SyntaxError,  # Pillow's word for a broken PNG
        ValueError,
        EOFError,
        RuntimeError,  # zipfile's word for an encrypted member
        struct.error,
        zlib.error,
        zipfile.BadZipFile,
        Image.DecompressionBombError,
    ) as error:
        raise DataError(f"{where} cannot be read ({error}): replace it") from error


def inspect(raw: bytes, where: str) -> Header:
    """Return what the bytes of an image file say of it; a PNG's checksums are verified, nothing is decoded.

    Raises DataError that begins with ``where`` for a damaged file, one with alpha, a palette, 16 bits,
    several frames or an EXIF rotation, and one that is neither greyscale nor RGB.
    """
    with reading(where), Image.open(io.BytesIO(raw)) as image:
        if wrong := _wrong(image, raw):
            raise DataError(f"{where} {wrong}")
        header = Header(_CHANNELS[image.mode], image.height, image.width, _lossy(image, raw))
        image.verify()
    return header


def _wrong(image: Image.Image, raw: bytes) -> str:
    """Return what keeps an image out and what to do about it, or an empty string."""
    # Pillow gives a 16-bit RGB PNG as plain RGB with half of its bits cut off: the file itself must be asked.
    if image.mode[0] in "IF" or (raw.startswith(_PNG) and raw[_DEPTH] == 16):
        return "has more than 8 bits per channel: round it to 8 bits as the model means it"
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return "has an alpha channel: flatten it onto a background first"
    if image.mode == "P":
        return "has a palette of at most 256 colours: write it as RGB or greyscale"
    if image.mode not in _CHANNELS:
        return f"has the colour mode {image.mode}: write it as RGB or greyscale"
    if getattr(image, "is_animated", False):
        return "holds several frames: write each as a file of its own"
    # Where the header has no such tags, asking a PNG for them would decode it.
    if "exif" in image.info and image.getexif().get(_ORIENTATION, 1) != 1:
        return "is stored rotated (an EXIF tag), which not every reader undoes: write it upright"
    return ""


def _lossy(image: Image.Image, raw: bytes) -> bool:
    return image.format == "JPEG" or (image.format == "WEBP" and b"VP8L" not in raw[:64])


def check_same(first: Header, first_name: str, other: Header, other_name: str, where: str) -> None:
    """Raise DataError naming two files of a set whose sizes or channels differ."""
    if (first.height, first.width) != (other.height, other.width):
        raise DataError(
            f"{where}: {first_name} is {first.width} x {first.height} pixels and {other_name} is "
            f"{other.width} x {other.height}: the images of a set have one size, bring them to it first"
        )
    if first.channels != other.channels:
        kinds = {1: "greyscale", 3: "RGB"}
        raise DataError(
            f"{where}: {first_name} is {kinds[first.channels]} and {other_name} is {kinds[other.channels]}: "
            "write all images of a set alike"
        )


def decode(raw: bytes, where: str) -> NDArray[np.uint8]:
    """Return the pixels uint8 [C, H, W] of a file that `inspect` accepted.

    Raises DataError that begins with ``where`` for a file that is damaged inside.
    """
    with reading(where), Image.open(io.BytesIO(raw)) as image:
        grey = image.convert("L") if image.mode == "1" else image
        return np.atleast_3d(np.asarray(grey)).transpose(2, 0, 1)


def is_binary(pixels: NDArray[np.uint8]) -> bool:
    """Return whether every pixel is 0 or 255: black and white, with no grey between."""
    return bool(((pixels == 0) | (pixels == 255)).all())

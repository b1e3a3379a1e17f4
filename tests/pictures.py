"""Pictures and their files for tests of the reader of images."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RNG = np.random.default_rng(0)


def photo(seed: int, width: int = 12, height: int = 10) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def photos(folder: Path, count: int = 6, first: int = 0, **size: int) -> Path:
    """Write PNGs into a folder and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        photo(k, **size).save(folder / f"{k:03d}.png")
    return folder


def zipped(folder: Path, to: Path, base: Path | None = None) -> Path:
    """Zip a folder in an order that is not that of the names."""
    with zipfile.ZipFile(to, "w") as archive:
        for file in sorted(folder.rglob("*"), reverse=True):
            archive.write(file, file.relative_to(base or folder))
    return to


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits per channel from [H, W, C], which Pillow reads as 8 bits and cannot write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = values.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    head = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def deep_tiff(values: NDArray[np.uint16], end: str) -> bytes:
    """A TIFF of 16 bits per channel from [H, W, C]; ``end`` is < or >."""
    height, width, channels = values.shape
    tags = [(256, width), (257, height), (258, None), (259, 1), (262, 2), (273, None), (277, channels)]
    tags += [(278, height), (279, values.size * 2), (284, 1)]
    place = 8 + 2 + 12 * len(tags) + 4
    out = {"<": b"II", ">": b"MM"}[end] + struct.pack(f"{end}HIH", 42, 8, len(tags))
    for tag, value in tags:
        if tag == 258:
            out += struct.pack(f"{end}HHII", tag, 3, channels, place)
        elif tag == 273:
            out += struct.pack(f"{end}HHII", tag, 4, 1, place + 2 * channels)
        elif tag == 279:
            out += struct.pack(f"{end}HHII", tag, 4, 1, value)
        else:
            out += struct.pack(f"{end}HHIHH", tag, 3, 1, value, 0)
    depths = struct.pack(f"{end}{channels}H", *[16] * channels)
    return out + struct.pack(f"{end}I", 0) + depths + values.astype(f"{end}u2").tobytes()


def turned(image: Image.Image, orientation: int, kind: str, **options: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, kind, exif=exif, **options)

"""Images: PNG by its chunks, TIFF by its tags, GIF, WebP and JPEG by the sizes they claim."""

from __future__ import annotations

import struct
import zlib

from fuzz.draws import Draws
from fuzz.octets import any_file

__all__ = ["png_file", "tiff_file"]

_SIZES = (0, 1, 2, 7, 9, 1000, 20_000, 65_535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        found.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + size]))
        at += 12 + size
    return found


def _joined(chunks: list[tuple[bytes, bytes]], wrong: int = -1) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for k, (kind, data) in enumerate(chunks):
        check = zlib.crc32(kind + data) ^ (k == wrong)
        out += struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)
    return out


def png_file(content: bytes, draws: Draws) -> bytes:
    """Return another PNG."""
    chunks = _chunks(content)
    k = draws.whole(0, len(chunks) - 1)
    match draws.whole(0, 8):
        case 0 | 1:
            width, height, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
            width, height = draws.pick(
                [(draws.pick(_SIZES), height), (width, draws.pick(_SIZES)), (60_000, 60_000)]
            )
            chunks[0] = (b"IHDR", struct.pack(">IIBBBBB", width, height, *rest))
        case 2:
            data = bytearray(chunks[0][1])
            data[draws.whole(8, 12)] = draws.pick([0, 1, 2, 3, 4, 6, 7, 8, 16, 32, 255])
            chunks[0] = (b"IHDR", bytes(data))
        case 3:
            del chunks[k]
        case 4:
            chunks.insert(k, draws.pick(chunks))
        case 5:
            return _joined(chunks, wrong=k)
        case 6:
            text = zlib.compress(bytes(2**26), 9)
            kinds = [(b"zTXt", b"a\0\0" + text), (b"iCCP", b"a\0\0" + text), (b"iTXt", b"a\0\1\0\0\0" + text)]
            kinds += [
                (b"PLTE", bytes(768)),
                (b"tRNS", b"\0" * 300),
                (b"acTL", b"\xff" * 8),
                (b"eXIf", b"MM\0*" + b"\xff" * 40),
            ]
            chunks.insert(1, draws.pick(kinds))
        case 7:
            rows = draws.pick([b"", b"\0" * 10, bytes(2**26), b"\xff" * 72])
            chunks = [(kind, zlib.compress(rows, 9) if kind == b"IDAT" else data) for kind, data in chunks]
        case _:
            return any_file(content, draws)
    return _joined(chunks)


def tiff_file(content: bytes, draws: Draws) -> bytes:
    """Return another TIFF: one field of one entry of its first directory differs."""
    order = "<" if content[:2] == b"II" else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    if start + 2 > len(content) or draws.chance(20):
        return any_file(content, draws)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    out = bytearray(content)
    at = start + 2 + 12 * draws.whole(0, max(0, count - 1))
    offset, size = draws.pick([(0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "I"), (8, "I")])
    number = draws.pick([*_SIZES, start, 3, 256, 257, 258, 259, 277, 34675]) % (
        2**16 if size == "H" else 2**32
    )
    struct.pack_into(f"{order}{size}", out, at + offset, number)
    return bytes(out)

"""Archives: members exchanged, renamed, doubled, packed otherwise, and directories that lie."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache

from fuzz.draws import Draws
from fuzz.hostile import TEXTS

__all__ = ["bomb", "packed", "unpacked", "zip_file"]


def unpacked(content: bytes) -> dict[str, bytes]:
    """Return the members of a zip by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}


def packed(members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return a zip of members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(
                zipfile.ZipInfo(name.encode("utf-8", "replace").decode()[:60_000]), content, method
            )
    return out.getvalue()


@cache
def bomb(name: str, head: bytes = b"") -> bytes:
    """Return a zip with a member of ``head`` and 1.5 GB of zeros."""
    piece, count = bytes(2**24), 96
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    data = first + block * count + packer.flush()
    check = zlib.crc32(head)
    for _ in range(count):
        check = zlib.crc32(piece, check)
    size, raw = len(head) + count * len(piece), name.encode()
    both = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 33, check, len(data), size, len(raw), 0)
    local = b"PK\3\4" + both + raw
    central = b"PK\1\2" + struct.pack("<H", 20) + both + struct.pack("<HHHII", 0, 0, 0, 0, 0) + raw
    at = len(local) + len(data)
    return local + data + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), at, 0)


def _lying(content: bytes, draws: Draws) -> bytes:
    """Change a number in one entry of the directory, or in a member's own head."""
    out = bytearray(content)
    central = draws.chance(70)
    starts = _found(content, b"PK\1\2" if central else b"PK\3\4")
    if not starts:
        return content
    at = draws.pick(starts)
    offset, size = draws.pick(
        [(8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (38, 4), (42, 4)]
        if central
        else [(6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]
    )
    number = draws.pick([0, 1, 8, 9, 12, 14, 93, 99, 0x0801, 2**16 - 1, 2**31, 2**32 - 1]) % 256**size
    out[at + offset : at + offset + size] = number.to_bytes(size, "little")
    return bytes(out)


def _found(content: bytes, mark: bytes) -> list[int]:
    starts, at = [], content.find(mark)
    while at >= 0 and len(starts) < 200:
        starts.append(at)
        at = content.find(mark, at + 1)
    return starts


def zip_file(content: bytes, draws: Draws) -> bytes:
    """Return another zip of images, or of anything else."""
    members = unpacked(content)
    name = draws.pick(list(members))
    match draws.whole(0, 9):
        case 0 | 1 | 2:
            return _lying(content, draws)
        case 3:
            other = draws.pick(["../../beside/owned.png", "/beside/owned.png", *TEXTS[:60]]) or "x"
            return packed({(other if key == name else key): value for key, value in members.items()})
        case 4:
            return packed({key: value for key, value in members.items() if key != name})
        case 5:
            return packed(members, draws.pick([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
        case 6:
            return packed({name: content, **{k: v for k, v in members.items() if k != name}})
        case 7:
            return _twice(members, name)
        case 8:
            return packed(
                {f"{k:06d}.png": members[name] if k % 2 else b"" for k in range(draws.pick([2, 5_000]))}
            )
        case _:
            return bomb(name, members[name][:64]) if draws.chance(30) else packed({name: members[name]})


def _twice(members: Mapping[str, bytes], name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for key in (name, *members):
            archive.writestr(zipfile.ZipInfo(key), members[key])
    return out.getvalue()

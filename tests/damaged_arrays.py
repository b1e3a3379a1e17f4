"""Files of arrays with everything wrong that there can be: as files, and in one array or another."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ARRAYS", "FILES", "changed"]

Change = Callable[[NDArray[Any]], NDArray[Any] | None]


def _header(path: Path, descr: str, shape: str) -> None:
    """Write an npz whose one array has a header of one's own and no numbers."""
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode() + b"\n"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("rows.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)


def _as(content: bytes) -> Callable[[Path], None]:
    return lambda path: (path.unlink(), path.write_bytes(content))[0]


def _in_place(make: Callable[[Path], object]) -> Callable[[Path], None]:
    return lambda path: (path.unlink(), make(path))[0]


def _npy(path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(9.0))
    path.write_bytes(buffer.getvalue())


def _objects(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, rows=np.array([{}], dtype=object))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for at in range(40, len(content), 97):
        content[at] ^= 0x55
    path.write_bytes(bytes(content))


def _encrypted(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[6] |= 1
    directory = content.find(b"PK\x01\x02")  # other files than zips lose their first bytes' sense alone
    content[max(directory, 0) + 8] |= 1
    path.write_bytes(bytes(content))


FILES: dict[str, Callable[[Path], None]] = {
    "cut short": _cut,
    "flipped": _flip,
    "empty": _as(b""),
    "a page": _as(b"<html>404</html>"),
    "a pickle": _as(pickle.dumps({"rows": [1]})),
    "a picture": _as(b"\x89PNG\r\n\x1a\n" + b"\0" * 50),
    "an npy": _npy,
    "a zip without members": _in_place(lambda path: zipfile.ZipFile(path, "w").close()),
    "encrypted": _encrypted,
    "no header": _in_place(lambda path: _header(path, "[[[", "(1,")),
    "a huge shape": _in_place(lambda path: _header(path, "'<f8'", "(99999999, 99999999)")),
    "a negative shape": _in_place(lambda path: _header(path, "'<f8'", "(-1,)")),
    "objects": _in_place(_objects),
    "a folder": _in_place(lambda path: (path.mkdir(), (path / "mine").write_text("kept"))),
    "a pipe": _in_place(os.mkfifo),
    "a link to a device": _in_place(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": _in_place(lambda path: path.symlink_to(path.with_name("nothing"))),
}
"""What may have become of a file, by name: each takes the path of one that is whole."""


def _number(kind: str) -> Change:
    def change(array: NDArray[Any]) -> NDArray[Any] | None:
        with np.errstate(over="ignore"):
            return array.astype(kind) if array.dtype.kind in "biuf" else None

    return change


def _unsigned(array: NDArray[Any]) -> NDArray[Any] | None:
    if array.dtype.kind not in "biuf":
        return None
    return np.abs(np.nan_to_num(array)).astype("u2" if array.dtype == np.uint8 else "u8")


def _spoilt(value: float) -> Change:
    def change(array: NDArray[Any]) -> NDArray[Any] | None:
        if array.dtype.kind != "f" or not array.size:
            return None
        spoilt = array.copy()
        spoilt.flat[array.size // 2] = value
        return spoilt

    return change


ARRAYS: dict[str, Change] = {
    "missing": lambda array: None,
    "complex": _number("c16"),
    "dates": lambda array: array.astype("i8").astype("M8[s]") if array.dtype.kind in "biu" else None,
    "bytes": lambda array: array.astype("S8"),
    "texts": lambda array: array.astype("U40") if array.dtype.kind != "U" else None,
    "objects": lambda array: array.astype(object),
    "half": _number("f2"),
    "unsigned": _unsigned,
    "NaN": _spoilt(np.nan),
    "infinite": _spoilt(np.inf),
    "one more": lambda array: np.concatenate([array, array[-1:]]) if array.ndim and array.size else None,
    "one fewer": lambda array: array[:-1] if array.ndim and array.size else None,
    "deeper": lambda array: array[None] if array.dtype.kind != "U" else None,
}
"""What may have become of an array, by name: each returns it, or None where it cannot (or is to be gone)."""


def changed(path: Path) -> Iterator[str]:
    """Write a file again and again with one array of it changed, and yield what was done to which."""
    with np.load(path) as file:
        whole = {name: file[name] for name in file.files}
    for name, array in whole.items():
        for what, change in ARRAYS.items():
            other = change(array)
            if other is None and what != "missing":
                continue
            rest = {key: value for key, value in whole.items() if key != name}
            arrays: dict[str, Any] = rest if other is None else {**rest, name: other}
            path.unlink(missing_ok=True)
            np.savez(path, **arrays)
            yield f"{name} {what}"
    np.savez(path, **whole)

"""npz and npy: headers that claim something else, arrays of other types, shapes, orders and values."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fuzz.draws import Draws
from fuzz.hostile import CANARY, TEXTS
from fuzz.zips import bomb, packed, unpacked

__all__ = ["npy_file", "npz_file"]

_TYPES = (
    "<f8",
    ">f8",
    "<f4",
    "<f2",
    "<f16",
    "<i8",
    ">i8",
    "<i4",
    "|i1",
    "|u1",
    "<u8",
    "|b1",
    "<c8",
    "<c16",
    "<M8[s]",
    "<m8[D]",
    "|S3",
    "<U5",
    "|V8",
    "|O",
    "<f8x",
    "",
    "i",
    "(2,)f8",
    "[('a', '<f8')]",
    "|S0",
)
_SHAPES = (
    (),
    (0,),
    (1,),
    (0, 0),
    (1, 1, 1, 1),
    (2**31,),
    (2**40,),
    (2**62,),
    (2**63,),
    (-1,),
    (10**9, 10**9),
    (0, 10**18),
    (1,) * 32,
    (1,) * 33,
    (1,) * 65,
    (2**20, 0),
)
_HEADERS = (
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }" + " " * 20_000,
    "{'descr': '<f8', 'fortran_order': False, 'shape': (3,), 'more': 1}",
    "{'descr': '<f8', 'fortran_order': 1, 'shape': (3,)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': 3}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': ('a',)}",
    "{'descr': '<f8', 'fortran_order': False, 'shape': (True, 2.5)}",
    "{'descr': ('<f8', (10**9,)), 'fortran_order': False, 'shape': (3,)}",
    f"__import__('os').system('touch ../{CANARY}')",
    "(" * 9_000 + ")" * 9_000,
    "[" * 300 + "]" * 300,
    "-" * 9_000 + "1",
    "{" * 200,
    "",
    "\0",
    "9" * 9_000,
)


class _Reached:
    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open('../{CANARY}', 'w').close()",)


def _npy(header: str, data: bytes, version: int = 1) -> bytes:
    text = header.encode("utf-8", "replace") + b"\n"
    width = 2 if version == 1 else 4
    size = min(len(text), 256**width - 1)
    return b"\x93NUMPY" + bytes([version, 0]) + size.to_bytes(width, "little") + text + data


def _saved(array: NDArray[Any]) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def _header(descr: str, shape: tuple[int, ...], fortran: bool = False) -> str:
    quoted = descr if descr.startswith(("[", "(")) else repr(descr)
    return f"{{'descr': {quoted}, 'fortran_order': {fortran}, 'shape': {shape!r}, }}"


def npy_file(content: bytes, draws: Draws) -> bytes:
    """Return another npy: its header, its type, its shape or its values differ."""
    array = np.load(io.BytesIO(content), allow_pickle=False)
    raw, descr = array.tobytes(), array.dtype.str
    match draws.whole(0, 10):
        case 0:
            return _npy(draws.pick(_HEADERS), raw, draws.pick([1, 2, 3]))
        case 1:
            return _npy(_header(draws.pick(_TYPES), array.shape), raw)
        case 2:
            return _npy(_header(descr, draws.pick(_SHAPES)), raw)
        case 3:
            return _npy(_header(descr, array.shape, True), raw, draws.pick([1, 2, 3, 9, 255]))
        case 4:
            return _npy("{'descr': '|O', 'fortran_order': False, 'shape': (), }", pickle.dumps(_Reached()))
        case 5 | 6:
            return _saved(_cast(array, draws))
        case 7:
            return _saved(_reshaped(array, draws))
        case 8 | 9:
            return _saved(_filled(array, draws))
        case _:
            return content[: draws.whole(0, len(content))] + draws.octets(9)


def _cast(array: NDArray[Any], draws: Draws) -> NDArray[Any]:
    """Return an array of another type with the same shape, a whole and valid one."""
    with np.errstate(all="ignore"):
        for kind in (draws.pick(_TYPES), "<f4"):
            try:
                return np.asarray(array).astype(np.dtype(kind))
            except (TypeError, ValueError, OverflowError):
                continue
    return np.zeros(array.shape, "<c16")


def _reshaped(array: NDArray[Any], draws: Draws) -> NDArray[Any]:
    flat = array.reshape(-1)
    ways = [flat, flat[None], flat[:0], flat[:1], array[None], array.T, np.concatenate([flat, flat])]
    ways += [array[:1] if array.ndim else flat, array[::-1] if array.ndim else flat, np.asfortranarray(array)]
    ways += [
        np.array(draws.pick(TEXTS).replace("\0", "")),
        np.broadcast_to(flat[:1], (10**6,)) if flat.size else flat,
    ]
    return draws.pick(ways)


def _filled(array: NDArray[Any], draws: Draws) -> NDArray[Any]:
    """Return an array with another value in one place or everywhere."""
    out = np.array(array)
    if out.dtype.kind in "US":
        return np.full(out.shape, draws.pick(TEXTS)[:3000].replace("\0", ""))
    value = draws.pick([0, 1, -1, np.nan, np.inf, -np.inf, 1e300, 1e-320, 2**62, -(2**62), 255, 0.5])
    with np.errstate(all="ignore"):
        try:
            if out.size and draws.chance(50):
                out.reshape(-1)[draws.whole(0, out.size - 1)] = value
            else:
                out[...] = value
        except (ValueError, OverflowError):
            return np.full(out.shape, float(value))
    return out


def npz_file(content: bytes, draws: Draws) -> bytes:
    """Return another npz: one array of it differs, or which arrays there are, or how they are packed."""
    members = unpacked(content)
    name = draws.pick(list(members))
    match draws.whole(0, 11):
        case 0:
            members.pop(name)
        case 1:
            other = draws.pick(
                [*members, "arr_0.npy", "mu.npy", "key.npy", "../../beside/owned.npy", *TEXTS[:50]]
            )
            members[other or "x"] = members.pop(name)
        case 2:
            members[draws.pick(["more.npy", "no ending", "x.npy.npy", ".npy"])] = members[name]
        case 3:
            members[name] = members[draws.pick(list(members))]
        case 4:
            members[name] = draws.octets(50)
        case 5:
            return packed(members, draws.pick([8, 12, 14]))
        case 6 if draws.chance(30):
            return bomb(name, _npy(_header("<f8", (96 * 2**21,)), b""))
        case _:
            members[name] = npy_file(members[name], draws)
    return packed(members)

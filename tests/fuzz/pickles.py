"""Files of ``torch.save``: what they hold as a tree, their pickle by its opcodes, their zip as a zip."""

from __future__ import annotations

import argparse
import io
import pickle
import pickletools
from typing import Any

import torch
from torch import Tensor

from fuzz.draws import Draws
from fuzz.hostile import CANARY, NUMBERS, TEXTS, Raw
from fuzz.tensors import altered
from fuzz.zips import packed, unpacked, zip_file

__all__ = ["pickle_file", "torch_file"]


class Reached:
    """What runs something when it is unpickled."""

    def __init__(self, way: int = 0) -> None:
        self._way = way

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        made = f"open('../{CANARY}', 'w').close()"
        ways: list[tuple[Any, ...]] = [(exec, (made,)), (eval, (made,)), (os.system, (f"touch ../{CANARY}",))]
        return ways[self._way % len(ways)]


def _leaf(draws: Draws) -> Any:
    """Return a value that a pickle may hold in any place."""
    match draws.whole(0, 9):
        case 0:
            return Reached(draws.whole(0, 2))
        case 1 | 2:
            return draws.pick([number for number in NUMBERS if not isinstance(number, Raw)])
        case 3 | 4:
            return draws.pick(TEXTS)
        case 5:
            loop: list[Any] = []
            loop.append(loop)
            table: dict[str, Any] = {}
            table["again"] = table
            return draws.pick([loop, table])
        case 6:
            deep: Any = []
            for _ in range(draws.pick([50, 400])):
                deep = [deep]
            return deep
        case 7:
            return draws.pick(
                [None, True, [], {}, (), set(), b"x", 1j, frozenset({1}), range(3), [0] * 100_000]
            )
        case _:
            return _tensor(draws)


def _tensor(draws: Draws) -> Any:
    ways = [
        torch.zeros(0),
        torch.tensor(float("nan")),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(2, 2).to_sparse(),
        torch.zeros(1).expand(10**9),
        torch.zeros(1).expand(2**40),
        torch.zeros(3, device="meta"),
        torch.eye(2, dtype=torch.bool),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.zeros(5, dtype=torch.int64),
        torch.nn.Parameter(torch.ones(2)),
        torch.zeros(3).as_strided((2, 2), (1, 1)),
        torch.zeros(2, 2).to_sparse_csr(),
    ]
    return draws.pick(ways)


def _children(node: Any) -> list[Any]:
    if isinstance(node, argparse.Namespace):
        node = vars(node)
    return (
        list(node)
        if isinstance(node, dict)
        else list(range(len(node)))
        if isinstance(node, list | tuple)
        else []
    )


def _changed(node: Any, draws: Draws, depth: int = 0) -> Any:
    """Return a tree of tables, lists and tensors with one place of it changed."""
    keys = _children(node)
    if keys and (depth == 0 or draws.chance(85)):
        held = vars(node) if isinstance(node, argparse.Namespace) else node
        out: Any = dict(held) if isinstance(held, dict) else list(held)
        key = draws.pick(keys)
        if draws.chance(12):
            del out[key]
        elif draws.chance(8) and isinstance(out, dict):
            out[draws.pick([*TEXTS[:40], 0, -1, 10**9, None, (1, 2)])] = out.pop(key)
        elif draws.chance(6):
            other = draws.pick(keys)
            out[key], out[other] = out[other], out[key]
        else:
            out[key] = _changed(held[key], draws, depth + 1)
        if isinstance(node, argparse.Namespace):
            return argparse.Namespace(**{str(key): value for key, value in out.items()})
        return tuple(out) if isinstance(node, tuple) else out
    if isinstance(node, Tensor) and draws.chance(60):
        return altered(node, draws)
    if isinstance(node, list) and draws.chance(20):
        return node * draws.pick([0, 2, 1000])
    return _leaf(draws)


def _opcodes(content: bytes, draws: Draws) -> bytes:
    """Return a pickle with one opcode taken out, doubled, exchanged or with another argument."""
    places = [at for _, _, at in pickletools.genops(content) if at is not None] + [len(content)]
    k = draws.whole(0, len(places) - 2)
    start, end = places[k], places[k + 1]
    whole = content[start:end]
    evil = [
        b"cos\nsystem\n",
        b"cposix\nsystem\nX\x11\0\0\0touch ../executed \x85R",
        b"c__builtin__\neval\n",
        b"ctorch\nload\n",
        b"cbuiltins\ngetattr\n",
        b"ccollections\nOrderedDict\n",
        b"R",
        b"b",
        b"0",
        b"2",
        b".",
        b"(",
        b"t",
        b"]",
        b"}",
        b"N",
        b"e",
        b"\x8a\xff" + b"\xff" * 255,
        b"\x8b\xff\xff\xff\x7f",
        b"B\xff\xff\xff\x7f",
        b"\x8e" + b"\xff" * 8,
        b"j\xff\xff\xff\xff",
        b"r\xff\xff\xff\x7f",
        b"h\xff",
        b"Q",
        b"\x95" + b"\xff" * 8,
        b"X\xff\xff\xff\xff",
        b"(" * 50_000,
        b"2" * 100_000,
    ]
    new = draws.pick([b"", whole * 2, draws.pick(evil), whole + draws.pick(evil), draws.pick(evil) + whole])
    return content[:start] + new + content[end:]


def pickle_file(content: bytes, draws: Draws) -> bytes:
    """Return another plain pickle."""
    if draws.chance(50):
        return _opcodes(content, draws)
    held = pickle.loads(content)  # our own specimen
    return pickle.dumps(_changed(held, draws), protocol=draws.pick([0, 2, 4]))


def torch_file(content: bytes, draws: Draws) -> bytes:
    """Return another file of ``torch.save``."""
    if draws.chance(15):
        return zip_file(content, draws)
    if draws.chance(20):
        members = unpacked(content)
        name = next(name for name in members if name.endswith("data.pkl"))
        return packed({**members, name: _opcodes(members[name], draws)})
    if draws.chance(3):
        return pickle.dumps(Reached())
    held = torch.load(io.BytesIO(content), map_location="cpu", weights_only=False)  # our own specimen
    out = io.BytesIO()
    new = _changed(held, draws)
    try:
        torch.save(new, out, _use_new_zipfile_serialization=not draws.chance(6))
    except Exception:  # what torch does not write nobody can send
        return content[: draws.whole(0, len(content))]
    return out.getvalue()

"""JSON, JSON lines and TOML: parsed, changed in a few places, and written again."""

from __future__ import annotations

import copy
import datetime
import json
import math
import tomllib
from collections.abc import Callable
from typing import Any

from fuzz.draws import Draws
from fuzz.hostile import NUMBERS, TEXTS, VALUES, Many, Raw, nested

__all__ = ["changed", "json_file", "lines_file", "toml_file", "written"]


class Pairs(list[tuple[Any, Any]]):
    """A table in which a key may stand twice."""


def written(tree: Any, toml: bool = False) -> str:
    """Return a tree as JSON, or as a value of TOML."""
    if isinstance(tree, Raw):
        return tree.text
    if isinstance(tree, dict | Pairs):
        pairs = tree.items() if isinstance(tree, dict) else tree
        equals = " = " if toml else ": "
        inner = ", ".join(f"{written(str(key))}{equals}{written(value, toml)}" for key, value in pairs)
        return "{" + inner + "}"
    if isinstance(tree, list | tuple):
        return "[" + ", ".join(_entries(tree, toml)) + "]"
    if isinstance(tree, str):
        return json.dumps(tree, ensure_ascii=False)
    if isinstance(tree, float) and toml:
        return {math.inf: "inf", -math.inf: "-inf"}.get(tree, "nan" if tree != tree else repr(tree))
    if isinstance(tree, int) and not isinstance(tree, bool) and abs(tree) > 2**1000:
        return ("-" if tree < 0 else "") + f"{abs(tree):x}".translate(str.maketrans("abcdef", "123456"))
    if isinstance(tree, datetime.date | datetime.time):
        return tree.isoformat()
    return json.dumps(tree)


def _entries(entries: Any, toml: bool) -> list[str]:
    found: list[str] = []
    for entry in entries:
        many = isinstance(entry, Many)
        found += [written(entry.entry if many else entry, toml)] * (entry.count if many else 1)
    return found


Place = tuple[Any, Any]
"""A container and the key, or the index, of what is changed in it."""


def _place(root: list[Any], draws: Draws) -> Place:
    """Return somewhere in a tree, which is the one entry of ``root``: shallow ones as often as deep ones."""
    at: Place = (root, 0)
    while isinstance(inner := at[0][at[1]], dict | list) and inner and draws.chance(80):
        at = (inner, draws.pick(list(inner) if isinstance(inner, dict) else range(len(inner))))
    return at


def _replace(at: Place, draws: Draws) -> None:
    at[0][at[1]] = copy.deepcopy(draws.pick(draws.pick([NUMBERS, TEXTS, VALUES])))


def _remove(at: Place, draws: Draws) -> None:
    del at[0][at[1]]


def _retype(at: Place, draws: Draws) -> None:
    """Give a value another type with the same content."""
    value = at[0][at[1]]
    ways: list[Callable[[], Any]] = [
        lambda: str(value),
        lambda: [value],
        lambda: {"value": value},
        lambda: list(value.values()) if isinstance(value, dict) else [[value]],
        lambda: dict(enumerate(value)) if isinstance(value, list) else {str(value)[:50]: value},
        lambda: float(value) if isinstance(value, int) and abs(value) < 2**60 else bool(value),
        lambda: int(value) if isinstance(value, float) and math.isfinite(value) else None,
    ]
    at[0][at[1]] = draws.pick(ways)()


def _tweak(at: Place, draws: Draws) -> None:
    """Change a value a little, within its type."""
    value = at[0][at[1]]
    if isinstance(value, bool) or value is None:
        at[0][at[1]] = not value
    elif isinstance(value, int | float):
        at[0][at[1]] = draws.pick([-value, 0, value + 1, value * 1000, value / 3, -1, Raw(f"{value}e5")])
    elif isinstance(value, str):
        text = draws.pick(TEXTS)
        at[0][at[1]] = draws.pick(
            [text + value, value + text, value[: len(value) // 2], value.upper(), value * 50]
        )
    elif isinstance(value, list):
        at[0][at[1]] = draws.pick([value[::-1], value * 2, value[:1], value[1:], [*value, None], [value]])
    elif isinstance(value, dict):
        at[0][at[1]] = dict(reversed(value.items()))


def _multiply(at: Place, draws: Draws) -> None:
    """Put a value into its list many times, or a list of many of it in its place."""
    count = draws.pick([2, 3, 100, 10_000, 10**6])
    small = len(written(at[0][at[1]])) * count < 2**23
    entry = Many(at[0][at[1]], count if small else 3)
    if isinstance(at[0], list) and draws.chance(50):
        at[0][at[1]] = entry
    else:
        at[0][at[1]] = [entry]


def _rename(at: Place, draws: Draws) -> None:
    if isinstance(at[0], dict):
        at[0][draws.pick([*TEXTS, at[1].upper(), at[1] + " ", at[1][:-1]])] = at[0].pop(at[1])
    else:
        _replace(at, draws)


def _double(at: Place, draws: Draws) -> None:
    """Let a table hold all of its keys twice, or a list all of its entries."""
    value = at[0][at[1]]
    if isinstance(value, dict):
        other = [(key, draws.pick(VALUES)) for key in list(value)[:3]]
        at[0][at[1]] = Pairs([*value.items(), *other])
    else:
        at[0][at[1]] = [value, value]


def _add(at: Place, draws: Draws) -> None:
    value = at[0][at[1]]
    entry = copy.deepcopy(draws.pick(draws.pick([NUMBERS, TEXTS, VALUES])))
    if isinstance(value, dict):
        value[draws.pick(TEXTS)] = entry
    elif isinstance(value, list):
        value.insert(draws.whole(0, len(value)), entry)
    else:
        _replace(at, draws)


def _bury(at: Place, draws: Draws) -> None:
    """Put a value at the bottom of many lists or tables."""
    depth, text = draws.pick([1, 30, 99, 500, 3_000, 100_000]), written(at[0][at[1]])
    opening, closing = draws.pick([("[", "]"), ('{"a": ', "}")])
    at[0][at[1]] = Raw(opening * depth + text + closing * depth) if len(text) < 10**6 else nested(depth)


def _swap(at: Place, draws: Draws) -> None:
    if isinstance(at[0], dict | list) and len(at[0]) > 1:
        other = draws.pick(list(at[0]) if isinstance(at[0], dict) else range(len(at[0])))
        at[0][at[1]], at[0][other] = at[0][other], at[0][at[1]]
    else:
        _replace(at, draws)


_CHANGES = (
    _replace,
    _replace,
    _replace,
    _remove,
    _remove,
    _retype,
    _retype,
    _tweak,
    _tweak,
    _multiply,
    _rename,
    _double,
    _add,
    _bury,
    _swap,
)


def changed(tree: Any, draws: Draws) -> Any:
    """Return a tree with one to three places of it changed."""
    root = [copy.deepcopy(tree)]
    for _ in range(draws.pick([1, 1, 1, 2, 3])):
        if not root:
            break
        draws.pick(_CHANGES)(_place(root, draws), draws)
    return root[0] if len(root) == 1 else root if root else Raw("")


def _encoded(text: str, draws: Draws) -> bytes:
    codec = "utf-8"
    if draws.chance(6):
        codec = draws.pick(["utf-8-sig", "utf-16", "utf-32", "latin-1"])
    return text.encode(codec, "surrogatepass" if codec.startswith("utf") else "replace")


def json_file(content: bytes, draws: Draws) -> bytes:
    """Return another JSON document."""
    return _encoded(written(changed(json.loads(content), draws)), draws)


def lines_file(content: bytes, draws: Draws) -> bytes:
    """Return other JSON lines: one of them changed, or their order and number."""
    lines: list[Any] = [json.loads(line) for line in content.splitlines()]
    if draws.chance(75):
        index = draws.whole(0, len(lines) - 1)
        lines[index] = changed(lines[index], draws)
        return _encoded("".join(written(line) + "\n" for line in lines), draws)
    texts = [written(line) for line in lines]
    index = draws.whole(0, len(texts) - 1)
    many = draws.pick([2, 100, 10_000]) if len(texts[index]) < 800 else 2
    return _encoded(
        draws.pick(
            [
                "\n".join(texts[::-1]),
                "\n".join(texts[:index] + texts[index + 1 :]),
                "\n".join(texts[:index] + [texts[index]] * many + texts[index:]) + "\n",
                "".join(texts),
                "\n\n \n".join(texts),
                "\r\n".join(texts),
                "\n".join(texts)[:-7],
                "[" + ",".join(texts) + "]",
                "\n".join([*texts, draws.pick(TEXTS)]),
                "\n" * 10**6,
                "",
            ]
        ),
        draws,
    )


def toml_file(content: bytes, draws: Draws) -> bytes:
    """Return another TOML document, its tables written inline."""
    tree = changed(tomllib.loads(content.decode()), draws)
    if not isinstance(tree, dict | Pairs):
        return _encoded(written(tree, toml=True), draws)
    pairs = tree.items() if isinstance(tree, dict) else tree
    lines = [f"{written(str(key))} = {written(value, toml=True)}" for key, value in pairs]
    if draws.chance(5):
        lines.append(
            draws.pick(
                ["[a", "a.b.c = 1\na.b = 2", "[[a]]\n[a]", "a." * 3000 + "b = 1", "[" + "a." * 3000 + "b]"]
            )
        )
    return _encoded("\n".join(lines) + "\n", draws)

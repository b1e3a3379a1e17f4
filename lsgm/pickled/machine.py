"""What a pickle says, found by a machine that knows no functions: nothing in it can be executed.

A pickle is a list of instructions for a stack. Here they build texts, numbers and containers; what is asked
to be called becomes a `Made`, which says by name what was asked for and with which arguments. The
instructions are those of protocol 2, `torch.save`'s own, and of later ones those that name something; their
number bounds memory and time.
"""

from __future__ import annotations

import argparse
import struct
from _compat_pickle import IMPORT_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pickle import HIGHEST_PROTOCOL, decode_long
from typing import Any, NoReturn

TUPLE_KEYS = 10_000
"""Keys that are tuples, in all tables of a file: unlike those of texts, their hashes can be made to meet."""


class MalformedError(Exception):
    """Bytes that are no pickle of protocol 2, or one that nothing sensible has written."""


class ForeignNameError(Exception):
    """A class or function of a ``name`` that is not known."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class TooManyError(Exception):
    """More instructions than the machine was allowed."""


class Name:
    """A class or function that a pickle names; it stands for itself and is never looked up."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class Made:
    """What a pickle asks to be made of arguments by something of a name; it is not made."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: str, args: tuple[Any, ...]) -> None:
        self.name, self.args = name, args
        self.state: Any = None


Rule = Callable[..., Any]


class PickleMachine:
    """Follows the pickles in some bytes, one after another.

    ``rules`` make values of the arguments that a name is called with, ``stored`` of a persistent id; names
    that are not ``known`` are refused. ``steps`` is how many instructions are followed in all. `run` raises
    MalformedError, ForeignNameError, TooManyError, and whatever sizes that do not fit raise.
    """

    def __init__(
        self,
        content: bytes,
        *,
        rules: Mapping[str, Rule],
        stored: Rule,
        known: Callable[[str], bool],
        steps: int,
    ) -> None:
        self.content, self.at, self.steps = content, 0, steps
        self._rules, self._stored, self._known = rules, stored, known
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self._tuple_keys = 0
        self.protocol = 0
        """The highest that the bytes have said so far."""

    def run(self) -> Any:
        """Return what the next pickle says, and stand behind it."""
        self._stack, self._below, self._memo = [], [], {}
        content, table = self.content, _INSTRUCTIONS
        while True:
            code = content[self.at]
            self.at += 1
            self.steps -= 1
            if self.steps < 0:
                raise TooManyError
            if code == _STOP:
                (result,) = self._stack
                return result
            instruction = table.get(code)
            if instruction is None:
                raise MalformedError(f"instruction {code}")
            instruction(self)

    def _take(self, count: int) -> bytes:
        start, self.at = self.at, self.at + count
        if self.at > len(self.content):
            raise MalformedError("the pickle ends too early")
        return self.content[start : self.at]

    def _line(self) -> str:
        end = self.content.index(b"\n", self.at)
        line = self.content[self.at : end]
        self.at = end + 1
        return line.decode("utf-8")

    def _since_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _proto(self) -> None:
        self.protocol = max(self.protocol, self._take(1)[0])
        if self.protocol > HIGHEST_PROTOCOL:
            _refuse("has a protocol that there is not")

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _number(self, form: struct.Struct) -> None:
        self._push(form.unpack(self._take(form.size))[0])

    def _long(self) -> None:
        self._push(decode_long(self._take(self._take(1)[0])))

    def _text(self) -> None:
        (length,) = _U4.unpack(self._take(4))
        self._push(self._take(length).decode("utf-8", "surrogatepass"))

    def _bytes(self, form: struct.Struct) -> None:
        self._push(self._take(form.unpack(self._take(form.size))[0]))

    def _short_text(self) -> None:
        self._push(self._take(self._take(1)[0]).decode("utf-8"))

    def _get(self, form: struct.Struct) -> None:
        self._push(self._memo[form.unpack(self._take(form.size))[0]])

    def _put(self, form: struct.Struct) -> None:
        self._memo[form.unpack(self._take(form.size))[0]] = self._stack[-1]

    def _tuple(self, count: int | None) -> None:
        if count is None:
            self._push(tuple(self._since_mark()))
            return
        if len(self._stack) < count:
            raise MalformedError("a tuple of nothing")
        self._stack[-count:] = [tuple(self._stack[-count:])]

    def _append(self, *, several: bool) -> None:
        items = self._since_mark() if several else [self._stack.pop()]
        if type(self._stack[-1]) is not list:
            _refuse("appends to what is no list")
        self._stack[-1].extend(items)

    def _set(self, *, several: bool) -> None:
        if several:
            items = self._since_mark()
        else:
            items = self._stack[-2:]
            del self._stack[-2:]
        table = self._stack[-1]
        if type(table) not in (dict, OrderedDict) or len(items) % 2:
            _refuse("sets entries of what is no table")
        for key, value in zip(items[::2], items[1::2], strict=True):
            table[self._key(key)] = value

    def _key(self, key: Any) -> Any:
        if type(key) is tuple:
            self._tuple_keys += 1
            if self._tuple_keys > TUPLE_KEYS or not all(type(part) in (int, str) for part in key):
                _refuse("has too many tuples for keys")
        elif type(key) not in (str, int, bool, float, bytes, type(None)) or (
            type(key) is int and key.bit_length() > 63
        ):
            _refuse("has a key of another type")
        return key

    def _global(self) -> None:
        module = self._line()
        # The first protocols write the names that Python 2 had.
        self._named(IMPORT_MAPPING.get(module, module), self._line())

    def _stack_global(self) -> None:
        attribute, module = self._stack.pop(), self._stack.pop()
        self._named(module, attribute)

    def _named(self, module: Any, attribute: Any) -> None:
        name = f"{module}.{attribute}"
        if not self._known(name):
            raise ForeignNameError(name)
        self._push(Name(name))

    def _called(self) -> None:
        args, function = self._stack.pop(), self._stack.pop()
        if type(function) is not Name or type(args) is not tuple:
            _refuse("calls what is no function")
        rule = self._rules.get(function.name)
        self._push(Made(function.name, args) if rule is None else rule(*args))

    def _built(self) -> None:
        state, made = self._stack.pop(), self._stack[-1]
        if type(made) is argparse.Namespace and type(state) is dict:
            if not all(type(name) is str for name in state):
                _refuse("has an argument whose name is no text")
            vars(made).update(state)
        elif type(made) is Made:
            made.state = state
        elif type(made) is not OrderedDict:  # whose attributes say nothing about what it holds
            _refuse("changes what has no state")

    def _persistent(self) -> None:
        saved = self._stack.pop()
        if type(saved) is not tuple:
            _refuse("has a storage of no kind")
        self._push(self._stored(*saved))


def _refuse(what: str) -> NoReturn:
    raise MalformedError(f"it {what}")


_U1, _U2, _U4 = struct.Struct("<B"), struct.Struct("<H"), struct.Struct("<I")
_I4, _F8 = struct.Struct("<i"), struct.Struct(">d")
_STOP = ord(".")
_INSTRUCTIONS: dict[int, Callable[[PickleMachine], object]] = {
    ord("\x80"): PickleMachine._proto,
    ord("("): PickleMachine._mark,
    ord("N"): lambda m: m._push(None),
    ord("\x88"): lambda m: m._push(True),
    ord("\x89"): lambda m: m._push(False),
    ord("J"): lambda m: m._number(_I4),
    ord("K"): lambda m: m._number(_U1),
    ord("M"): lambda m: m._number(_U2),
    ord("G"): lambda m: m._number(_F8),
    ord("\x8a"): PickleMachine._long,
    ord("X"): PickleMachine._text,
    ord("U"): PickleMachine._short_text,
    ord("h"): lambda m: m._get(_U1),
    ord("j"): lambda m: m._get(_U4),
    ord("q"): lambda m: m._put(_U1),
    ord("r"): lambda m: m._put(_U4),
    ord(")"): lambda m: m._push(()),
    ord("]"): lambda m: m._push([]),
    ord("}"): lambda m: m._push({}),
    ord("t"): lambda m: m._tuple(None),
    ord("\x85"): lambda m: m._tuple(1),
    ord("\x86"): lambda m: m._tuple(2),
    ord("\x87"): lambda m: m._tuple(3),
    ord("a"): lambda m: m._append(several=False),
    ord("e"): lambda m: m._append(several=True),
    ord("s"): lambda m: m._set(several=False),
    ord("u"): lambda m: m._set(several=True),
    ord("c"): PickleMachine._global,
    ord("R"): PickleMachine._called,
    ord("\x81"): PickleMachine._called,
    ord("b"): PickleMachine._built,
    ord("Q"): PickleMachine._persistent,
    # Of later protocols: texts, bytes, and what names a class by two texts.
    ord("\x8c"): PickleMachine._short_text,
    ord("B"): lambda m: m._bytes(_U4),
    ord("C"): lambda m: m._bytes(_U1),
    ord("\x93"): PickleMachine._stack_global,
    ord("\x94"): lambda m: m._memo.update({len(m._memo): m._stack[-1]}),
    ord("\x95"): lambda m: m._take(8),
}
"""The instructions by their codes, named in the standard library's `pickletools`."""

"""The arguments' values, each asked for by name and type: every complaint names the argument."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, get_args, get_type_hints

from lsgm.errors import CheckpointError, did_you_mean
from lsgm.interop.nvlabs.schema import OfficialArguments
from lsgm.interop.taken import brief
from lsgm.structure import LARGEST

__all__ = ["Arguments"]

T = TypeVar("T")

LONGEST = 64
"""Entries of an argument that is a list: one for each resolution."""


@dataclass(frozen=True)
class Arguments:
    """Arguments by name. All methods raise CheckpointError, one sentence that names the argument."""

    values: Mapping[str, Any]

    def check(self) -> None:
        """Raise CheckpointError for an argument of another type than the authors' parser gives it.

        So too for one that a model of these arguments never looks at.
        """
        readers: dict[Any, Callable[[str], Any]] = {int: self.whole, float: self.number, bool: self.flag}
        for name, hint in get_type_hints(OfficialArguments).items():
            if self.values.get(name) is not None:
                kind = get_args(hint)[0]
                readers.get(kind, self.text if kind is str else self.wholes)(name)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number; ``default`` stands for an argument that older files lack."""
        value = self._get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST:
            raise self._refused(name, value, "a whole number of at most 63 bits")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._get(name, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not abs(value) <= sys.float_info.max:  # also what is no number, or too large for one
            raise self._refused(name, value, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return a truth value."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refused(name, value, "True or False")
        return value

    def text(self, name: str) -> str:
        """Return a word."""
        value = self._get(name, None)
        if not isinstance(value, str):
            raise self._refused(name, value, "a word")
        return value

    def wholes(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        value = self._get(name, default)
        listed = isinstance(value, (list, tuple)) and len(value) <= LONGEST
        if not listed or not all(type(item) is int and abs(item) <= LARGEST for item in value):
            raise self._refused(name, value, "a list of whole numbers")
        return tuple(value)

    def choice(self, name: str, table: Mapping[str, T], default: str | None = None) -> T:
        """Return what a table says of the argument's value."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in table:
            hint = did_you_mean(value[:80], table) if isinstance(value, str) else ""
            raise self._refused(name, value, "one of " + ", ".join(table) + hint.removesuffix("?"))
        return table[value]

    def _get(self, name: str, default: Any) -> Any:
        if name in self.values:
            return self.values[name]
        if default is None:
            raise CheckpointError(
                f"the checkpoint's arguments lack '{name}', without which its model is not known; "
                "give the file as the authors' code wrote it"
            )
        return default

    @staticmethod
    def _refused(name: str, value: Any, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint's argument '{name}' is {brief(value)}, and only {wanted} can be imported; "
            "its model cannot be built here"
        )

"""Files that this project writes, read back as the dataclass that says what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from lsgm.errors import DataError, UserError
from lsgm.files.shown import shown
from lsgm.files.text import REPAIR, read_table
from lsgm.structure import from_dict

__all__ = ["read_record", "record_of"]

T = TypeVar("T")


def record_of(
    cls: type[T],
    mapping: Mapping[str, Any],
    where: object,
    error: type[UserError] = DataError,
    repair: str = REPAIR,
) -> T:
    """Return the dataclass ``cls`` that a table of a file describes; keys it does not know are left out.

    Files of later versions have more keys, and pass. Raises ``error``, which names the key by its path and
    ends in ``repair``, where a key is missing, of another type, or refused by the dataclass itself.
    """
    try:
        return from_dict(cls, mapping, shown(str(where)), unknown="ignore", null=True)
    except UserError as problem:
        raise error(f"{problem}; {repair}") from None


def read_record(
    cls: type[T], path: Path | str, error: type[UserError] = DataError, repair: str = REPAIR
) -> T:
    """Return the dataclass ``cls`` that a JSON file holds. Raises as `record_of` and `read_json` do."""
    return record_of(cls, read_table(path, error, repair), path, error, repair)

"""How large a file may be before it is refused: bounds that honest files keep, each raised by a variable.

A command on any file that these let pass needs less than 2 GiB of memory beyond what its own work takes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from lsgm.errors import ConfigError, DataError, UserError

__all__ = ["ARRAYS", "DOCUMENT", "LINES", "TABLES", "Limit"]


@dataclass(frozen=True)
class Limit:
    """A largest number of something, which an environment variable raises."""

    variable: str
    default: int
    unit: str = "bytes"

    @property
    def value(self) -> int:
        """The limit that holds. Raises ConfigError where the variable is no whole number above 0."""
        given = os.environ.get(self.variable, "").strip()
        if not given:
            return self.default
        if not (given.isascii() and given.isdecimal() and len(given) < 19 and int(given) > 0):
            raise ConfigError(f"{self.variable} is '{given[:40]}'; give a whole number of {self.unit}")
        return int(given)

    def hold(self, where: object, count: int, error: type[UserError] = DataError) -> None:
        """Raise ``error`` where ``where`` has more than the limit."""
        if count > self.value:
            raise error(
                f"{where} has {count:,} {self.unit}, and at most {self.value:,} are read; if you know where "
                f"it comes from, set {self.variable}={count}"
            )


DOCUMENT = Limit("LSGM_LARGEST_JSON", 32 * 2**20)
"""One JSON document, or a file of result rows: memory is some twenty times as much."""
TABLES = Limit("LSGM_LARGEST_TOML", 2**20)
"""One TOML document, which is read slowly."""
LINES = Limit("LSGM_LARGEST_LOG", 128 * 2**20)
"""A log of JSON lines."""
ARRAYS = Limit("LSGM_LARGEST_ARRAYS", 2**30)
"""What the arrays of one file hold once unpacked."""

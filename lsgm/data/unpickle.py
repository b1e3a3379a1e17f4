"""Reading the pickles inside old archives without running what they say: only NumPy arrays are built."""

from __future__ import annotations

import importlib
import io
import pickle
from typing import Any

from lsgm.errors import DataError

__all__ = ["load_arrays"]

_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
}
"""Every name a pickle may refer to, and where it lives today."""


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(f"refers to {module}.{name}, which a file of arrays has no use for")
        home, attribute = _ALLOWED[module, name]
        try:
            found = importlib.import_module(home)
        except ModuleNotFoundError:  # NumPy 1
            found = importlib.import_module(home.replace("._core.", ".core."))
        return getattr(found, attribute)


def load_arrays(contents: bytes, source: str) -> dict[bytes, Any]:
    """Return the dictionary of a pickle made of containers, numbers, strings and arrays; keys are bytes.

    Raises:
        DataError: it refers to anything else, or is not a pickle of a dictionary. Nothing of it has run.
    """
    try:
        value = _ArraysOnly(io.BytesIO(contents), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{source} {error}; do not trust this file, fetch it again") from error
    # What damaged bytes make of it has no end of kinds: UnpicklingError, EOFError, KeyError, MemoryError.
    except Exception as error:
        raise DataError(f"{source} is not a readable pickle ({error}); fetch it again") from error
    if not isinstance(value, dict):
        raise DataError(f"{source} holds a {type(value).__name__} instead of a dictionary; fetch it again")
    return value

"""matplotlib without the settings of whatever folder a command is typed in."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

__all__ = ["import_matplotlib"]


def import_matplotlib() -> Any:
    """Return the package. Its first import reads no ``matplotlibrc`` of the working directory.

    In a folder that somebody sent such a file could have TeX run over the words of a figure, or keep the
    package from being imported; the user's own settings, elsewhere, hold.
    """
    apart = "matplotlib" not in sys.modules and os.path.lexists("matplotlibrc")
    with _elsewhere() if apart else contextlib.nullcontext():
        return importlib.import_module("matplotlib")


@contextlib.contextmanager
def _elsewhere() -> Iterator[None]:
    """Be in a folder that holds nothing for a while."""
    here = os.getcwd()
    with tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)

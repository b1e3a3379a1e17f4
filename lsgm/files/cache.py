"""The place of everything that is kept from one command to the next."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Return ``$LSGM_CACHE``, else ``$XDG_CACHE_HOME/lsgm``, else ``~/.cache/lsgm``."""
    if named := os.environ.get("LSGM_CACHE"):
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "lsgm"

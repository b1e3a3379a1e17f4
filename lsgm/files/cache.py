"""The place of everything that is kept from one command to the next."""

from __future__ import annotations

import os
from pathlib import Path

from lsgm.errors import ConfigError
from lsgm.files.shown import shown

__all__ = ["cache_dir"]


def cache_dir() -> Path:
    """Return ``$LSGM_CACHE``, else ``$XDG_CACHE_HOME/lsgm``, else ``~/.cache/lsgm``.

    Raises ConfigError where that is below the home of somebody who has none.
    """
    named, base = os.environ.get("LSGM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "lsgm"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no folder for the cache ({shown(str(error))[:200]}); set LSGM_CACHE to one"
        ) from error

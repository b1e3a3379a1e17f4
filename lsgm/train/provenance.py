"""What a run was made with: code revision, versions, hardware, command."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch

from lsgm.revision import git_revision

__all__ = ["hardware", "provenance", "versions"]

_PACKAGES = ("lsgm-bench", "torch", "numpy", "scipy", "safetensors", "pillow", "matplotlib")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that move numbers."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, Any]:
    """Return the processor, its threads and the GPUs."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "system": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }


def provenance(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Return all of it, with the time (UTC) and the command line."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "argv": list(sys.argv if argv is None else argv),
        "git_revision": git_revision(),
        "versions": versions(),
        "hardware": hardware(),
    }

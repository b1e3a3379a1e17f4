"""What a run was made with: code revision, versions, hardware, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("lsgm-bench", "torch", "numpy", "scipy", "safetensors", "pillow", "matplotlib")


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that move numbers."""
    return {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES}


@cache
def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def hardware() -> dict[str, Any]:
    """Return the processor, its threads and the GPUs."""
    import torch  # here: what a revision is asked of needs none

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


@cache
def git_revision() -> str | None:
    """Return the commit of this source tree, ``+dirty`` where tracked files differ; None outside of git."""
    here = Path(__file__).resolve()
    try:
        # An installed copy may lie inside somebody else's repository: this file must be git's.
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        changed = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
        return _git(here.parent, "rev-parse", "HEAD") + ("+dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    # A question changes nothing in a repository, and leaves no lock where the disk is full.
    question = ["git", "--no-optional-locks", "-C", str(folder), *words]
    done = subprocess.run(question, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()

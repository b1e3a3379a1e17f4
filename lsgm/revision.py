"""The commit that this code is at. Free of torch."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

__all__ = ["git_revision"]


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

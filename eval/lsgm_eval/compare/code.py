"""The code between two runs: revisions, the commits from one to the other, and which packages they touch."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PACKAGES", "Span", "span"]

PACKAGES = ("lsgm", "eval", "baselines", "reports")
"""The four source roots, whose files make the numbers."""

REVISION = re.compile(r"[0-9a-f]{4,64}")
MOST = 40
"""Commits and files listed; of more the first ones and their number are enough to look them up."""


@dataclass(frozen=True)
class Span:
    """What a clone knows of the way from one revision to another."""

    a: str | None
    b: str | None
    said: str
    """One sentence."""
    commits: tuple[str, ...] = ()
    """``git log --oneline A..B``, newest first."""
    stat: tuple[str, ...] = ()
    """``git diff --stat A B`` of the four packages."""


def span(a: str | None, b: str | None, clone: Path | None = None) -> Span:
    """Return what lies between two recorded revisions, which may end in ``+dirty`` or ``-dirty``.

    ``clone`` is any folder of the checkout that is asked, by default the one that this code is in.
    """
    if a is None or b is None:
        which = "neither run names a" if a is b is None else f"run {'A' if a is None else 'B'} names no"
        return Span(a, b, f"{which} git revision, as code outside of a clone has none")
    first, second = (_plain(revision) for revision in (a, b))
    dirty = [label for label, full, plain in (("A", a, first), ("B", b, second)) if full != plain]
    beside = f"; changes that {' and '.join(dirty)} had not committed are not in git" if dirty else ""
    if first == second:
        return Span(a, b, f"both are at {first[:12]}{beside}")
    folder = clone or Path(__file__).resolve().parent
    elsewhere = f"from {first[:12]} to {second[:12]}, which are not both in a clone at hand{beside}"
    if not (REVISION.fullmatch(first) and REVISION.fullmatch(second)):
        return Span(a, b, elsewhere)  # git has other words for commits, and options
    try:
        for revision in (first, second):
            _git(folder, "cat-file", "-e", f"{revision}^{{commit}}")
        commits = _git(folder, "log", "--oneline", f"{first}..{second}")
        back = _git(folder, "log", "--oneline", f"{second}..{first}")
        stat = _git(
            folder, "diff", f"--stat=100,80,{MOST}", first, second, "--", *(f":/{name}" for name in PACKAGES)
        )
    except (OSError, subprocess.SubprocessError):
        return Span(a, b, elsewhere)
    said = f"from {first[:12]} to {second[:12]}: {_commits(len(commits))} of B not in A"
    said += f", {_commits(len(back))} of A not in B" if back else ""
    said += "" if stat else "; no file of the four packages differs"
    more = (f"... and {len(commits) - MOST} more",) if len(commits) > MOST else ()
    return Span(a, b, said + beside, (*commits[:MOST], *more), stat)


def _plain(revision: str) -> str:
    return revision.removesuffix("+dirty").removesuffix("-dirty")


def _commits(count: int) -> str:
    return f"{count} commit{'s' * (count != 1)}"


def _git(folder: Path, *words: str) -> tuple[str, ...]:
    done = subprocess.run(
        ["git", "--no-optional-locks", "-C", str(folder), *words],
        capture_output=True,
        text=True,
        errors="replace",
        check=True,
        timeout=20,
    )
    return tuple(line.rstrip() for line in done.stdout.splitlines())

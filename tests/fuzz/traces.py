"""What a command leaves behind: files that differ, temporary ones, characters that steer a terminal."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fuzz.hostile import CANARY
from lsgm.files.write import TEMPORARY

__all__ = ["changed", "left", "printed", "shown_in", "snapshot"]


def _files(folder: Path, skipped: Sequence[Path]) -> Iterator[Path]:
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if path in skipped:
            continue
        yield path
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path, skipped)


def snapshot(base: Path, outs: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """Return what lies outside of the places that may be written to: kind, size, dates of content and status.

    The latter no program can set, so that whatever changes a file is seen by it.
    """
    skipped = [
        base / "cache",
        base / "tmp",
        base / "stdout",
        base / "stderr",
        base / CANARY,
        *(base / "here" / out for out in outs),
    ]
    found = {}
    for path in _files(base, skipped):
        about = path.lstat()
        dates = (about.st_size, about.st_mtime_ns, about.st_ctime_ns) if not path.is_dir() else ()
        found[str(path.relative_to(base))] = (about.st_mode, *dates)
    return found


def changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
    return [f"{'CHANGED' if name in before else 'WROTE'} {name} outside of its folders" for name in names[:5]]


def left(base: Path) -> list[str]:
    """Return the temporary files that are still there."""
    left = [str(path.relative_to(base)) for path in base.rglob("*") if path.name.startswith(TEMPORARY)]
    left += [
        f"tmp/{path.name}"
        for path in (base / "tmp").iterdir()
        if not path.name.startswith(("torchinductor", ".cache", ".config"))
    ]
    return [f"left {name}" for name in left[:5]]


def printed(base: Path) -> list[str]:
    """Return what is wrong with what was printed: characters that steer a terminal, a fault's last words."""
    wrong = []
    for name in ("stdout", "stderr"):
        file = base / name
        text = file.read_bytes()[: 2**22].decode("utf-8", "replace") if file.exists() else ""
        if "this should not have happened" in text:
            at = text.index("this should not have happened")
            wrong.append(f"a fault below main: {text[at : at + 300]}")
        if bad := _steering(text):
            wrong.append(f"{name} has the control characters {bad}")
    return wrong


def _steering(text: str) -> str:
    """Return the characters of a text that steer a terminal or turn the direction of writing."""
    bad = {
        c
        for c in set(text)
        if c not in "\n\t\r\u00ad\u200b\u200c\u200d\ufeff"
        and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp")
    }
    return ", ".join(sorted(map(ascii, bad)))


def shown_in(here: Path) -> list[str]:
    """Return what is wrong with the views of a report: such characters, formulas in the cells of a CSV."""
    wrong = []
    for name in ("report.md", "report.html", "tables.tex", "results.csv"):
        for file in (path for path in here.glob(f"*/{name}") if path.is_file() and not path.is_symlink()):
            text = file.read_bytes()[: 2**22].decode("utf-8", "replace")
            if name != "results.csv" and (bad := _steering(text)):
                wrong.append(f"{name} has the control characters {bad}")
            if name == "results.csv" and (cell := _formula(text)):
                wrong.append(f"{name} has the formula {cell[:60]!r}")
    return wrong


def _formula(text: str) -> str:
    for line in csv.reader(io.StringIO(text)):
        for cell in line:
            if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                try:
                    float(cell)
                except ValueError:
                    return cell
    return ""

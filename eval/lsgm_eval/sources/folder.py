"""A folder of image files, searched with its sub-folders."""

from __future__ import annotations

from pathlib import Path

from lsgm_eval.sources.checks import SUFFIXES
from lsgm_eval.sources.files import FileImages, ImageFile, hidden

__all__ = ["has_images", "read_folder"]


def read_folder(path: Path) -> FileImages:
    """Return the images of a folder in order of their names below it; hidden files are left out.

    Raises DataError for an empty folder and for any file that is not a ready image, naming it.
    """
    found = [p for p in path.rglob("*") if p.is_file()]
    files = [ImageFile(p.relative_to(path).as_posix(), p.read_bytes) for p in found]
    return FileImages(path, files, "a folder")


def has_images(path: Path) -> bool:
    """Return whether a folder holds an image file at any depth."""
    found = (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    return any(not hidden(p.relative_to(path).as_posix()) for p in found)

"""A zip of image files, read in place: nothing is unpacked."""

from __future__ import annotations

import zipfile
from functools import partial
from pathlib import Path

from lsgm_eval.sources.checks import reading
from lsgm_eval.sources.files import FileImages, ImageFile, hidden

__all__ = ["read_archive"]


def read_archive(path: Path) -> FileImages:
    """Return the images of a zip in order of their names, folders included; hidden files are left out.

    A folder around everything is no part of the names, so that a zipped folder is the same set as the folder.
    Raises DataError for a zip that is damaged, empty or encrypted and for any member that is not a ready
    image, naming it.
    """
    with reading(str(path)):
        archive = zipfile.ZipFile(path)
    members = [info for info in archive.infolist() if not (info.is_dir() or hidden(info.filename))]
    tops = {info.filename.partition("/")[:2] for info in members}
    skip = sum(map(len, next(iter(tops)))) if len(tops) == 1 and all(slash for _, slash in tops) else 0
    files = [ImageFile(info.filename[skip:], partial(archive.read, info)) for info in members]
    return FileImages(path, files, "a zip")
